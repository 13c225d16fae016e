"""The defaults of every method fit other backbones than DeiT, or are refused in one line."""

import functools
from itertools import pairwise

import pytest
import torch
from peers import deit, predictor_file
from torch import nn

import asap
from asap.backbones.lvvit import LVViT
from asap.core.anatomy import Anatomy
from asap.methods import (
    ATS,
    PPT,
    Asap,
    DynamicViT,
    EViT,
    Method,
    PruneSID,
    RandomDrop,
    ToMe,
    VisionZip,
    VisPruner,
    ZeroTPrune,
)

WIDTH = 24
SCHEDULED: list[Method] = [
    RandomDrop(), ToMe(), PPT(), EViT(), DynamicViT(weights=predictor_file(WIDTH)), ZeroTPrune(),
]  # fmt: skip
DEIT = (12, 196)
# Blocks and patches: the embedded model; DeiT; LV-ViT-S; ViT-L with patches of 16, of 14, and of 14
# at 336 pixels; and what lies at the edges.
SHAPES = [(12, 64), DEIT, (16, 196), (24, 196), (24, 256), (24, 576), (12, 576), (24, 64)]


def named(value: object) -> str:
    return type(value).__name__


@functools.cache
def narrow(depth: int, patches: int) -> nn.Module:
    if depth == 16:
        return LVViT(embed_dim=WIDTH, depth=depth, num_heads=3, stem_width=8).eval()
    return deit(WIDTH, 3, depth, patches)


def tokens(method: Method, depth: int, patches: int) -> list[int]:
    net = narrow(depth, patches)
    generator = torch.Generator().manual_seed(depth + patches)
    image = torch.randn(1, 3, *net.patch_embed.img_size, generator=generator)
    return asap.ReducedViT(net, method)(image, [0], return_trace=True)[1].tokens[0].tolist()


def share(counts: list[int], position: str) -> float:
    """MACs left of a dense model's blocks, 384 wide."""

    def spent(entering: int, leaving: int) -> int:
        late = leaving if position == "after_attention" else entering
        return 4 * entering * 384 + 2 * entering**2 + 8 * late * 384

    left = sum(spent(*pair) for pair in pairwise(counts))
    return left / (len(counts) - 1) / spent(counts[0], counts[0])


@pytest.mark.parametrize("method", SCHEDULED, ids=named)
def test_default_schedules_save_on_every_backbone_about_what_they_save_on_deit(
    method: Method,
) -> None:
    shares = {}
    for shape in SHAPES:
        counts = tokens(method, *shape)
        assert all(a >= b for a, b in pairwise(counts)) and counts[-1] > counts[0] / 5
        shares[shape] = share(counts, method.position)
    assert all(0.5 < left < 0.85 for left in shares.values()), shares
    assert all(abs(left - shares[DEIT]) < 0.1 for left in shares.values()), shares


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_ats_samples_from_a_quarter_of_the_depth_on(shape: tuple[int, int]) -> None:
    depth, patches = shape
    counts = tokens(ATS(), *shape)
    first = depth // 4
    assert counts[: first + 1] == [1 + patches] * (first + 1)
    assert all(a > b for a, b in pairwise(counts[first:])) and counts[-1] > 1


@pytest.mark.parametrize("method", [Asap(miss="force"), Asap(pool=False, miss="force")])
def test_asap_reduces_once_wherever_it_stops(method: Asap) -> None:
    for shape in ((12, 64), (16, 196), (24, 256)):
        counts = tokens(method, *shape)
        assert len(set(counts)) == 2 and counts[0] > counts[-1], shape


@pytest.mark.parametrize(("depth", "patches", "r"), [(12, 196, 8), (16, 196, 6), (24, 196, 4),
    (24, 256, 5), (24, 576, 12), (12, 64, 3), (24, 64, 1), (48, 16, 1)])  # fmt: skip
def test_tomes_default_is_in_proportion(depth: int, patches: int, r: int) -> None:
    removed = ToMe().removed(Anatomy("any", depth, 1, patches, True))
    assert removed == (r,) * depth


@pytest.mark.parametrize("depth", [4, 6])
def test_what_the_defaults_make_of_few_blocks(depth: int) -> None:
    few = Anatomy("few blocks", depth, 1, 25, True)
    late = VisionZip(), VisPruner(), PruneSID()
    for method in (RandomDrop(), ToMe(), PPT(), EViT(), ATS(), Asap(), *late):
        method.check(few)
    said = f"layers=None is not possible: layers must be a list: .* coincide, scaled to {depth}"
    with pytest.raises(ValueError, match=said):
        ZeroTPrune().check(few)
    ZeroTPrune((1, 3, 4), keep=0.8, iterations=5).check(few)
    with pytest.raises(ValueError, match="block=3 is not possible: block must be below 3"):
        RandomDrop().check(Anatomy("three", 3, 1, 25, True))
