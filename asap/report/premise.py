"""Whether the records support the paper's premise: an attention sink in the background."""

from collections.abc import Sequence

from asap.report.result import Result
from asap.report.statistics import evaluated, share_interval

_VERDICTS = {
    "more": "more often than chance: the paper's premise does not hold here for {}",
    "less": "less often than chance, in line with the paper's premise, for {}",
    "same": "not distinguishably from chance, so that the premise is not visible, for {}",
}


def premise_remark(results: Sequence[Result]) -> str | None:
    """A remark on where the sinks lie and whether that agrees with the paper's premise.

    None if no record has both object masks and sinks. Rows whose anchor is not a sink are left out.
    """
    judged = [result for result in results if _has_chosen_sink(result)]
    if not judged:
        return None
    shares = "; ".join(dict.fromkeys(_share(result, judged) for result in judged))
    found: dict[str, list[str]] = {}
    for result in judged:
        found.setdefault(_verdict(result), []).append(result.label)
    verdicts = "; ".join(_VERDICTS[kind].format(", ".join(found[kind])) for kind in found)
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


def _share(result: Result, judged: Sequence[Result]) -> str:
    """The share in words, with the labels of all results that have this share."""
    share = result.measured["sink_on_object"]
    names = [other.label for other in judged if other.measured["sink_on_object"] == share]
    interval = _sink_interval(result)
    spread = (
        f" (95 % interval {100 * interval[0]:.1f} to {100 * interval[1]:.1f})" if interval else ""
    )
    return f"{', '.join(names)} {100 * share:.1f} %{spread}"


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
