"""Whether the records support the paper's premise: an attention sink in the background."""

from collections.abc import Sequence

from asap.report.result import Result
from asap.report.statistics import evaluated, share_interval

_VERDICTS = {
    "more": "more often than chance: the paper's premise does not hold here for {}",
    "less": "less often than chance, in line with the paper's premise, for {}",
    "same": "not distinguishably from chance, so that the premise is not visible, for {}",
}
_MOST_NAMES = 8  # rows whose names are listed; a sweep has more


def premise_remark(results: Sequence[Result]) -> str | None:
    """A remark on where the sinks lie and whether that agrees with the paper's premise.

    None if no record has both object masks and sinks. Rows whose anchor is not a sink are left out.
    """
    judged = [result for result in results if _has_chosen_sink(result)]
    if not judged:
        return None
    names: dict[str, list[str]] = {}
    found: dict[str, list[str]] = {}
    for result in judged:
        names.setdefault(_share(result), []).append(result.label)
        found.setdefault(_verdict(result), []).append(result.label)
    shares = "; ".join(f"{_named(names[share], judged)} {share}" for share in names)
    verdicts = "; ".join(_VERDICTS[kind].format(_named(found[kind], judged)) for kind in found)
    chance = ", ".join(dict.fromkeys(f"{100 * c.measured['object_share']:.1f} %" for c in judged))
    return (
        "The paper's premise is a sink in the background. Share of images whose sink is an object "
        f"patch: {shares}; a patch drawn at random: {chance}. The sink is on the object {verdicts}."
    )


def _has_chosen_sink(result: Result) -> bool:
    record = result.accuracy
    if record is None or record["sink_on_object"] is None or record["object_share"] is None:
        return False
    return result.method.get("options", {}).get("anchor", "sink") in ("sink", "mass")


def _named(labels: Sequence[str], judged: Sequence[Result]) -> str:
    """The rows by their names, or how many of the `judged` ones if that would be a long list."""
    if len(labels) <= _MOST_NAMES:
        return (" / " if any("," in label for label in labels) else ", ").join(labels)
    part = "all" if len(labels) == len(judged) else f"{len(labels)} of"
    return f"{part} {len(judged)} rows"


def _share(result: Result) -> str:
    """The share in words, with its interval."""
    interval = _sink_interval(result)
    spread = (
        f" (95 % interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else ""
    )
    return f"{100 * result.measured['sink_on_object']:.1f} %{spread}"


def _verdict(result: Result) -> str:
    share, chance = result.measured["sink_on_object"], result.measured["object_share"]
    low, high = _sink_interval(result) or (share, share)
    return "more" if low > chance else "less" if high < chance else "same"


def _sink_interval(result: Result) -> tuple[float, float] | None:
    if not result.has_answers:
        return None
    frame = evaluated(result.answers())
    frame = frame[frame["sink_on_object"].notna()]
    clusters = frame["cluster"].to_numpy() if result.measured["clustered"] else None
    return (
        share_interval(frame["sink_on_object"].to_numpy() > 0.5, clusters) if len(frame) else None
    )
