"""PPT: against its reference, at the published points, and what it refuses."""

import functools
import math
import random
from typing import Any

import pytest
import torch
from peers import CLASS_KEYS, compare, deit, model, picture
from places import Place
from places import place as place
from reference.ppt_ref import Result, reference_ppt
from torch import Tensor

import asap
from asap.backbones.accepted import adapter_of
from asap.methods import PPT

FLOAT = torch.float32
DRAWS = 16  # per model


def expected(key: str, image: torch.Tensor, r: Any, threshold: float, blocks: Any, on: bool) -> Any:
    blocks = blocks or (2, 4, 6)
    each = (r,) * len(blocks) if isinstance(r, int) else r
    net = model(key, torch.float64)
    return reference_ppt(net, image.double(), each, threshold, blocks, proportional_attention=on)


def drawn(rng: random.Random, patches: int) -> dict[str, Any]:
    """Options of one draw; thresholds in units of the scores' coefficient of variation."""
    blocks = rng.choice([None, None, (0, 1, 5), (3, 7), (2,), tuple(range(8))])
    stages = len(blocks or (2, 4, 6))
    r = rng.choice([0, 3, 8, patches // 3, patches, [rng.randrange(9) for _ in range(stages)]])
    evenness = rng.choice([0.0, 2.5, 4.0, 6.0, 9.0, 13.0, math.inf])
    return {
        "r": r,
        "threshold": evenness / patches**2,
        "blocks": blocks,
        "proportional_attention": rng.random() < 0.7,
    }


@functools.cache
def answers(key: str) -> list[tuple[PPT, Tensor, Result]]:
    """Draws of options and image, with the reference's answers."""
    rng, found = random.Random(key), []
    patches = model(key, torch.float64).patch_embed.num_patches
    for turn in range(DRAWS):
        options, image = drawn(rng, patches), picture(key, turn)
        found.append((PPT(**options), image, expected(key, image, *options.values())))
    return found


@pytest.mark.parametrize("key", CLASS_KEYS)
def test_equals_the_reference(key: str, place: Place) -> None:
    some = place.some(answers(key))
    assert sum(compare(place, key, *given) for given in some) >= 1.5 * len(some)
    assert any(len(set(answer.pooled)) == 2 for _, _, answer in answers(key))


def test_images_of_a_batch_choose_for_themselves() -> None:
    """One batch, pooled and pruned images side by side, each as the reference has it alone."""
    key, images = "plain-p64", torch.stack([picture("plain-p64", i) for i in range(9)])
    net = model(key, torch.float64)
    first = [reference_ppt(net, x.double(), (9,), 0.0, (2,)).variances[0] for x in images]
    threshold = sorted(first)[4] * (1 + 1e-9)
    method = PPT(9, threshold, (2, 4))
    trace = asap.ReducedViT(net, method)(images.double(), return_trace=True)[1]
    pooled = 0
    for image, row, spent in zip(images, trace.assignment, trace.macs_method, strict=True):
        answer = reference_ppt(net, image.double(), (9, 9), threshold, (2, 4))
        assert row.tolist() == answer.assignment
        assert int(spent) == answer.macs_method
        pooled += answer.pooled[0]
    assert pooled == 5


@pytest.mark.parametrize("method", [PPT(50, 7e-5, (3, 6, 9)), PPT(), PPT(50, 0.0), PPT(50, 1.0)])
def test_token_counts_on_deit(method: PPT) -> None:
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    trace = asap.ReducedViT(deit(24, 3), method)(image, return_trace=True)[1]
    assert trace.tokens[0].tolist() == [197] * 4 + [147] * 3 + [97] * 3 + [49] * 3


def test_defaults_fit_other_backbones() -> None:
    anatomy = adapter_of(deit(24, 3)).anatomy
    assert PPT().removed(anatomy) == {3: 50, 6: 50, 9: 50} and PPT().limit(anatomy) == 7e-5
    for depth, patches, removed in ((16, 196, 50), (24, 576, 147), (24, 256, 65), (12, 64, 16)):
        other = adapter_of(deit(24, 3, depth, patches)).anatomy
        assert PPT().removed(other) == dict.fromkeys(
            (depth // 4, depth // 2, 3 * depth // 4), removed
        )
        assert PPT().limit(other) * patches**2 == pytest.approx(7e-5 * 196**2)


@pytest.mark.parametrize("r", [0, [0, 0, 0]])
def test_nothing_to_remove_changes_nothing(r: Any) -> None:
    key, image = "registers-p25", picture("registers-p25", 0)[None]
    logits, trace = asap.ReducedViT(model(key, FLOAT), PPT(r))(image, return_trace=True)
    assert torch.allclose(logits, model(key, FLOAT)(image), rtol=1e-5, atol=1e-5)
    assert int(trace.macs_method) == int(trace.stop_block) == 0
