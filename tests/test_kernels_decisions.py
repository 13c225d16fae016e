"""Orders, positions of kept tokens, matching and weights by kernels, against the core's own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from packed_heads import DEVICE
from torch import Tensor

from asap.core import accelerated, matching, order, pooling, ranking
from asap.core.anatomy import Anatomy
from asap.core.emergence import emergence
from asap.engine.device.noting import note
from asap.engine.kernels import launch
from asap.engine.kernels import matching as matching_kernels
from asap.engine.kernels import ranking as ranking_kernels
from asap.engine.kernels.emergence import emergence as emergence_kernel
from asap.engine.kernels.registry import VERSIONS
from asap.engine.kernels.weights import mean_weights
from asap.engine.trace import Trace
from asap.methods import Asap
from asap.methods.base import Column, Decision

large = pytest.mark.large
pytestmark = pytest.mark.skipif(not launch.INSTALLED, reason="Triton is not installed")
SIZES = [2, 17, 53, 197, *(pytest.param(n, marks=large) for n in (257, 577, 1025, 2880, 4096))]
LARGE = [pytest.param(n, d, marks=large) for n in (64, 257, 577, 1025, 2880) for d in (32, 64, 80)]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def by_the_core(function: Callable[..., Any], *arguments: object) -> Any:
    """Without kernels, on a CUDA device too."""
    with accelerated.registered("cuda", dict.fromkeys(VERSIONS, lambda *_: None)):
        return function(*arguments)


@pytest.mark.slow
@pytest.mark.parametrize("n", SIZES)
def test_orders(n):
    """Among the scores are ties, both zeros, infinities and NaN."""
    scores = drawn(3, n).mul(4).round()
    scores[1, ::5] = torch.tensor([-0.0, 0.0], device=DEVICE).repeat(n)[: len(scores[1, ::5])]
    scores[2, ::7], scores[2, 1::7] = float("inf"), float("-inf")
    scores[0, ::9] = float("nan")
    for descending in (False, True):
        found = ranking_kernels.ranks(scores, descending)
        assert found is not None and torch.equal(
            found, by_the_core(order.ranks, scores, descending)
        )
    strided = torch.cat([scores, scores], dim=1)[:, 1 : n + 1]
    for keep, prefix in ((n // 3, 1), (n, 2), (0, 1))[: 3 if n < 100 else 1]:
        found = ranking_kernels.ranked_target(strided, keep, prefix)
        expected = by_the_core(ranking.ranked_target, strided, keep, prefix)
        assert found is not None and torch.equal(found, expected)


@pytest.mark.parametrize(("n", "d"), [(2, 32), (17, 32), (53, 80), (197, 64), *LARGE])
def test_matching(n, d):
    """Keys as the attention has them; random ones, so that no two similarities are alike."""
    packed = drawn(2, n, 3, 3, d, seed=n).half() if d == 64 else drawn(2, n, 3, 3, d, seed=n)
    keys = packed[:, :, 1].transpose(1, 2)
    metric = matching_kernels.mean_of_heads(keys)
    expected = by_the_core(matching.mean_of_heads, keys, drawn(1))
    assert metric is not None and torch.allclose(metric, expected, rtol=1e-6, atol=1e-6)
    cases = ((n // 4, 1), ((n - 2) // 2, 2), (1, 1), ((n - 3) // 2, 3), (0, 1))
    for r, prefix in cases[: 5 if n < 100 else 2]:
        if 0 <= r <= (n - prefix) // 2:
            found = matching_kernels.bipartite_matching(metric, r, prefix)
            target = by_the_core(matching.bipartite_matching, metric, r, prefix)
            assert found is not None and torch.equal(found, target), (r, prefix)


def test_matching_breaks_ties_by_index():
    """Tokens of two directions only: all similarities are 1 or 0."""
    metric = torch.eye(2, device=DEVICE)[torch.tensor([0, 1, 1, 0, 0, 1, 1, 1, 0])][None]
    for r in range(4):
        found = matching_kernels.bipartite_matching(metric, r, 1)
        expected = by_the_core(matching.bipartite_matching, metric, r, 1)
        assert found is not None and torch.equal(found, expected)


def test_matching_of_numbers_that_are_none_stays_inside():
    metric = torch.full((1, 20, 16), float("nan"), device=DEVICE)
    found = matching_kernels.bipartite_matching(metric, 5, 1)
    assert found is not None and found.min() == 0 and found.max() == 14


@pytest.mark.parametrize("n", SIZES)
def test_weights_of_means(n):
    """Sizes that differ, tokens that are dropped."""
    draw = torch.Generator().manual_seed(n)
    sizes = torch.randint(1, 9, (2, n), generator=draw).float().to(DEVICE)
    target = torch.randint(-1, max(n // 2, 1), (2, n), generator=draw).to(DEVICE)
    found = mean_weights(sizes, target)
    expected = by_the_core(pooling.mean_weights, sizes, target)
    assert found is not None and torch.equal(found, expected)


@pytest.mark.parametrize("n", [17, 197, pytest.param(2880, marks=large)])
def test_emergence(n):
    """Above and below the threshold; NaN never exceeds it."""
    mass = drawn(4, 2, n).abs()[:, 0, 1:]
    mass[1] *= 0.01
    mass[2, 3] = float("nan")
    found = emergence_kernel(mass, 0.5)
    expected = by_the_core(emergence, mass, 0.5)
    assert found is not None
    for one, other in zip(found, expected, strict=True):
        assert torch.allclose(one.float(), other.float(), rtol=0, atol=0, equal_nan=True)
    assert found[1].tolist() == [True, False, False, True]


def test_the_core_asks_for_kernels():
    """In float32 on a device whose kernels are registered, and nowhere else."""
    scores = drawn(2, 12)
    calls = []
    versions = {name: lambda *given, name=name: calls.append(name) for name in VERSIONS}
    with accelerated.registered(torch.device(DEVICE).type, versions):
        for kind in (torch.float32, torch.float64):
            given = scores.to(kind)
            order.ranks(given)
            ranking.ranked_target(given, 3, 1)
            emergence(given, 1.0)
            pooling.mean_weights(given.abs(), torch.zeros(2, 12, dtype=torch.int64, device=DEVICE))
            metric = matching.mean_of_heads(given.view(2, 1, 3, 4), given)
            matching.bipartite_matching(metric, 1, 1)
            Asap().kept_state(Anatomy("made up", 4, 1, 5, True), 2, given)
    assert sorted(calls) == sorted(VERSIONS)


def test_what_a_kernel_does_not_take_is_left_to_the_core():
    scores = drawn(1, 5000)
    assert ranking_kernels.ranks(scores) is None
    assert mean_weights(scores.double(), scores.long()) is None
    assert matching_kernels.bipartite_matching(drawn(1, 8, 200), 2, 1) is None
    with accelerated.registered(torch.device(DEVICE).type, VERSIONS):
        assert torch.equal(order.ranks(scores), by_the_core(order.ranks, scores))


@pytest.mark.parametrize("device_kernels", [True, False])
@pytest.mark.parametrize("many", [False, True])
def test_values_of_a_trace(device_kernels, many, monkeypatch):
    """As an ordinary trace writes them, image by image."""
    if not device_kernels:
        monkeypatch.setattr(launch, "DEVICES", set())
    declared = (
        Column("mass", "float", per_block=True),
        Column("lead", "float", combine="min"),
        Column("sink", "int"),
        Column("count", "int", combine="min"),
        *((Column("more", "float"),) if many else ()),
    )
    b, nan = 20, float("nan")
    ours, theirs = (Trace.empty(b, 3, 8, 1, declared, torch.device(DEVICE)) for _ in range(2))
    images, draw = torch.arange(b, device=DEVICE), torch.Generator().manual_seed(1)
    for block in range(3):
        values = {one.name: torch.rand(b, generator=draw) * 9 - 2 for one in declared}
        found = {one.name: values[one.name].to(DEVICE) for one in declared}
        found["lead"][block::4] = nan
        found["sink"], found["count"] = found["sink"].long(), found["count"].long()
        chosen = (torch.rand(b, generator=draw) < 0.5).to(DEVICE) if block else None
        rows = torch.randint(0, 5, (b,), generator=draw).to(DEVICE)
        spent = rows * 7 if block == 1 else 2**33
        note(ours, block, 5, {}, chosen)
        theirs.write(images, block, 5, {}, chosen)
        note(ours, block, spent, found, chosen, (rows, 16))
        decision = Decision(rows[:, None], 1, None, True, spent, found)
        theirs.write_reduced(images, block, decision, chosen)
        theirs.macs_method += rows * 16 * (1 if chosen is None else chosen)
    for name, expected in theirs.values().items():
        assert torch.allclose(ours.values()[name], expected, rtol=0, atol=0, equal_nan=True), name


def test_a_value_that_is_not_declared_is_refused():
    trace = Trace.empty(2, 3, 8, 1, (), torch.device(DEVICE))
    with pytest.raises(ValueError, match="'mass' is not among the columns"):
        note(trace, 0, 0, {"mass": torch.zeros(2, device=DEVICE)}, None)
