"""The engine against the one-image float64 references, which share no code with it."""

import functools
from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
import torch
from draws import WIDTH, Draw, draws, models
from peers import NEAR, TOLERANCE, compare, difference, model, picture
from places import Place
from places import place as place
from reference.asap_ref import Result, reference_asap
from reference.tome_ref import reference_tome

import asap
from asap.methods import Asap, ToMe

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
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_asap_equals_the_reference(dtype: torch.dtype, place: Place) -> None:
    some, compared, tolerance = place.some(all_draws()), 0, TOLERANCE[dtype]
    for draw, expected in some:
        net = model(draw.model_key, dtype, place.device)
        reduced = asap.ReducedViT(net, Asap(**draw.options), backend=place.backend)
        image = draw.image[None].to(place.device, dtype)
        logits, trace = reduced(image, [draw.image_id], return_trace=True)
        margins = torch.stack([getattr(trace, key) for key in KEYS])
        unsure = bool((margins < NEAR).any()) or expected.margin_budget < NEAR
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
    assert compared >= 0.75 * len(some)


SETTINGS = [*product([0, 3, 7, (4, -1.0), [5, 0, 9, 2]], [True, False])]


@pytest.mark.parametrize("key", sorted(models()))
def test_tome_equals_the_reference(key: str, place: Place) -> None:
    """The reference counts the tokens that are merged, the engine all that are averaged: the ones
    they are merged into as well.
    """
    image, some, compared = picture(key, 7), place.some(SETTINGS), 0
    for r, proportional in some:
        expected = reference_tome(
            model(key, torch.float64), image.double(), r, proportional_attention=proportional
        )
        into = sum(len(set(match.merged.values())) for match in expected.matches)
        expected = replace(expected, macs_method=expected.macs_method + into * WIDTH)
        compared += compare(place, key, ToMe(r, proportional), image, expected)
    assert compared >= 1.5 * len(some)
