"""What a run showed: the rows of its table by key, in order, and its pictures.

Beside each table lies `<name>.rows.json`, so that a page can be made again from records alone.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from asap.errors import one_line
from asap.records.disk import read_bytes, write_file
from asap.records.store import Store
from asap.report.result import Result

log = logging.getLogger(__name__)
_VERSION = 1
_PAPER_TABLE = "image_classification"


@dataclass(frozen=True)
class Picture:
    """A figure that needed a forward pass: a PNG below results/figures, and what to see in it."""

    name: str
    title: str
    caption: str

    @classmethod
    def of(cls, files: Sequence[Path], title: str, caption: str) -> "Picture | None":
        """The picture in the PNG among `files`, None if none was written."""
        name = next((path.name for path in files if path.suffix == ".png"), None)
        return None if name is None else cls(name, title, caption)


@dataclass(frozen=True)
class RowRef:
    """A row of a table: how it was called, and the keys of its records (None: there is none)."""

    label: str
    paper: str | None
    ours: bool
    note: str | None
    reason: str | None
    accuracy: str | None
    throughput: str | None
    left_out: str | None = None  # a baseline's on the images that calibration took
    own_weights: bool = False  # its backbone is that of its own checkpoint


@dataclass(frozen=True)
class Manifest:
    """A run's title, the lines below its table, its rows and its pictures."""

    title: str
    remarks: tuple[str, ...]
    rows: tuple[RowRef, ...]
    pictures: tuple[Picture, ...] = ()
    paper_table: str = _PAPER_TABLE


def manifest_of(
    title: str,
    remarks: Sequence[str],
    results: Sequence[Result],
    pictures: Sequence[Picture] = (),
    paper_table: str = _PAPER_TABLE,
) -> Manifest:
    """The manifest of a finished run."""
    rows = tuple(
        RowRef(
            r.label, r.paper_method, r.ours, r.note, r.reason,
            *(None if x is None else x["key"] for x in (r.accuracy, r.throughput, r.left_out)),
            own_weights=r.own_weights,
        )
        for r in results
    )  # fmt: skip
    return Manifest(title, tuple(remarks), rows, tuple(pictures), paper_table)


def write_manifest(manifest: Manifest, path: Path) -> Path:
    """Write it whole or not at all; returns the path."""
    return write_file(path, json.dumps({"version": _VERSION, **asdict(manifest)}, indent=1) + "\n")


def read_manifests(results: Path) -> list[Manifest]:
    """All manifests of a results folder by file name; a damaged one is left out with a warning."""
    found = []
    for path in sorted((results / "tables").glob("*.rows.json")):
        try:
            found.append(_parsed(json.loads(read_bytes(path) or b"")))
        except (ValueError, TypeError, KeyError) as error:
            log.warning("%s is left out, it cannot be read: %s", path, one_line(error))
    return found


def _parsed(content: Mapping) -> Manifest:
    if content["version"] != _VERSION:
        raise ValueError(f"version {content['version']}")
    return Manifest(
        str(content["title"]),
        tuple(map(str, content["remarks"])),
        tuple(map(_row, content["rows"])),
        tuple(Picture(**picture) for picture in content["pictures"]),
        content.get("paper_table", _PAPER_TABLE),
    )


def _row(content: Mapping) -> RowRef:
    row = RowRef(**content)
    for name in ("label", "accuracy", "throughput", "left_out"):
        if not isinstance(value := getattr(row, name), str | None):
            raise TypeError(f"{name} of a row is {value!r}")
    if not isinstance(row.own_weights, bool):
        raise TypeError(f"own_weights of a row is {row.own_weights!r}")
    return row


def results_of(manifest: Manifest, store: Store, current: Sequence[str]) -> list[Result]:
    """The rows with their records; a key that is not among the `current` ones says so."""
    return [_result(row, store, current) for row in manifest.rows]


def _result(row: RowRef, store: Store, current: Sequence[str]) -> Result:
    keys = [key for key in (row.accuracy, row.throughput, row.left_out) if key is not None]
    lost = [key for key in keys if key not in current]
    reason = f"record {lost[0]} is gone or of another version of the code" if lost else row.reason
    key, speed_key = row.accuracy, row.throughput
    accuracy = store.cell(key).accuracy() if key is not None and key in current else None
    there = speed_key is not None and speed_key in current
    speed = store.cell(speed_key or "").throughput() if there else None
    return Result(
        row.label, row.paper, row.ours,
        None if accuracy is None else {**accuracy, "label": row.label},
        None if accuracy is None else store.cell(accuracy["key"]).predictions,
        None if speed is None else {**speed, "label": row.label},
        reason, row.note,
        config=None if accuracy is None else store.cell(accuracy["key"]).config(),
        left_out=store.cell(row.left_out or "").accuracy() if row.left_out in current else None,
        own_weights=row.own_weights,
    )  # fmt: skip
