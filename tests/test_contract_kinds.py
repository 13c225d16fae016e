"""The contract, one small draw for every method on every kind of backbone that is accepted.

Switched off it is the backbone; token counts are those of the schedule; no token is lost where
tokens merge; on a CPU an image's result has the same bits alone, in another order, beside others.
"""

from collections.abc import Callable
from fractions import Fraction
from math import ceil

import pytest
import torch
from contract import (
    DTYPES,
    IDS,
    ON_CPU,
    accepted,
    backbone,
    differing,
    method,
    outcome,
    pictures,
)
from test_contract_identity import difference, switched_off
from torch import Tensor

import asap
from asap.engine.trace import Trace
from asap.methods import ATS, PPT, EViT, Method, PruneSID, VisionZip, VisPruner

COUNT = 5
KINDS = {
    "plain": "plain-p25",
    "distilled": "distilled-p36",
    "registers": "registers-p25",
    "layerscale": "layerscale-p36",
    "qk_norm": "qk_norm-p25",
    "clip": "clip-p36",
    "pooled": "average-p25",
    "pooled_with_class": "average_with_class-p36",
    "lvvit": "lvvit-p25",
    "6 blocks": "tiny",
    "4 blocks": "shallow",
}
# One setting of each method; of Asap the paper's variants, and ours.
METHODS = (
    "tome_3", "random_drop", "ppt_both", "evit", "dynamicvit", "ats", "zero_tprune", "visionzip",
    "vispruner", "prunesid",
    "pooling", "pruning", "no_accumulation", "random_anchor", "mass_anchor", "pca_anchor",
    "quiet", "auto", "static", "budget", "plugin",
)  # fmt: skip
DROPPING = ("random_drop", "ppt_both", "dynamicvit", "ats", "zero_tprune", "pruning",
            "vispruner", "prunesid")  # fmt: skip
BUDGETS = {"budget": 6, "plugin": 6}  # `max_tokens` there


def planned(name: str, patches: int, depth: int) -> list[int] | None:
    """Patches that enter each block, then those that leave the last one; None: image by image."""
    quarters = [depth * i // 4 for i in (1, 2, 3)]
    changes: dict[int, Callable[[int], int]] = {}  # by the first block that has fewer tokens
    if name == "tome_3":
        changes = {b + 1: lambda n: n - min(3, n // 2) for b in range(depth)}
    elif name == "random_drop":
        changes = {2: lambda n: int(Fraction(4, 10) * n + Fraction(1, 2))}
    elif name == "ppt_both":
        r = round(Fraction(50 * patches, 196))
        changes = {b + 1: lambda n: n - min(r, n // 2) for b in quarters}
    elif name == "evit":
        changes = {b + 1: lambda n: min(n, ceil(Fraction(7, 10) * n) + 1) for b in quarters}
    elif name == "dynamicvit":
        shares = [Fraction(6, 10) ** i for i in (1, 2, 3)]
        changes = {
            b: lambda n, s=s: int(patches * s) for b, s in zip(quarters, shares, strict=True)
        }
    elif name == "static":  # the nearest quarter becomes one token in block 2
        changes = {2: lambda n: n - ceil(Fraction(n, 4)) + 1}
    elif name == "zero_tprune":
        removed = {1: 2, 3: 1, 4: 0}
        changes = {b: lambda n, s=s: int(Fraction(7, 10) * (n - s)) for b, s in removed.items()}
    elif name == "visionzip":
        changes = {2: lambda n: 4 + 2}
    elif name in ("vispruner", "prunesid"):  # after the last block but one
        changes = {depth - 1: lambda n: {"vispruner": 5, "prunesid": 8}[name]}
    else:
        return None
    counts = [patches]
    for block in range(1, depth + 1):
        counts.append(changes.get(block, lambda n: n)(counts[-1]))
    return counts


def check_counts(name: str, trace: Trace, prefix: int, patches: int, depth: int) -> None:
    counts = trace.tokens - prefix
    assert (counts[:, 0] == patches).all() and (counts.diff(dim=1) <= 0).all()
    assert (counts[:, -1] >= 1).all() and (counts[:, -1] < patches).any()
    schedule = planned(name, patches, depth)
    if schedule is not None:
        assert counts.tolist() == [schedule] * COUNT
    elif name == "ats":  # in every block from a quarter on; the lowest score is never hit
        quarter = depth // 4
        assert (counts[:, : quarter + 1] == patches).all()
        more = counts[:, quarter:-1] > 1
        assert (counts[:, quarter:].diff(dim=1)[more] < 0).all()
    else:  # Asap reduces once, in the block where the image stops
        for image, stop in enumerate(trace.stop_block.tolist()):
            steps = counts[image].diff().nonzero()[:, 0].tolist()
            assert steps in ([], [stop - 1])
            if stop and name in BUDGETS:
                assert counts[image, -1] <= BUDGETS[name]


def check_places(name: str, trace: Trace, prefix: int) -> None:
    """Every position behind the prefix is some patch's; merging methods lose no patch."""
    for held, left in zip(trace.assignment, trace.tokens[:, -1].tolist(), strict=True):
        assert set(held.tolist()) - {-1} == set(range(prefix, left))
        if name not in (*DROPPING, *BUDGETS):
            assert (held >= prefix).all()


PAIRS = [
    (name, kind, DTYPES[(row + column) % 2])
    for row, name in enumerate(METHODS)
    for column, kind in enumerate(KINDS)
]


@pytest.mark.parametrize(("name", "kind", "dtype"), PAIRS)
def test_every_method_on_every_kind_of_backbone(name: str, kind: str, dtype: torch.dtype) -> None:
    key = accepted(name, KINDS[kind])
    net, images = backbone(key, dtype), pictures(key, dtype, COUNT)
    reduced = asap.ReducedViT(net, method(name, key, dtype, COUNT))
    whole = outcome(reduced, images, list(range(COUNT)))
    assert whole[0].isfinite().all() and whole[0].dtype == dtype
    check_counts(
        name, whole[1], net.num_prefix_tokens, net.patch_embed.num_patches, len(net.blocks)
    )
    check_places(name, whole[1], net.num_prefix_tokens)
    for picked in ([4, 2, 0, 3, 1], [3]) if ON_CPU else ():
        wrong = differing(whole, outcome(reduced, images, picked), picked)
        assert not wrong, (picked, wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_switched_off_is_the_backbone(kind: str) -> None:
    net = backbone(KINDS[kind], torch.float32)
    images: Tensor = pictures(KINDS[kind], torch.float32, COUNT)
    with torch.no_grad():
        expected = net(images)
    for off in switched_off(net):
        logits, trace = asap.ReducedViT(net, off)(images, IDS[:COUNT], return_trace=True)
        assert difference(logits, expected) < 1e-5, off
        assert not trace.stop_block.any() and (trace.tokens == trace.tokens[:, :1]).all(), off


@pytest.mark.parametrize(
    "needing",
    [ATS(), PPT(), EViT(), VisionZip(), VisPruner(), PruneSID()],
    ids=lambda m: type(m).__name__,
)
def test_what_a_class_token_attends_to_needs_a_class_token(needing: Method) -> None:
    said = f"{type(needing).__name__} scores patches by .* no class token: choose another method"
    with pytest.raises(ValueError, match=said):
        asap.ReducedViT(backbone("average-p25", torch.float32), needing)
