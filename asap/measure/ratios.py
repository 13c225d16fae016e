"""From timed rounds to speeds and paired ratios, or to the reason why there is no ratio."""

import math
from dataclasses import dataclass
from statistics import median

import numpy as np
from jaxtyping import Float

from asap.measure.timing import Timings
from asap.runs.record import Quartiles, Ratio

WIDEST = 0.05  # interquartile range of a ratio over its median: above, no ratio is given
CLOCK_DRIFT = 0.03  # a round with an SM clock this far off the candidate's median is dropped
FEWEST = 3  # rounds: fewer have no quartiles worth the name
DRAWS = 2000  # of the bootstrap


@dataclass(frozen=True)
class Summary:
    """The fields of a throughput record that come from the clock.

    `rounds`: rounds used; `dropped`: rounds left out because the device's clock had drifted.
    """

    images_per_s: Quartiles
    fused_dense: Quartiles
    eager_dense: Quartiles
    ratio_fused: Ratio | None
    ratio_eager: Ratio | None
    refused: str | None
    rounds: int
    dropped: int


def summarise(timings: Timings, method: str, fused: str, eager: str, seed: int = 0) -> Summary:
    """Speeds of three candidates over the rounds, and method over dense, paired round by round.

    A ratio is None if its rounds scatter too much, and `refused` says which and what to do.
    """
    names = (method, fused, eager)
    total = len(timings.laps[method])
    rounds = steady_rounds(timings, names)
    unsteady = len(rounds) < min(FEWEST, total)
    if unsteady:
        rounds = list(range(total))
    speeds = {name: np.array(timings.images_per_s(name))[rounds] for name in names}
    ratios, reasons = {}, ["the device's clock drifted: let it cool"] if unsteady else []
    for name, baseline in (("fused", fused), ("eager", eager)):
        ratio = paired_ratio(speeds[method], speeds[baseline], seed)
        reason = why_refused(ratio, len(rounds), name)
        reasons += [reason] if reason else []
        ratios[name] = None if reason or unsteady else ratio
    return Summary(
        images_per_s=quartiles(speeds[method]),
        fused_dense=quartiles(speeds[fused]),
        eager_dense=quartiles(speeds[eager]),
        ratio_fused=ratios["fused"],
        ratio_eager=ratios["eager"],
        refused="; ".join(reasons) or None,
        rounds=len(rounds),
        dropped=total - len(rounds),
    )


def steady_rounds(timings: Timings, names: tuple[str, ...]) -> list[int]:
    """Rounds in which no candidate's SM clock was off its median; all where it is unreadable."""
    off: set[int] = set()
    for name in names:
        clocks = [lap.condition.get("sm_mhz", math.nan) for lap in timings.laps[name]]
        middle = median([clock for clock in clocks if not math.isnan(clock)] or [math.nan])
        off |= {i for i, c in enumerate(clocks) if abs(c - middle) > CLOCK_DRIFT * middle}
    return [i for i in range(len(timings.laps[names[0]])) if i not in off]


def quartiles(values: Float[np.ndarray, "rounds"]) -> Quartiles:
    """Median and quartiles."""
    q1, middle, q3 = np.percentile(values, (25, 50, 75))
    return Quartiles(median=float(middle), q1=float(q1), q3=float(q3))


def paired_ratio(
    method: Float[np.ndarray, "rounds"], baseline: Float[np.ndarray, "rounds"], seed: int
) -> Ratio:
    """`method / baseline` of images per second, with the bootstrap 95 % interval of its median."""
    ratios = method / baseline
    draws = np.random.default_rng(seed).integers(len(ratios), size=(DRAWS, len(ratios)))
    lo, hi = np.percentile(np.median(ratios[draws], axis=1), (2.5, 97.5))
    return Ratio(**quartiles(ratios), lo=float(lo), hi=float(hi))


def why_refused(ratio: Ratio, rounds: int, baseline: str) -> str | None:
    """Why this ratio must not be printed, and what to do about it; None if it may."""
    if rounds < FEWEST:
        return f"ratio to {baseline} dense: {rounds} rounds are too few: time at least {FEWEST}"
    spread = (ratio["q3"] - ratio["q1"]) / ratio["median"]
    if spread <= WIDEST:
        return None
    return (
        f"ratio to {baseline} dense: its interquartile range over {rounds} rounds is "
        f"{100 * spread:.1f} % of its median, over {100 * WIDEST:g} %: close other jobs on the "
        "machine, or time more and longer rounds"
    )
