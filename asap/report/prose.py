"""A sweep over tau and K in words, by the paper's three arguments: operating range, lower bound on
K, and monotonicity in tau, each with the uncertainty of paired differences.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, pairwise
from typing import Any

import pandas as pd

from asap.report.figures.sweep import tau_k
from asap.report.paper import paper_model, paper_table
from asap.report.result import Result, pairable, unreadable
from asap.report.statistics import paired_difference

POINTS = 1.0  # of accuracy: settings at most this far below the best are good
# Of two settings' keys: accuracy of the second minus the first in points, (difference, low, high).
Difference = Callable[[str, str], tuple[float, float, float]]


@dataclass(frozen=True)
class Box:
    """All settings with these tau and K, neighbouring values of the grid; accuracies in %."""

    taus: tuple[float, ...]
    clusters: tuple[int, ...]
    lowest: float
    highest: float


@dataclass(frozen=True)
class SweepFindings:
    """The findings on a grid; settings are rows of its frame, intervals are at 95 %.

    best: (tau, K, top-1). box: the largest box of good settings, those within `points` of the best;
    sure: how many of them have their whole interval within. bound: the smallest K from which on all
    settings are good, None if there is none; bound_low, bound_high: the same if only intervals
    wholly outside are not good, and if only those wholly within are. steps: between neighbouring
    tau at equal K: (rising or equal, falling, falling with an interval wholly below 0); cheaper:
    steps that do not cost more MACs.
    """

    best: tuple[float, int, float]
    box: Box
    sure: int
    bound: int | None
    bound_low: int | None
    bound_high: int | None
    steps: tuple[int, int, int]
    cheaper: int


@dataclass(frozen=True)
class _Setting:
    """A row of a grid."""

    tau: float
    clusters: int
    top1: float
    gmacs: float
    key: str


def sweep_answer(
    grid: pd.DataFrame, difference: Difference, points: float = POINTS
) -> SweepFindings:
    """The findings on one grid of `tau_k`, a frame with columns tau, clusters, top1, gmacs, key."""
    columns = (grid[name].tolist() for name in ("tau", "clusters", "top1", "gmacs", "key"))
    settings = [_Setting(*values) for values in zip(*columns, strict=True)]
    best = min(settings, key=lambda s: (-s.top1, s.gmacs, s.tau))
    off = {s.key: difference(best.key, s.key) for s in settings}
    off[best.key] = (0.0, 0.0, 0.0)  # against itself
    near, sure, possible = (
        {key: values[i] >= -points for key, values in off.items()} for i in range(3)
    )
    box, inside = _largest_box(settings, near)
    return SweepFindings(
        (best.tau, best.clusters, best.top1),
        box,
        sum(sure[key] for key in inside),
        _lower_bound(settings, near),
        _lower_bound(settings, possible),
        _lower_bound(settings, sure),
        *_steps(settings, difference),
    )


def _largest_box(settings: Sequence[_Setting], near: Mapping[str, bool]) -> tuple[Box, list[str]]:
    """The box with the most settings, all measured and near, and their keys. Ties: higher lowest
    accuracy, then smaller tau and K. There always is one: the best setting alone.
    """
    good = {(s.tau, s.clusters): s for s in settings if near[s.key]}
    found = []
    for taus in _runs(sorted({s.tau for s in settings})):
        for ks in _runs(sorted({s.clusters for s in settings})):
            inside = [good[tau, k] for tau in taus for k in ks if (tau, k) in good]
            if len(inside) == len(taus) * len(ks):
                accuracies = [s.top1 for s in inside]
                box = Box(taus, ks, min(accuracies), max(accuracies))
                found.append((box, [s.key for s in inside]))
    return min(found, key=lambda f: (-len(f[1]), -f[0].lowest, f[0].taus, f[0].clusters))


def _runs(values: Sequence) -> list[tuple]:
    """All sequences of neighbouring values."""
    ends = combinations_with_replacement(range(len(values)), 2)
    return [tuple(values[i : j + 1]) for i, j in ends]


def _lower_bound(settings: Sequence[_Setting], good: Mapping[str, bool]) -> int | None:
    """The smallest K such that every setting with that K or a larger one is good."""
    worst = max((s.clusters for s in settings if not good[s.key]), default=0)
    return min((s.clusters for s in settings if s.clusters > worst), default=None)


def _steps(
    settings: Sequence[_Setting], difference: Difference
) -> tuple[tuple[int, int, int], int]:
    rising = falling = surely = cheaper = 0
    for one, two in pairwise(sorted(settings, key=lambda s: (s.clusters, s.tau))):
        if one.clusters == two.clusters:
            change, _, high = difference(one.key, two.key)
            rising, falling = rising + (change >= 0), falling + (change < 0)
            surely += high < 0
            cheaper += two.gmacs <= one.gmacs
    return (rising, falling, surely), cheaper


def sweep_remarks(results: Sequence[Result], default: Mapping[str, Any]) -> list[str]:
    """One paragraph for each tau x K family among the results, as lines below a table."""
    frames = {result.key: result for result in results if result.has_answers}
    unread = unreadable(results)
    if unread and any(len(unread) == _images(result) for result in frames.values()):
        return []  # no image was read by every row

    def difference(first: str, second: str) -> tuple[float, float, float]:
        one, two = frames[first], frames[second]
        clustered = bool(one.measured["clustered"])
        paired = paired_difference(pairable(one), pairable(two), clustered, unread)
        return paired.difference, *paired.interval

    grids = [g for g in tau_k(results, default) if set(g["key"]) <= set(frames)]
    return [
        _words(sweep_answer(g, difference), frames[g["key"].iloc[0]].backbone, g.attrs["family"])
        for g in grids
    ]


def _images(result: Result) -> int:
    return result.measured["n"] + result.measured["n_failed"]


def _words(answer: SweepFindings, backbone: str | None, family: str) -> str:
    tau, k, top1 = answer.best
    box, (rising, falling, surely) = answer.box, answer.steps
    size = len(box.taus) * len(box.clusters)
    steps = rising + falling
    return " ".join(
        [
            f"The sweep in words{f' ({family})' if family else ''}.",
            f"Best: τ = {tau:g}, K = {k}, {top1:.2f} %",
            "(chosen on this data). Operating range, the largest box of settings within",
            f"{POINTS:g} points of it: τ {_span(box.taus)},",
            f"K {_span(box.clusters)}, {box.lowest:.2f} to {box.highest:.2f} %",
            f"(range {box.highest - box.lowest:.2f} points); {answer.sure} of its {size} settings",
            "have their whole 95 % interval, paired with the best, within.",
            f"Lower bound on K for that at every τ tried: {_bound(answer)}.",
            f"A larger τ at equal K raises accuracy or keeps it in {rising} of {steps} steps and",
            f"lowers it in {falling}, in {surely} of these with an interval wholly below 0; it",
            f"costs more MACs in {steps - answer.cheaper} of {steps}.",
            *_paper_words(backbone),
        ]
    )


def _bound(answer: SweepFindings) -> str:
    if answer.bound is None:
        return "none of the K tried"
    high = "none" if answer.bound_high is None else str(answer.bound_high)
    return f"{answer.bound} (by the intervals at least {answer.bound_low}, surely {high})"


def _span(values: Sequence[float] | Sequence[int]) -> str:
    return f"{values[0]:g} to {values[-1]:g}" if len(values) > 1 else f"{values[0]:g}"


def _paper_words(backbone: str | None) -> list[str]:
    """The paper's own numbers for this backbone, as printed."""
    model = paper_model(backbone) if backbone else None
    rows = [row for row in paper_table("sweep_prose") if model and row["model"] == model]
    said = "; ".join(f"{row['setting']}: {row['quantity']} {row['value']}" for row in rows)
    return [f"The paper, on {model}: {said.replace('_', ' ')}."] if rows else []
