"""Token counts and MACs that papers and their specification state, without weights or large models.

Counts come from a narrow model of the same depth and length, as they do not depend on width; MACs
from those counts and the published width, by the closed form and by the formula written out here.
"""

import functools
from itertools import pairwise

import numpy as np
import pytest
import timm
import torch
from peers import deit, predictor_file, predictors
from timm.models.deit import VisionTransformerDistilled
from torch import nn

import asap
from asap.backbones.accepted import adapter_of
from asap.backbones.lvvit import LVViT
from asap.core.macs import BackboneCost, backbone_macs
from asap.core.predictor import predictor_macs
from asap.methods import PPT, Dense, DynamicViT, EViT, Method, ToMe, ZeroTPrune

WIDTHS = {"deit_tiny": 192, "deit_small": 384, "deit_base": 768, "lvvit_s": 384}
NARROW = 24


@functools.cache
def cost_of(name: str) -> BackboneCost:
    """What the real architecture costs; its weights are never made."""
    with torch.device("meta"):
        if name == "lvvit_s":
            return adapter_of(LVViT().eval()).cost
        return adapter_of(timm.create_model(f"{name}_patch16_224", pretrained=False).eval()).cost


@functools.cache
def narrow(name: str) -> nn.Module:
    """A model with as many blocks and tokens, 24 channels wide."""
    if name == "lvvit_s":
        return LVViT(embed_dim=NARROW, num_heads=3, stem_width=8).eval()
    if name == "distilled":
        return VisionTransformerDistilled(embed_dim=NARROW, num_heads=3, num_classes=9).eval()
    return deit(NARROW, 3)


@functools.cache
def counts(method: Method, name: str) -> list[int]:
    """Tokens that enter each block, then those that leave the last one."""
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    kind = name if name in ("lvvit_s", "distilled") else "deit"
    return asap.ReducedViT(narrow(kind), method)(image, return_trace=True)[1].tokens[0].tolist()


def written_out(name: str, tokens: list[int], position: str) -> int:
    """MACs by the papers' formula, where methods reduce outside blocks or in their middle."""
    width = WIDTHS[name]
    ratio, embed, head = 4, 196 * 768 * width, width * 1000
    if name == "lvvit_s":
        stem = 112**2 * (3 * 64 * 49 + 2 * 64 * 64 * 9) + 196 * 64 * 64 * width
        ratio, embed, head = 3, stem, head + (tokens[-1] - 1) * width * 1000
    total = embed + head
    for entering, leaving in pairwise(tokens):
        late = leaving if position == "after_attention" else entering
        total += 4 * entering * width**2 + 2 * entering**2 * width + 2 * ratio * late * width**2
    return total


def at(*stages: int, blocks: tuple[int, ...] = (3, 6, 9), depth: int = 12) -> list[int]:
    """Counts that change once after each of some blocks."""
    left, edges = [], (*blocks, depth)
    for stage, (first, last) in zip(stages, zip((-1, *blocks), edges, strict=True), strict=True):
        left += [stage] * (last - first)
    return left


def steady(r: int, depth: int = 12, last: tuple[int, ...] = ()) -> list[int]:
    """r fewer a block, and the last ones as given."""
    return [197 - r * block for block in range(depth + 1 - len(last))] + list(last)


