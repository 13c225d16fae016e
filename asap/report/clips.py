"""What a table says of videos: costs and speeds of frames and clips, and what changes between
neighbouring frames.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from asap.report.columns import COST, SPEED, Values, rate_column, value_column
from asap.report.result import Result
from asap.report.table import Table, TableColumn, TableRow

CLIPS, CHANGES = "frames and clips", "between neighbouring frames"
# As printed: title, format, and what a value is multiplied with.
_MOTION: dict[str, tuple[str, str, float]] = {
    "frame_difference": ("pixel change\n(0 to 255)", ".2f", 1),
    "sink_distance": ("sink moves\n(patches)", ".2f", 1),
    "stop_changes": ("stop block\nchanges (%)", ".1f", 100),
    "kept_overlap": ("kept patches,\noverlap (%)", ".1f", 100),
}
NOTES = {
    "infer_gmacs": "Of a clip: all of its frames through the backbone. The head is beside it.",
    "gmacs_head": "Of a clip: from the frames' features to the logits, in every row alike.",
    "infer_samples_per_sec": "Frames per second, decoded and on the device.",
    "clips_per_sec": "Decoded and on the device, without the head.",
    "decoded_clips_per_sec": "From the files: reading, decoding, resizing and the backbone, in one "
    "pass by wall time.",
    "frame_difference": "Mean absolute change of a pixel of the crop: how much the scene moves.",
    "sink_distance": "Distance of the sinks of two neighbouring frames; 0: it stays.",
    "stop_changes": "Of pairs of neighbouring frames.",
    "kept_overlap": "Patches kept in both frames, of those kept in either (Jaccard).",
}


def columns() -> tuple[TableColumn, ...]:
    """The columns that a table of videos has beside the others."""
    return (
        value_column("frames\nper clip", CLIPS, "frames", ""),
        value_column("GMACs\nper frame", CLIPS, "gmacs_per_frame", ".3f"),
        value_column("of the\nhead", CLIPS, "gmacs_head", ".4f"),
        rate_column("clips/s", CLIPS, "clips_per_sec"),
        rate_column("clips/s with\ndecoding", CLIPS, "decoded_clips_per_sec"),
        *(
            TableColumn(title, CHANGES, (name, f"{name}_lo", f"{name}_hi"), _spread(name, spec))
            for name, (title, spec, _) in _MOTION.items()
        ),
    )


def has_clips(results: Sequence[Result]) -> bool:
    """Whether the examples of these rows are clips."""
    records = [record for result in results for record in result.records.values()]
    return any("clips" in record for record in records)


def add_clips(row: TableRow, result: Result) -> None:
    """Add the values of `columns` to a row; a footnote of n names the kinds of errors."""
    if result.accuracy is not None and (about := result.accuracy.get("clips")) is not None:
        row.values |= {
            "frames": about["images"],
            "gmacs_per_frame": result.gmacs / about["images"],
            "gmacs_head": about["gmacs_head"],
        }
        for name, (_, _, factor) in _MOTION.items():
            if (found := about.get(name)) is not None:
                ends = {f"{name}_{end}": found[end] for end in ("lo", "hi")}
                values = {name: found["mean"], **ends}
                row.values |= {k: None if v is None else factor * v for k, v in values.items()}
        if about["failed"]:
            row.note(f"Clips that could not be read: {in_words(about['failed'])}.", "n")
    timed = result.throughput
    if timed is not None and (speeds := timed.get("clips")) is not None:
        row.values["clips_per_sec"] = timed["images_per_s"]["median"] / speeds["images"]
        row.values["decoded_clips_per_sec"] = speeds["per_s_with_decoding"]


def in_words(failed: Mapping[str, int]) -> str:
    """Numbers of clips by the kind of their error: "2 missing, 1 short"."""
    ordered = sorted(failed.items(), key=lambda one: (-one[1], one[0]))
    return ", ".join(f"{count:,} {kind}" for kind, count in ordered)


def caption(results: Sequence[Result]) -> list[str]:
    """A line on who decoded the clips, and how many have no duration to check their length by."""
    found = dict.fromkeys(
        _decoded(about)
        for result in results
        if result.accuracy is not None and (about := result.accuracy.get("clips")) is not None
    )
    return list(found)


def _decoded(about: Mapping[str, Any]) -> str:
    by = ", ".join(f"{count:,} by {name}" for name, count in about["decoders"].items())
    rest = f"; the length of {about['unverified']:,} is not verified" if about["unverified"] else ""
    if about["ended_early"]:
        rest += f"; {about['ended_early']:,} end a frame or two early"
    return f"Clips of {about['images']} frames, decoded: {by}{rest}."


def worded(table: Table) -> Table:
    """A part of a table of videos, whose examples are clips and whose images are frames."""
    groups = {COST: "cost per clip", SPEED: "frames per second"}
    titles = {"img/s": "frames/s", "missed\nimages (%)": "missed\nframes (%)"}
    return replace(
        table,
        columns=tuple(
            replace(
                column,
                group=groups.get(column.group, column.group),
                title=titles.get(column.title, column.title),
            )
            for column in table.columns
        ),
    )


def _spread(name: str, spec: str) -> Any:
    def text(values: Values) -> str | None:
        if values.get(name) is None:
            return None
        if values.get(f"{name}_lo") is None:
            return format(values[name], spec)
        low, high = values[f"{name}_lo"], values[f"{name}_hi"]
        return f"{values[name]:{spec}} [{low:{spec}}, {high:{spec}}]"

    return text
