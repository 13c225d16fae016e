"""Computes speeds and paired ratios from timed rounds, or the reason why there is no ratio."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from asap.measure.timing import Timings
from asap.records.schema import Quartiles, Ratio, TimedBy

WIDEST = 0.05  # largest half-width of a ratio's interval, as a share of its median
CLOCK_DRIFT = 0.03  # a round is dropped if the SM clock is further off the candidate's median
FEWEST = 3  # rounds needed for an interval
DRAWS = 2000  # bootstrap samples
IDLE = 0.95  # CPU time over wall time; below, other programs used the processor too
ELSEWHERE = 0.05  # largest share of CPU time that a method, unlike dense, spends in other threads


@dataclass(frozen=True)
class Summary:
    """The fields of a throughput record that come from the clock.

    `dense`, `ratios`, `walls`: by name of the dense model, its speed, the ratio method / dense, and
    that ratio by wall-clock time if the machine was idle. `rounds`: rounds used; `dropped`: rounds
    left out because the device's clock had drifted. `cpu_share`: CPU time over wall time. It and
    `walls` are None if the clock is not "cpu".
    """

    images_per_s: Quartiles
    dense: Mapping[str, Quartiles]
    ratios: Mapping[str, Ratio | None]
    refused: str | None
    rounds: int
    dropped: int
    cpu_share: float | None
    walls: Mapping[str, Ratio | None]


def summarise(timings: Timings, method: str, dense: Mapping[str, str], seed: int = 0) -> Summary:
    """Speeds of a method and the dense models, and the ratios method / dense, paired by round.

    dense: the candidates of the dense models by their names in records, "fused" among them. A ratio
    is None if it is too uncertain; `refused` then has the reason and a remedy.
    """
    names = (method, *dense.values())
    total = len(timings.laps[method])
    rounds = steady_rounds(timings, names)
    # If too few rounds had a steady clock, all are reported, but without a ratio.
    unsteady = len(rounds) < min(FEWEST, total)
    if unsteady:
        rounds = list(range(total))
    speeds = {name: np.array(timings.images_per_s(name))[rounds] for name in names}
    reasons = ["the device's clock drifted: let it cool"] if unsteady else []
    if hidden := _hidden_work(timings, method, dense["fused"]):
        reasons.append(hidden)
    all_refused = bool(reasons)
    ratios: dict[str, Ratio | None] = {}
    for name, baseline in dense.items():
        ratio = paired_ratio(speeds[method], speeds[baseline], seed)
        reason = why_refused(ratio, len(rounds), name, timings.clock)
        reasons += [reason] if reason else []
        ratios[name] = None if reason or all_refused else ratio
    # On an idle machine the ratios by wall-clock time are meaningful too.
    share = _cpu_share(timings, names)
    idle = (share or 0) >= IDLE
    walls = {k: _wall_ratio(timings, method, v, seed) if idle else None for k, v in dense.items()}
    return Summary(
        images_per_s=quartiles(speeds[method]),
        dense={name: quartiles(speeds[baseline]) for name, baseline in dense.items()},
        ratios=ratios,
        refused="; ".join(reasons) or None,
        rounds=len(rounds),
        dropped=total - len(rounds),
        cpu_share=share,
        walls=walls,
    )


def steady_rounds(timings: Timings, names: tuple[str, ...]) -> list[int]:
    """Rounds in which every candidate's SM clock was near its median; all if it is unreadable."""
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
    method: Float[np.ndarray, "rounds"],
    baseline: Float[np.ndarray, "rounds"],
    seed: int,
    clusters: Int[np.ndarray, "rounds"] | None = None,
) -> Ratio:
    """`method / baseline`, of images per second or of seconds, with a 95 % interval of its median.

    It is the bootstrap interval, widened around the median by `_widening`. clusters: of rounds that
    are drawn together, such as the questions about a picture, whose ratios are alike.
    """
    ratios = method / baseline
    found = quartiles(ratios)
    count = len(ratios) if clusters is None else len(np.unique(clusters))
    draws = np.random.default_rng(seed).integers(count, size=(DRAWS, count))
    if clusters is None:
        medians = np.median(ratios[draws], axis=1)
    else:
        medians = _medians_of_clusters(ratios, np.unique(clusters, return_inverse=True)[1], draws)
    lo, hi = np.percentile(medians, (2.5, 97.5))
    middle, wider = found["median"], _widening(count)
    lo, hi = middle - wider * (middle - lo), middle + wider * (hi - middle)
    return Ratio(**found, lo=float(lo), hi=float(hi))


