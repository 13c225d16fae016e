"""EViT: against its reference, at the published points, and what it refuses."""

import functools
import random
from typing import Any

import pytest
import torch
from peers import CLASS_KEYS, compare, deit, model, picture
from places import Place
from places import place as place
from reference.evit_ref import Result, reference_evit
from torch import Tensor

import asap
from asap.methods import EViT

FLOAT = torch.float32
DRAWS = 12  # per model
FUSED = [197] * 4 + [140] * 3 + [100] * 3 + [72] * 3
DROPPED = [197] * 4 + [139] * 3 + [98] * 3 + [69] * 3


def drawn(rng: random.Random) -> dict[str, Any]:
    blocks = rng.choice([None, None, (0, 1, 5), (3, 7), (2,), tuple(range(8))])
    stages = len(blocks or (2, 4, 6))
    rates = [0.3, 0.5, 0.7, 0.9, 0.97, 1.0]
    rate = rng.choice([*rates, [rng.choice(rates) for _ in range(stages)]])
    return {"keep_rate": rate, "blocks": blocks, "fuse": rng.random() < 0.7}


@functools.cache
def answers(key: str) -> list[tuple[EViT, Tensor, Result]]:
    """Draws of options and image, with the reference's answers."""
    rng, found = random.Random(key), []
    for turn in range(DRAWS):
        options, image = drawn(rng), picture(key, turn)
        blocks, rate = options["blocks"] or (2, 4, 6), options["keep_rate"]
        each = (rate,) * len(blocks) if isinstance(rate, float) else rate
        net = model(key, torch.float64)
        answer = reference_evit(net, image.double(), each, blocks, options["fuse"])
        found.append((EViT(**options), image, answer))
    return found


@pytest.mark.parametrize("key", CLASS_KEYS)
def test_equals_the_reference(key: str, place: Place) -> None:
    some = place.some(answers(key))
    assert sum(compare(place, key, *given) for given in some) >= 1.5 * len(some)


@pytest.mark.parametrize(
    ("method", "tokens"),
    [(EViT(0.7, (3, 6, 9)), FUSED), (EViT(), FUSED), (EViT(0.7, fuse=False), DROPPED)],
)
def test_token_counts_on_deit(method: EViT, tokens: list[int]) -> None:
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    trace = asap.ReducedViT(deit(24, 3), method)(image, return_trace=True)[1]
    assert trace.tokens[0].tolist() == tokens


@pytest.mark.parametrize(("depth", "patches"), [(16, 64), (24, 256), (12, 576)])
def test_defaults_fit_other_backbones(depth: int, patches: int) -> None:
    image = torch.randn(1, 3, *[round(patches**0.5) * 16] * 2)
    trace = asap.ReducedViT(deit(24, 3, depth, patches), EViT())(image, return_trace=True)[1]
    steps = trace.tokens[0].diff().nonzero()[:, 0].tolist()
    assert steps == [depth // 4, depth // 2, 3 * depth // 4]


@pytest.mark.parametrize("rate", [1.0, 0.97])  # 0.97 of 25 patches are all of them
def test_nothing_to_remove_changes_nothing(rate: float) -> None:
    key, image = "registers-p25", picture("registers-p25", 0)[None]
    logits, trace = asap.ReducedViT(model(key, FLOAT), EViT(rate))(image, return_trace=True)
    assert torch.allclose(logits, model(key, FLOAT)(image), rtol=1e-5, atol=1e-5)
    assert int(trace.macs_method) == int(trace.stop_block) == 0


def test_a_single_patch_is_fused_with_its_weight() -> None:
    """One token less would be kept: it is replaced by itself times its attention, at the end."""
    key, image = "plain-p25", picture("plain-p25", 1)
    method = EViT(0.95, (2,))
    logits, trace = asap.ReducedViT(model(key, FLOAT), method)(image[None], return_trace=True)
    assert trace.tokens[0].tolist() == [26] * 9 and int(trace.stop_block) == 3
    assert (trace.assignment == 25).sum() == 1 and int(trace.macs_method) == 24
    assert not torch.allclose(logits, model(key, FLOAT)(image[None]), rtol=1e-3)
