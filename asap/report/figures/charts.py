"""The charts that a set of results allows, as data before drawing, and why others are missing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from asap.report.benchmarks.table import is_over_benchmarks
from asap.report.benchmarks.unscored import is_unscored
from asap.report.clips import has_clips
from asap.report.figures.accuracy_macs import accuracy_macs, draw_accuracy_macs
from asap.report.figures.alpha import alpha, draw_alpha
from asap.report.figures.flip_counts import draw_flip_counts, flip_counts
from asap.report.figures.histograms import (
    draw_stop_blocks,
    draw_token_counts,
    stop_blocks,
    token_counts,
)
from asap.report.figures.mass import column_mass, draw_column_mass
from asap.report.figures.speed_up import draw_speed_up, speed_up
from asap.report.figures.sweep import draw_tau_k, tau_k
from asap.report.questions import has_questions
from asap.report.result import Result

Draw = Callable[[pd.DataFrame], Figure]


@dataclass(frozen=True)
class Chart:
    """A figure before it is drawn: its numbers, title and caption, and what draws it."""

    name: str
    title: str
    caption: str
    data: pd.DataFrame
    draw: Draw

    def figure(self) -> Figure:
        return self.draw(self.data)


def charts(
    results: Sequence[Result], default: Mapping[str, Any]
) -> tuple[list[Chart], dict[str, str]]:
    """The charts for which there is data, in display order; and {title: reason} for the others.

    default: the tau, clusters and alpha to circle.
    """
    if is_over_benchmarks(results):
        return [], dict.fromkeys([_COST, _ROWS], "needs the rows of one benchmark: see its own run")
    there = [
        *_cost([one for one in results if not is_unscored(one)]),
        *_speed(results),
        *_sweeps(results, default),
        *_flips(_told_apart(results)),
        *_images(_told_apart(results)),
    ]
    reasons = {title: reason for title, reason in _NEEDS.items() if not _has(there, title)}
    return there, reasons


_COST, _SWEEP, _ALPHA = "Accuracy against MACs", "τ × K", "Over α"
_ROWS = "Accuracy against rows in the language model"
_FLIPS = "Yes/no answers that reduction corrects and corrupts"
_SPEED = "Speed-up against MACs"
_MASS, _STOPS, _TOKENS = "Largest column mass", "Stop blocks", "Token counts"
_MOST = 24  # rows of small charts that one figure holds
_NEEDS = {
    _COST: "needs at least two rows with an accuracy record",
    _SPEED: "needs two rows that save MACs, with a throughput record and a ratio",
    _SWEEP: "needs ASAP records with two or more values of both τ and K, all else equal: "
    "python -m asap.run -m method=asap method.tau=2.5,3,3.5 method.clusters=4,6,8",
    _ALPHA: "needs ASAP records with two or more values of α, all else equal: "
    "python -m asap.run -m method=asap method.alpha=0.3,0.5,0.7",
    _MASS: f"needs the traces of an ASAP row, and at most {_MOST} of them",
    _STOPS: f"needs the traces of a method that stops, and at most {_MOST} rows",
    _TOKENS: f"needs the traces of a method that reduces, and at most {_MOST} rows",
}


def _told_apart(results: Sequence[Result]) -> list[Result]:
    """Each record once; rows that share a label have the beginning of their key in it."""
    keys: dict[str, set[str | None]] = {}
    for result in results:
        keys.setdefault(result.label, set()).add(result.key)
    once = {(result.label, result.key): result for result in results}
    return [
        result
        if result.is_dense or len(keys[result.label]) == 1
        else replace(result, label=f"{result.label} ({str(result.key)[:8]})")
        for result in once.values()
    ]


def _has(there: Sequence[Chart], title: str) -> bool:
    return any(chart.title.startswith(title) for chart in there)


def _cost(results: Sequence[Result]) -> list[Chart]:
    if sum(result.accuracy is not None for result in results) < 2:
        return []
    caption = (
        "Bars: 95 % intervals. Dashed: the dense baseline. Dotted: the front, the rows that no "
        "other beats in both. Hollow: extensions of ours."
    )
    data = accuracy_macs(results)
    found = [Chart("accuracy-macs", _COST, caption, data, draw_accuracy_macs)]
    if has_questions(results):
        data = accuracy_macs(results, "layer_visual_rows")
        found.append(Chart("accuracy-rows", _ROWS, caption, data, draw_accuracy_macs))
    return found


def _speed(results: Sequence[Result]) -> list[Chart]:
    data = speed_up(results)
    if len(data) < 2:
        return []
    caption = (
        "Dotted: as fast as the multiply-accumulates saved on the timed images allow, if time went "
        "by them alone. Bars: 95 % intervals. Dashed: the dense model. Short lines: against fused "
        "dense, where the points are against another. Hollow: extensions of ours."
    )
    return [Chart("speed-up", _SPEED, caption, data, draw_speed_up)]


def _sweeps(results: Sequence[Result], default: Mapping[str, Any]) -> list[Chart]:
    grids, lines = tau_k(results, default), alpha(results, default)
    text = "All other options are equal. Bars: 95 % intervals."
    return [
        *(_numbered("tau-k", _SWEEP, text, i, data, draw_tau_k) for i, data in enumerate(grids)),
        *(_numbered("alpha", _ALPHA, text, i, data, draw_alpha) for i, data in enumerate(lines)),
    ]


def _flips(results: Sequence[Result]) -> list[Chart]:
    data = flip_counts(results)
    caption = "Right: wrong answers of the full model that become right. Left: the reverse."
    return [Chart("flip-counts", _FLIPS, caption, data, draw_flip_counts)] if len(data) else []


def _numbered(name: str, title: str, caption: str, i: int, data: pd.DataFrame, draw: Draw) -> Chart:
    """The chart of one family; its title has the options that distinguish the family."""
    family = data.attrs["family"]
    title = f"{title}: {family}" if family else title
    caption += " Red ring: the default τ, K and α." if data["default"].any() else ""
    return Chart(f"{name}-{i + 1}" if i else name, title, caption, data, draw)


def _images(results: Sequence[Result]) -> list[Chart]:
    mass, stops = column_mass(results, _MOST), stop_blocks(results, _MOST)
    tokens = token_counts(results, _MOST)
    one, many = ("a frame", "frames") if has_clips(results) else ("an image", "images")
    if has_questions(results):  # a picture counts once for each of its questions
        one, many = "a question's picture", "questions"
    for data in (mass, stops, tokens):
        data.attrs["images"] = many  # what axes call them
    band = (
        f"Mean over the {many} that had not stopped, with their middle 80 %; red: the thresholds "
        f"of these rows. After its stop {one} has no mass, so late blocks show the slow ones."
    )
    never = f"Counted over all {many} that could be read."
    found = [
        Chart("column-mass", f"{_MASS} per block", band, mass, draw_column_mass),
        Chart("stop-blocks", _STOPS, f"{never} The block of the first reduction.", stops,
              draw_stop_blocks),
        Chart("token-counts", _TOKENS, f"{never} Prefix tokens included.", tokens,
              draw_token_counts),
    ]  # fmt: skip
    return [chart for chart in found if len(chart.data)]
