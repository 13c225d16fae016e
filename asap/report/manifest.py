"""The rows of a run's table by key, in order, and its pictures.

`<name>.rows.json` beside each table, from which a page can be made again without models.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from asap.errors import one_line
from asap.records.disk import read_bytes, write_file
from asap.records.store import Store
from asap.report.result import Result, RowRef

log = logging.getLogger(__name__)
_VERSION = 2  # 2: records by kind
_PAPER_TABLE = "image_classification"


@dataclass(frozen=True)
class Picture:
    """A figure that needed a forward pass: a PNG in results/figures, its title and caption.

    animation: a WebP there that may be played in its place.
    """

    name: str
    title: str
    caption: str
    animation: str | None = None

    @classmethod
    def of(cls, files: Sequence[Path], title: str, caption: str) -> "Picture | None":
        """The picture in the PNG among `files`, None if none was written."""
        names = {path.suffix: path.name for path in files}
        if ".png" not in names:
            return None
        return cls(names[".png"], title, caption, names.get(".webp"))

    @property
    def files(self) -> list[str]:
        """The names of all files of the picture."""
        stem = self.name.removesuffix(".png")
        return [f"{stem}.svg", self.name, *([self.animation] if self.animation else [])]

    def read(self, figures: Path) -> "Drawn":
        """The picture with the content of its files."""
        moving = None if self.animation is None else read_bytes(figures / self.animation)
        return Drawn(self, read_bytes(figures / self.name), moving)


@dataclass(frozen=True)
class Drawn:
    """A picture with the bytes of its PNG and of its animation, None if they are gone."""

    picture: Picture
    png: bytes | None
    animation: bytes | None = None


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
    rows = tuple(result.ref for result in results)
    return Manifest(title, tuple(remarks), rows, tuple(pictures), paper_table)


def write_manifest(manifest: Manifest, path: Path) -> Path:
    """Write it atomically; returns the path."""
    return write_file(path, json.dumps({"version": _VERSION, **asdict(manifest)}, indent=1) + "\n")


def read_manifests(results: Path) -> list[Manifest]:
    """All manifests of a results folder, by file name. A damaged one is skipped with a warning."""
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
    for name in ("label", "left_out", "on", "data"):
        if not isinstance(value := getattr(row, name), str | None):
            raise TypeError(f"{name} of a row is {value!r}")
    if not all(isinstance(one, str) for pair in row.records.items() for one in pair):
        raise TypeError(f"records of a row are {row.records!r}")
    if not isinstance(row.own_weights, bool):
        raise TypeError(f"own_weights of a row is {row.own_weights!r}")
    return row


def results_of(manifest: Manifest, store: Store, current: Sequence[str]) -> list[Result]:
    """The rows with their records; a record that is not among `current` is a reason of its row."""
    return [Result.from_store(store, row, current) for row in manifest.rows]
