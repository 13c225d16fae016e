"""What calibration answers for a row, and the rows that get their point from elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asap.spec.run_spec import MethodSpec


@dataclass(frozen=True)
class Calibrated:
    """A row at its point, or the reason why it cannot be there. `files`: preset and settings;
    `point`: the options that were found or given.
    """

    row: MethodSpec
    reason: str | None = None
    files: tuple[Path, ...] = ()
    point: Mapping[str, Any] = field(default_factory=dict)


def by_hand(row: MethodSpec) -> Calibrated:
    """A row as it stands; one that could have been calibrated says so."""
    point = {name: row.options[name] for name in row.given}
    if row.macs_pct is None or not point:
        return Calibrated(row, point=point)
    said = f"Given by hand, not calibrated: {in_words(point)}."
    return Calibrated(replace(row, note=join(row.note, said)), point=point)


def untuned(row: MethodSpec) -> Calibrated:
    """A row whose options need labels to be chosen, where there are none: the first values."""
    first = {name: values[0] for name, values in row.open_grid.items()}
    said = f"Not tuned, for want of training images: {in_words(first)}."
    options = {**row.options, **first}
    return Calibrated(replace(row, options=options, note=join(row.note, said)), point=first)


def with_points(rows: Sequence[MethodSpec], done: Sequence[Calibrated]) -> list[Calibrated]:
    """The same, with `point_of` rows at the points of the rows that they name."""
    source = {row.label: c for row, c in zip(rows, done, strict=True)}
    return [c if c.row.point_of is None else _like(c, source[c.row.point_of]) for c in done]


def _like(own: Calibrated, other: Calibrated) -> Calibrated:
    """A row at the point of another; what it gives itself stays."""
    row = own.row
    if other.reason is not None:
        return Calibrated(row, f"it has the point of {other.row.label}, which has none")
    point = {k: v for k, v in other.point.items() if k not in row.given}
    if not point:
        return own
    said = f"The point of {other.row.label}: {in_words(point)}; its cost falls where it falls."
    options = {**row.options, **point}
    return Calibrated(replace(row, options=options, note=join(row.note, said)), point=point)


def in_words(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in options.items())


def join(*parts: str | None) -> str:
    return " ".join(part for part in parts if part)
