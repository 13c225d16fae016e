"""Zero-TPrune: against its one-image reference, the schedule's counts, in a batch, bad options."""

import functools
import random
from fractions import Fraction

import pytest
import torch
from contract import differing
from draws import models
from peers import compare, model
from places import Place
from places import place as place
from reference.zero_tprune_ref import Result, reference_zero_tprune
from test_methods_ats import picture, sharp_deit
from torch import Tensor

import asap
from asap.core.anatomy import Anatomy
from asap.core.pagerank import among, most_similar, over_heads, page_rank, start_scores
from asap.methods import ZeroTPrune

KEYS = sorted(models())
DEIT = Anatomy("deit", 12, 1, 196, True)


def options_drawn(rng: random.Random, patches: int) -> dict:
    """Explicit options of one draw; every layer leaves a patch."""
    layers = sorted(rng.sample(range(1, 9), rng.choice([1, 2, 3, 5])))
    left, keep, similar, iterations = patches, [], [], []
    for _ in layers:
        similar.append(rng.choice([0, 1, min(3, left // 2), left // 4]))
        keep.append(rng.choice([1.0, 0.9, 0.8, 0.7, 0.5]) if left > 3 else 1.0)
        iterations.append(rng.choice([1, 5, 30]))
        left = int(Fraction(str(keep[-1])) * (left - similar[-1]))
    options = {"layers": layers, "keep": keep, "similar": similar, "iterations": iterations}
    if rng.random() < 0.3:
        options["initial"] = "uniform"
    if rng.random() < 0.4:  # by default nearly all heads of these small models are in the range
        options |= rng.choice(
            [{"low": 0.3}, {"high": 0.1}, {"low": 0.1, "high": 0.4}, {"low": 9.0, "high": 9.5}]
        )
    return options


@functools.cache
def answers() -> list[tuple[str, dict, Tensor, Result]]:
    rng, found = random.Random(8), []
    while len(found) < 192:
        key = KEYS[len(found) % len(KEYS)]
        backbone = model(key, torch.float64)
        options = options_drawn(rng, backbone.patch_embed.num_patches)
        generator = torch.Generator().manual_seed(len(found))
        image = torch.randn(3, *backbone.patch_embed.img_size, generator=generator)
        found.append((key, options, image, reference_zero_tprune(backbone, image, **options)))
    return found


@pytest.mark.slow
def test_equals_the_reference(place: Place) -> None:
    some, compared = place.some(answers()), 0
    for key, options, image, expected in some:
        compared += compare(place, key, ZeroTPrune(**options), image, expected)
    assert compared >= 1.78 * len(some)  # in float64 and in float32


# --- the schedule -------------------------------------------------------------------------------


def test_the_default_schedule_scales_with_the_backbone() -> None:
    def stages(depth: int, patches: int) -> dict[int, tuple]:
        anatomy = Anatomy("any", depth, 1, patches, True)
        ZeroTPrune().check(anatomy)
        return {layer: tuple(s) for layer, s in ZeroTPrune().stages(anatomy).items()}

    assert list(stages(12, 196)) == [1, 3, 6, 9, 11]
    assert list(stages(24, 256)) == [2, 6, 12, 18, 22]
    assert list(stages(16, 196)) == [1, 4, 8, 12, 14]
    assert list(stages(8, 25)) == [1, 2, 4, 6, 7]
    assert stages(12, 64) == {
        1: (3, 61, 30),
        3: (3, 49, 5),
        6: (3, 36, 5),
        9: (3, 23, 1),
        11: (3, 20, 1),
    }
    assert [s[0] for s in stages(24, 576).values()] == [29] * 5
    for depth in (8, 9, 12, 16, 24, 32, 40):
        for patches in (16, 25, 64, 144, 256, 576, 1024):
            stages(depth, patches)


def test_shares_are_taken_as_decimal_numbers() -> None:
    method = ZeroTPrune(layers=[2], keep=0.29, similar=0, iterations=1)
    assert method.stages(Anatomy("any", 12, 1, 100, True))[2].left == 29


def test_one_number_stands_for_every_layer() -> None:
    one = ZeroTPrune(layers=(2, 4), keep=0.5, similar=4, iterations=3)
    each = ZeroTPrune(layers=[2, 4], keep=[0.5, 0.5], similar=[4, 4], iterations=[3, 3])
    assert one.stages(DEIT) == each.stages(DEIT) == {2: (4, 96, 3), 4: (4, 46, 3)}


# --- the mathematics by hand --------------------------------------------------------------------


def test_votes_by_hand() -> None:
    attention = torch.tensor([[[[0.5, 0.25, 0.25], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]]]).double()
    ones = torch.ones(3).double()
    assert page_rank(attention, ones, 1)[0, 0].tolist() == [1.5, 0.25, 1.25]
    assert page_rank(attention, ones, 2)[0, 0].tolist() == [2.0, 0.375, 0.625]
    start = start_scores(4, True, ones)
    assert torch.allclose(start, torch.tensor([2.0, 1, 1, 1]).double() * 4 / 5)
    left = among(attention, torch.tensor([[0, 2]]))
    assert torch.allclose(left[0, 0], torch.tensor([[2 / 3, 1 / 3], [1.0, 0.0]]).double())


def test_heads_by_hand() -> None:
    """Variances over the patches 0, 1 and 4; the prefix token's score is not looked at."""
    scores = torch.tensor([[[9.0, 1, 1], [9.0, 1, 3], [9.0, 2, 6]]])
    assert over_heads(scores, 1, 0.5, 1.5).tolist() == [[1.0, 3.0]]
    assert torch.allclose(over_heads(scores, 1, 0.5, 9.0), torch.tensor([[2.5, 22.5]]).sqrt())
    assert torch.allclose(over_heads(scores, 1, 5.0, 6.0), torch.tensor([[2.0, 46 / 3]]).sqrt())


def test_similarity_by_hand() -> None:
    """Of five, 0 and 3 are the less important; 3 points like 1, 0 like nobody."""
    keys = torch.tensor([[[1.0, -1], [1, 0.1], [0, 1], [2, 0], [1, 1]]])
    importance = torch.tensor([[0.1, 5, 5, 0.2, 5]])
    assert most_similar(keys, importance, 1).tolist() == [[False, False, False, True, False]]
    assert most_similar(keys, importance, 2).tolist() == [[True, False, False, True, False]]
    even = torch.ones(1, 6, 2)
    assert most_similar(even, torch.ones(1, 6), 2)[0].nonzero()[:, 0].tolist() == [3, 4]


# --- the contract -------------------------------------------------------------------------------


def test_nor_does_a_real_sequence_depend_on_its_batch() -> None:
    backbone = sharp_deit("deit_tiny_patch16_224", depth=8)
    images = picture(backbone, 4)
    reduced = asap.ReducedViT(backbone, ZeroTPrune())
    whole = reduced(images, return_trace=True)
    for picked in ([3, 1, 0], [2], [3]):
        assert not differing(whole, reduced(images[picked], return_trace=True), picked)


@pytest.mark.parametrize(
    ("unfit", "depth", "patches", "allowed"),
    [
        (ZeroTPrune(), 6, 64, r"layers=None.*a list: .*coincide, scaled to 6"),
        (ZeroTPrune(similar=98, keep=0.9), 12, 196, "similar.*at most 44.*after block 3"),
    ],
)
def test_what_does_not_fit_the_backbone_is_refused(
    unfit: ZeroTPrune, depth: int, patches: int, allowed: str
) -> None:
    with pytest.raises(ValueError, match=allowed):
        unfit.check(Anatomy("any", depth, 1, patches, True))