def _medians_of_clusters(
    ratios: Float[np.ndarray, "rounds"],
    cluster: Int[np.ndarray, "rounds"],
    draws: Int[np.ndarray, "draws clusters"],
) -> Float[np.ndarray, "draws"]:
    """The (lower) median of all ratios of the clusters in each draw; a cluster may be there twice.

    cluster: the number of each ratio's cluster, from 0.
    """
    times = np.zeros(draws.shape, dtype=np.int64)  # that a cluster is in a draw
    np.add.at(times, (np.arange(len(draws))[:, None], draws), 1)
    order = np.argsort(ratios, kind="stable")
    below = np.cumsum(times[:, cluster[order]], axis=1)  # ratios up to each, in ascending order
    middle = (2 * below >= below[:, -1:]).argmax(axis=1)
    return ratios[order][middle]


def _widening(rounds: int) -> float:
    """The factor that corrects the bootstrap interval, which is too narrow with few rounds.

    It replaces the normal quantile by Student's and n by n - 1 (Hesterberg 2015): 2.7 for three
    rounds, 1.1 for twenty. Without it, the interval from three rounds contains the median in 75 %
    of cases instead of 95 %.
    """
    freedom = max(rounds - 1, 1)  # a single round is refused in any case
    student = special.stdtrit(freedom, 0.975) / special.ndtri(0.975)
    return float(student * math.sqrt(rounds / freedom))


def why_refused(ratio: Ratio, rounds: int, baseline: str, clock: TimedBy = "wall") -> str | None:
    """Why this ratio is too uncertain to print, and a remedy; None if it may be printed."""
    if rounds < FEWEST:
        return f"ratio to {baseline} dense: {rounds} rounds are too few: time at least {FEWEST}"
    half = half_width(ratio)
    if half <= WIDEST:
        return None
    other = " or take measure.threads=1, which counts CPU time," if clock == "wall" else ""
    return (
        f"ratio to {baseline} dense: half of its 95 % interval over {rounds} rounds is "
        f"{100 * half:.1f} % of its median, over {100 * WIDEST:g} %: close other jobs on the "
        f"machine,{other} or time more rounds (measure.rounds)"
    )


def half_width(ratio: Ratio) -> float:
    """The half-width of the interval, as a share of the median."""
    return (ratio["hi"] - ratio["lo"]) / 2 / ratio["median"]


# ---- CPU time


def _hidden_work(timings: Timings, method: str, fused: str) -> str | None:
    """The reason for a refusal if a method also works in threads that the clock does not see.

    Background threads of the process run beside the dense model too, so their share is subtracted.
    """
    if timings.clock != "cpu":
        return None
    more = _elsewhere(timings, method) - _elsewhere(timings, fused)
    if more <= ELSEWHERE:
        return None
    return (
        f"the method does {100 * more:.0f} % more in other threads than in the one that is timed: "
        "take measure.threads=2, which counts time on the wall"
    )


def _elsewhere(timings: Timings, name: str) -> float:
    return median(lap.took.elsewhere / lap.took.seconds for lap in timings.laps[name])


def _cpu_share(timings: Timings, names: tuple[str, ...]) -> float | None:
    if timings.clock != "cpu":
        return None
    took = [lap.took for name in names for lap in timings.laps[name]]
    return median(one.seconds / one.wall for one in took)


def _wall_ratio(timings: Timings, method: str, dense: str, seed: int) -> Ratio | None:
    """Method over a dense model by wall-clock time; None if too uncertain."""
    one, other = (np.array(timings.wall_images_per_s(name)) for name in (method, dense))
    found = paired_ratio(one, other, seed)
    return found if why_refused(found, len(one), "", "wall") is None else None
