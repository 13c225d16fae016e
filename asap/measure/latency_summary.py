"""What the times of questions say of a row, as the fields of its record."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from asap.core.language_macs import LanguageCost
from asap.measure.question_latency import Asked
from asap.measure.ratios import (
    FEWEST,
    WIDEST,
    half_width,
    paired_ratio,
    quartiles,
    steady_rounds,
)
from asap.measure.timing import Timings
from asap.records.latency_record import SPANS
from asap.records.schema import Quartiles, Ratio, TimedBy

MIB = 2**20  # bytes
RATIOS = ("tower", "prefill", "first_token", "total")  # spans of which a ratio to full is formed


def summary_of(
    asked: Sequence[Asked],
    full: Sequence[Asked],
    clock: TimedBy,
    cost: LanguageCost,
    element: int,
    seed: int = 0,
) -> dict[str, Any]:
    """Times, ratios, rows and MACs of a row and of the full model, on the same questions.

    element: bytes of a number in the cache. Intervals of ratios are over pictures, whose questions
    share their rows. A question during which the device's clock was off is
    left out of the times of both. If that leaves too few, all are reported, without ratios.
    """
    steady = steady_rounds(_timings(asked, full, clock), ("row", "full"))
    unsteady = len(steady) < min(FEWEST, len(asked))
    kept = list(range(len(asked))) if unsteady else steady
    pictures = np.array([asked[i].picture for i in kept])
    times = {name: _milliseconds(one, kept) for name, one in (("row", asked), ("full", full))}
    reasons = ["the device's clock drifted: let it cool"] if unsteady else []
    ratios: dict[str, Ratio | None] = {}
    for span in RATIOS:
        ratio = paired_ratio(times["row"][span], times["full"][span], seed, pictures)
        reason = _why_refused(ratio, len(np.unique(pictures)))
        reasons += [reason] if reason else []
        ratios[span] = None if reason or unsteady else ratio
    return {
        "n_questions": len(kept),
        "dropped": len(asked) - len(kept),
        "times_ms": {span: quartiles(times["row"][span]) for span in SPANS},
        "full_times_ms": {span: quartiles(times["full"][span]) for span in SPANS},
        "ratios": ratios,
        "refused": "; ".join(dict.fromkeys(reasons)) or None,
        "visual_rows": _mean(asked, lambda one: one.visual_rows),
        "prompt_rows": _mean(asked, lambda one: one.prompt_rows),
        "layer_rows": np.array([one.layer_rows for one in asked]).mean(axis=0).tolist(),
        "stop_histogram": _stops(asked),
        "gmacs": gmacs_of(asked),
        "full_gmacs": gmacs_of(full),
        "kv_mib": _mean(asked, lambda one: cost.kv_bytes(one.layer_rows, element)) / MIB,
    }


def gmacs_of(asked: Sequence[Asked]) -> dict[str, float]:
    """MACs of the parts of a question in 1e9, means."""
    return {
        "tower": _mean(asked, lambda one: one.macs_tower) / 1e9,
        "projector": _mean(asked, lambda one: one.macs_projector) / 1e9,
        "prefill": _mean(asked, lambda one: one.macs_prefill) / 1e9,
        "vision_method": _mean(asked, lambda one: one.macs_vision_method) / 1e9,
        "language_method": _mean(asked, lambda one: one.macs_language_method) / 1e9,
    }


def _why_refused(ratio: Ratio, pictures: int) -> str | None:
    """Why a ratio is too uncertain to print, and a remedy; None if it may be printed."""
    more = "time more questions (measure.also.latency.questions)"
    if pictures < FEWEST:
        return (
            f"{pictures} pictures are too few for an interval: time at least {FEWEST} "
            "(measure.also.latency.pictures)"
        )
    if half_width(ratio) <= WIDEST:
        return None
    return (
        f"half of its 95 % interval is over {100 * WIDEST:g} % of the ratio: close other jobs on "
        f"the machine, or {more}"
    )


def _timings(asked: Sequence[Asked], full: Sequence[Asked], clock: TimedBy) -> Timings:
    """The questions as rounds."""
    laps = {"row": tuple(a.lap for a in asked), "full": tuple(a.lap for a in full)}
    return Timings(laps, {}, clock)


def _milliseconds(asked: Sequence[Asked], kept: Sequence[int]) -> dict[str, np.ndarray]:
    times = [asked[i].times for i in kept]
    return {span: 1000 * np.array([one[span] for one in times]) for span in SPANS}


def _mean(asked: Sequence[Asked], value: Callable[[Asked], int]) -> float:
    return sum(value(one) for one in asked) / len(asked)


def _stops(asked: Sequence[Asked]) -> dict[str, int]:
    counted = Counter(stop for one in asked for stop in one.stops)
    return {str(block): counted[block] for block in sorted(counted)}


def conditions(asked: Sequence[Asked]) -> dict[str, Quartiles]:
    """Quartiles of what the device's gauge showed after each question."""
    names = dict.fromkeys(name for one in asked for name in one.condition)
    shown = {
        name: [one.condition[name] for one in asked if name in one.condition] for name in names
    }
    return {name: quartiles(np.array(values)) for name, values in shown.items()}