ZERO = (197, 187, 187, 150, 150, 150, 112, 112, 112, 71, 71, 61, 61)
ZERO_TINY = (197, 187, 187, 168, 168, 168, 134, 134, 134, 93, 93, 83, 83)
TRAINED = DynamicViT(weights=predictor_file(NARROW))
# Backbone, method, tokens by hand, GMACs of the backbone as published, and their digits.
ROWS: list[tuple[str, Method, list[int], float, int]] = [
    ("deit_tiny", Dense(), [197] * 13, 1.2537, 4),
    ("deit_small", Dense(), [197] * 13, 4.5989, 4),
    ("deit_base", Dense(), [197] * 13, 17.5638, 4),
    ("lvvit_s", Dense(), [197] * 17, 6.5515, 4),
    ("deit_base", ToMe(10), steady(10), 12.00, 2),
    ("deit_base", ToMe(11), steady(11), 11.457, 3),
    ("deit_base", ToMe(12), steady(12), 10.91, 2),
    ("deit_small", ToMe(11), steady(11), 2.986, 3),
    ("deit_small", ToMe(12), steady(12), 2.844, 3),
    ("deit_small", ToMe(13), steady(13), 2.703, 3),
    ("deit_tiny", ToMe(10), steady(10), 0.846, 3),
    ("deit_tiny", ToMe(11), steady(11), 0.807, 3),
    ("deit_tiny", ToMe(12), steady(12), 0.769, 3),
    ("lvvit_s", ToMe(14), steady(14, 16, (8, 5, 3)), 3.543, 3),
    ("deit_small", PPT(50), at(197, 147, 97, 49), 2.941, 3),
    ("deit_base", PPT(45), at(197, 152, 107, 62), 11.843, 3),
    ("deit_small", PPT(55), at(197, 142, 87, 44), 2.830, 2),
    ("deit_small", PPT(56), at(197, 141, 85, 43), 2.807, 2),
    ("deit_small", PPT(57), at(197, 140, 83, 42), 2.785, 2),
    ("deit_small", PPT(58), at(197, 139, 81, 41), 2.763, 2),
    ("deit_tiny", PPT(50), at(197, 147, 97, 49), 0.798, 3),
    ("deit_small", EViT(0.7), at(197, 140, 100, 72), 3.03, 2),
    ("deit_base", EViT(0.7), at(197, 140, 100, 72), 11.61, 2),
    ("deit_small", EViT(0.7, fuse=False), at(197, 139, 98, 69), 3.00, 2),
    ("deit_base", EViT(0.7, fuse=False), at(197, 139, 98, 69), 11.49, 2),
    ("deit_small", TRAINED, at(197, 138, 97, 68, blocks=(2, 5, 8)), 2.88, 2),
    ("deit_base", TRAINED, at(197, 138, 97, 68, blocks=(2, 5, 8)), 11.06, 2),
    ("deit_small", ZeroTPrune(), list(ZERO), 2.993, 3),
    ("deit_tiny", ZeroTPrune(keep=(1.0, 0.95, 0.85, 0.75, 1.0)), list(ZERO_TINY), 0.906, 3),
]


@pytest.mark.parametrize(
    ("name", "method", "tokens", "gmacs", "digits"),
    ROWS,
    ids=[f"{name}-{type(method).__name__}-{gmacs}" for name, method, _, gmacs, _ in ROWS],
)
def test_tokens_and_macs_are_as_published(
    name: str, method: Method, tokens: list[int], gmacs: float, digits: int
) -> None:
    assert counts(method, name) == tokens
    macs = int(backbone_macs(cost_of(name), np.array([tokens]), method.position)[0])
    assert macs == written_out(name, tokens, method.position)
    assert macs / 1e9 == pytest.approx(gmacs, abs=0.5 * 10**-digits)


@pytest.mark.parametrize(("name", "both"), [("deit_small", 2.98), ("deit_base", 11.48)])
def test_dynamicvits_cost_with_its_predictors(name: str, both: float) -> None:
    """They see 196, 137 and 96 patches."""
    tokens = at(197, 138, 97, 68, blocks=(2, 5, 8))
    macs = int(backbone_macs(cost_of(name), np.array([tokens]), TRAINED.position)[0])
    spent = (196 + 137 + 96) * predictor_macs(predictors(WIDTHS[name])[0])
    assert (macs + spent) / 1e9 == pytest.approx(both, abs=0.0101)


@pytest.mark.parametrize(("r", "left"), [(0, 197), (8, 101), (13, 41), (16, 11), ((8, -1.0), 106)])
def test_tomes_last_count(r: int | tuple[int, float], left: int) -> None:
    """A model with a distillation token ends with one more."""
    assert counts(ToMe(r), "deit_small")[-1] == left
    assert counts(ToMe(r), "distilled")[-1] == left + 1


def test_no_constant_r_of_tome_has_the_cost_of_the_papers_row() -> None:
    """DeiT-Base's -34.09 % is 11.6 of 17.6 GMACs; PPT's -32.95 %, 11.8, fits r = 45 alone."""
    cost, found, fits = cost_of("deit_base"), [], []
    for r in range(1, 20):
        tokens = [197]
        for _ in range(12):
            tokens.append(tokens[-1] - min(r, (tokens[-1] - 1) // 2))
        found.append(backbone_macs(cost, np.array([tokens]), ToMe.position)[0] / 1e9)
    assert not any(round(gmacs, 1) == 11.6 for gmacs in found)
    for r in range(30, 60):
        stages = [197]
        for _ in range(3):
            stages.append(stages[-1] - min(r, (stages[-1] - 1) // 2))
        macs = backbone_macs(cost, np.array([at(*stages)]), PPT.position)[0]
        fits += [r] if round(macs / 1e9, 1) == 11.8 else []
    assert fits == [45]
