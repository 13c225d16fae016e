"""Two files of one calibration: the preset that was found, and every setting that was tried."""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from asap.calibrate.budget import Point
from asap.runs.disk import read_bytes, write_file

HEADER = ("key", "options", "macs_pct", "top1", "images")


@dataclass(frozen=True)
class Files:
    """results/calibration/<backbone>-<method>-macs<budget>.{yaml,csv}, or -tuned without a
    budget.

    `key` names what was asked; files of another key count as absent, and are written over.
    """

    stem: Path
    key: str

    @classmethod
    def of(
        cls, folder: Path, backbone: str, label: str, macs_pct: float | None, key: str
    ) -> "Files":
        words = [re.sub(r"[^\w.+-]+", "-", word).strip("-.") for word in (backbone, label.lower())]
        what = "tuned" if macs_pct is None else f"macs{macs_pct:+g}"
        return cls(folder / f"{'-'.join(words)}-{what}", key)

    @property
    def preset(self) -> Path:
        return self.stem.with_name(f"{self.stem.name}.yaml")

    @property
    def settings(self) -> Path:
        return self.stem.with_name(f"{self.stem.name}.csv")

    def read_preset(self) -> dict[str, Any] | None:
        """The preset, None if there is none of this key."""
        try:
            content = yaml.safe_load(read_bytes(self.preset) or b"")
        except yaml.YAMLError:
            return None
        found = content.get("found") if isinstance(content, dict) else None
        return content if isinstance(found, dict) and found.get("key") == self.key else None

    def write_preset(self, head: str, content: Mapping[str, Any]) -> Path:
        plain = json.loads(json.dumps(content))
        text = yaml.safe_dump(
            plain, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
        )
        lines = "".join(f"# {line}\n" for line in head.splitlines())
        return write_file(self.preset, lines + text)

    def read_settings(self) -> list[Point]:
        """The settings of this key that an earlier run measured."""
        text = (read_bytes(self.settings) or b"").decode("utf-8", "replace")
        rows = csv.DictReader(io.StringIO(text))
        return [_point(row) for row in rows if row.get("key") == self.key]

    def write_settings(self, points: Iterable[Point]) -> Path:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(HEADER)
        for p in points:
            top1 = "" if p.top1 is None else p.top1
            writer.writerow([self.key, json.dumps(dict(p.options)), p.macs_pct, top1, p.images])
        return write_file(self.settings, out.getvalue())


def _point(row: Mapping[str, str]) -> Point:
    top1 = float(row["top1"]) if row["top1"] else None
    return Point(json.loads(row["options"]), float(row["macs_pct"]), top1, int(row["images"]))
