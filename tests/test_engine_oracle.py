"""The engine against the one-image float64 references, which share no code with it."""

import functools
from collections import Counter

import pytest
import torch
from draws import Draw, draws, models
from peers import model, picture
from reference.asap_ref import Result, reference_asap
from reference.tome_ref import reference_tome

import asap
from asap.methods import Asap, ToMe

EXEMPT = 1e-5  # margins under this may fall either way in float32
KEYS = ("margin_mass", "margin_sink", "margin_bin")


@functools.cache
def all_draws() -> list[tuple[Draw, Result]]:
    """400 draws with the reference's answers."""
    found = []
    for draw in draws(400, seed=3):
        reference, image = model(draw.model_key, torch.float64), draw.image.double()
        random_anchor = {}
        if draw.options.get("anchor") == "random":
            reduced = asap.ReducedViT(reference, Asap(**draw.options))
            _, trace = reduced(image[None], [draw.image_id], return_trace=True)
            random_anchor = {"random_anchor": max(int(trace.sink), 0)}
        found.append((draw, reference_asap(reference, image, **random_anchor, **draw.options)))
    return found


def difference(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    theirs = theirs.double().flatten()
    return float((ours.double().flatten() - theirs).abs().max() / theirs.abs().max())


@pytest.mark.slow
def test_draws_stop_in_many_blocks() -> None:
    stops = Counter(result.stop_block for _, result in all_draws())
    assert sum(count >= 10 for block, count in stops.items() if block > 0) >= 5, stops


@pytest.mark.slow
def test_draws_reach_the_later_parts() -> None:
    """Budgets that bind, by stride sampling and by each plug-in; other anchors and distances."""
    seen = Counter()
    for draw, result in all_draws():
        if not result.stop_block:
            continue
        options = draw.options
        foreground = sum(b >= options.get("background", 1) for b in result.bins)
        room = options.get("max_tokens", 10**6) - options.get("pool", True)
        if foreground > room:
            seen[options.get("plugin", "stride")] += 1
        seen[options.get("anchor", "sink")] += 1
        seen[options.get("distance", "diffusion")] += 1
        seen[options["clusters"]] += 1
    wanted = ("stride", "features", "keys", "pca", "quiet", "self_aligned", "auto")
    assert all(seen[name] >= 8 for name in wanted), seen


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-4)])
def test_asap_equals_the_reference(dtype: torch.dtype, tolerance: float) -> None:
    compared = 0
    for draw, expected in all_draws():
        reduced = asap.ReducedViT(model(draw.model_key, dtype), Asap(**draw.options))
        logits, trace = reduced(draw.image[None].to(dtype), [draw.image_id], return_trace=True)
        margins = torch.stack([getattr(trace, key) for key in KEYS])
        unsure = bool((margins < EXEMPT).any()) or expected.margin_budget < EXEMPT
        if dtype == torch.float32 and unsure:
            continue
        compared += 1
        where = f"{draw.model_key} {draw.options}"
        assert int(trace.stop_block) == expected.stop_block, where
        assert int(trace.sink) == expected.sink, where
        assert trace.assignment[0].tolist() == list(expected.assignment), where
        assert trace.tokens[0].tolist() == list(expected.tokens), where
        assert difference(logits, torch.as_tensor(expected.logits)) < tolerance, where
        mass = torch.as_tensor(expected.mass, dtype=torch.float64)
        assert torch.allclose(trace.mass[0].double(), mass, rtol=1e-5, equal_nan=True), where
        assert int(trace.macs_backbone) == expected.macs_backbone, where
        assert int(trace.macs_method) == expected.macs_method["total"], where
    assert compared >= 300


@pytest.mark.parametrize("proportional", [True, False])
@pytest.mark.parametrize("r", [0, 3, 7, (4, -1.0), [5, 0, 9, 2]])
@pytest.mark.parametrize("key", sorted(models()))
def test_tome_equals_the_reference(key: str, r: object, proportional: bool) -> None:
    image = picture(key, 7)
    expected = reference_tome(
        model(key, torch.float64), image.double(), r, proportional_attention=proportional
    )
    for dtype, tolerance in ((torch.float64, 1e-6), (torch.float32, 1e-4)):
        if dtype == torch.float32 and expected.margin < EXEMPT:
            continue
        reduced = asap.ReducedViT(model(key, dtype), ToMe(r, proportional))
        logits, trace = reduced(image[None].to(dtype), return_trace=True)
        assert trace.tokens[0].tolist() == list(expected.tokens)
        assert trace.assignment[0].tolist() == list(expected.assignment)
        assert difference(logits, torch.as_tensor(expected.logits)) < tolerance
        assert int(trace.macs_backbone) == expected.macs_backbone
