"""Whether the times of questions agree with one another and with what there is to compute."""

from collections.abc import Mapping, Sequence
from typing import Any

SAME = 0.02  # within which prefills of equal rows, and towers that run in full, are equal
OFF = 0.25  # a share of time further from its share of MACs has a footnote
MACS_NOTE = (
    f"More than {100 * OFF:g} % from its share of MACs: reading weights and launching kernels take "
    "a time that does not fall with them, and a method's own steps have few of them."
)
_METHOD_OF = {"tower": "vision_method", "prefill": "language_method"}  # in the same span
Named = tuple[str, Mapping[str, Any]]  # a row's label and record


def checks(rows: Sequence[Named]) -> list[str]:
    """What is found, in words: one line if all is well, else one for each kind of disagreement."""
    if not rows:
        return []
    found = [*_unequal_prefills(rows), *_towers_too_fast(rows)]
    return found or [
        f"The times agree with one another: within {100 * SAME:g} %, prefills of equal visual rows "
        "are equal, and no tower that runs in full is faster than that of the full model."
    ]


def off_its_macs(record: Mapping[str, Any], span: str) -> bool:
    """Whether the time of tower or prefill, against full, is far from its MACs, the method's
    included, against full.
    """
    if span not in _METHOD_OF:
        return False
    spent = record["gmacs"][span] + record["gmacs"][_METHOD_OF[span]]
    share = spent / record["full_gmacs"][span]
    return abs(_over_full(record, span) / share - 1) > OFF


def _over_full(record: Mapping[str, Any], span: str) -> float:
    return record["times_ms"][span]["median"] / record["full_times_ms"][span]["median"]


def _unequal_prefills(rows: Sequence[Named]) -> list[str]:
    """Rows without a pruner and with equally many visual rows, whose prefills differ."""
    by_rows: dict[tuple[float, ...], list[tuple[float, str]]] = {}
    for label, record in rows:
        if record["identity"]["methods"].keys() == {"vision"}:
            about = (record["visual_rows"], record["prompt_rows"])
            by_rows.setdefault(about, []).append((_over_full(record, "prefill"), label))
    found = []
    for (visual, _), group in by_rows.items():
        (least, fast), (most, slow) = min(group), max(group)
        if most / least - 1 > SAME:
            found.append(
                f"Prefills of {visual:g} visual rows differ by {100 * (most / least - 1):.1f} % "
                f"({fast!r}, {slow!r}), though they compute the same: other programs, or too few "
                "questions."
            )
    return found


def _towers_too_fast(rows: Sequence[Named]) -> list[str]:
    """Rows whose tower runs in full, in less time than that of the full model."""
    fast = [
        label
        for label, record in rows
        if record["gmacs"]["tower"] >= record["full_gmacs"]["tower"]
        and _over_full(record, "tower") < 1 - SAME
    ]
    return [
        f"The tower of {', '.join(map(repr, fast))} runs in full and took less than that of the "
        "full model: other programs, or too few questions."
    ] * bool(fast)
