"""Two files of one calibration: the preset that was found, and every setting that was tried."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from asap.calibrate.budget import Point
from asap.records.disk import guarded, read_bytes, write_file

HEADER = ("key", "options", "macs_pct", "top1", "images")


@dataclass(frozen=True)
class Files:
    """results/calibration/<backbone>-<method>-macs<budget>.{yaml,csv}, or -tuned without a
    budget.

    `key` names what was asked; files of another key count as absent. The newest have these names:
    those of other images or weights that are in their place get the beginning of their key as well.
    """

    stem: Path
    key: str

    @classmethod
    def of(
        cls, folder: Path, backbone: str, label: str, macs_pct: float | None, key: str
    ) -> "Files":
        words = [re.sub(r"[^\w.+-]+", "-", word).strip("-.") for word in (backbone, label.lower())]
        what = "tuned" if macs_pct is None else f"macs{macs_pct:+g}"
        stem = folder / f"{'-'.join(words)}-{what}"
        moved = cls(_moved(stem, key), key)
        return moved if moved.preset.exists() or moved.settings.exists() else cls(stem, key)

    def make_room(self) -> None:
        """Give files of another key, which are in the place of these, another name."""
        preset = _found(self.preset).get("key")
        setting = next((row["key"] for row in self._rows() if row.get("key")), None)
        for file, key in ((self.preset, preset), (self.settings, setting)):
            owner = str(key or self.key).partition("-")[0]
            if owner != self.key:
                with guarded(file):
                    file.replace(file.with_name(f"{_moved(self.stem, owner).name}{file.suffix}"))

    def without(self, unread: Sequence[Sequence[int]]) -> "Files":
        """The same, with settings that were measured without these images, and no others."""
        if not any(unread):
            return self
        left_out = sha256(str([list(part) for part in unread]).encode()).hexdigest()[:8]
        return replace(self, key=f"{self.key}-{left_out}")

    @property
    def preset(self) -> Path:
        return self.stem.with_name(f"{self.stem.name}.yaml")

    @property
    def settings(self) -> Path:
        return self.stem.with_name(f"{self.stem.name}.csv")

    def read_preset(self) -> dict[str, Any] | None:
        """The preset, None if there is none of this key."""
        content = _content(self.preset)
        return content if _found(self.preset).get("key") == self.key else None

    def write_preset(self, head: str, content: Mapping[str, Any]) -> Path:
        plain = json.loads(json.dumps(content))
        text = yaml.safe_dump(
            plain, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
        )
        lines = "".join(f"# {line}\n" for line in head.splitlines())
        return write_file(self.preset, lines + text)

    def read_settings(self) -> list[Point]:
        """The settings of this key that an earlier run measured."""
        return [_point(row) for row in self._rows() if row.get("key") == self.key]

    def _rows(self) -> Iterable[dict[str, str]]:
        text = (read_bytes(self.settings) or b"").decode("utf-8", "replace")
        return csv.DictReader(io.StringIO(text))

    def write_settings(self, points: Iterable[Point]) -> Path:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(HEADER)
        for p in points:
            top1 = "" if p.top1 is None else p.top1
            writer.writerow([self.key, json.dumps(dict(p.options)), p.macs_pct, top1, p.images])
        return write_file(self.settings, out.getvalue())


def _moved(stem: Path, key: str) -> Path:
    return stem.with_name(f"{stem.name}-{key[:8]}")


def _content(preset: Path) -> dict[str, Any]:
    """A preset file's content, empty if it is missing or damaged."""
    try:
        content = yaml.safe_load(read_bytes(preset) or b"")
    except yaml.YAMLError:
        content = None
    return content if isinstance(content, dict) else {}


def _found(preset: Path) -> dict[str, Any]:
    found = _content(preset).get("found")
    return found if isinstance(found, dict) else {}


def _point(row: Mapping[str, str]) -> Point:
    top1 = float(row["top1"]) if row["top1"] else None
    return Point(json.loads(row["options"]), float(row["macs_pct"]), top1, int(row["images"]))
