"""The setting found for a row: its two files, and its texts in log, preset and footnote."""

import csv
import io
import json
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml

from asap.calibrate.context import CalibrationContext, Request
from asap.calibrate.space_walk import Found, Point, describe, several
from asap.records.disk import guarded, read_bytes, write_file
from asap.records.schema import environment
from asap.records.versions import ENGINE_VERSION
from asap.shared_prefix.forecast import probe_for
from asap.spec.run_spec import MethodSpec

log = logging.getLogger("asap")
BLIND = "no labels: the setting nearest to the budget, at it or below; other knobs at their values"
TUNED = "no budget: the best accuracy"
ONE = "one knob: the setting nearest to the budget, at it or below"
MANY = (
    "several knobs: the best accuracy among the settings at or up to `window` points below; "
    "settings clearly behind on the first images are left early"
)
HEADER = ("key", "options", "macs_pct", "top1", "images")


def preset_of(
    context: CalibrationContext, asked: Request, found: Found, window: float | None, key: str
) -> dict[str, Any]:
    """The content of the preset file: what was found, and how."""
    p, row, session = found.point, asked.row, context.session
    kept = {k: v for k, v in row.options.items() if k not in {knob.name for knob in asked.knobs}}
    rule = MANY if several(asked.knobs) else ONE
    rule = TUNED if asked.budget is None else BLIND if context.blind else rule
    return {
        "with": None if p is None else dict(p.options),
        "overrides": None if p is None else _overrides(p.options),
        "found": {
            "method": {"name": row.name, "label": row.label, "options": kept},
            "backbone": session.spec.backbone.shown,
            "budget_macs_pct": asked.budget and asked.budget.macs_pct,
            "window": window,
            "macs_pct": None if p is None else round(p.macs_pct, 4),
            "top1": None if p is None else _plain(p.top1),
            "dense_top1": _plain(context.images.dense_top1),
            "images": len(context.images),
            "examples": session.task.examples,
            "data": session.data.description,
            **({"unread": unread} if any(unread := context.unread()) else {}),
            "rule": rule,
            "grid": {knob.name: list(knob.grid) for knob in asked.knobs if knob.grid},
            **_costs(context, asked),
            "settings_tried": len(found.points),
            "settings_on_all_images": sum(q.top1 is not None for q in found.points),
            "reason": found.reason,
            "nearest": found.nearest and _setting(found.nearest),
            "would_reach": [_setting(q) for q in found.ways],
            "weights": session.weights_digest,
            "data_digest": session.data.digest,
            "precision": session.spec.precision,
            "device": session.device.type,
            "engine_version": ENGINE_VERSION,
            "method_version": asked.method.method_version,
            "environment": environment(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "key": key,
        },
    }


def _costs(context: CalibrationContext, asked: Request) -> dict[str, Any]:
    """The images that costs come from; without `costs`, those of the accuracies."""
    apart = None if asked.method.same_cost else context.costs
    forecast = "forecast, then measured" if apart is None else "forecast"
    return {
        "costs": "measured" if probe_for(asked.method, asked.knobs) is None else forecast,
        "cost_images": apart and len(context.images.costs or ()),
        "cost_data": apart and apart.description,
    }


def _setting(point: Point) -> dict[str, Any]:
    return {"with": dict(point.options), "macs_pct": round(point.macs_pct, 4)}


def _plain(top1: float | None) -> float | None:
    """An accuracy for a file: None if labels were not looked at."""
    return None if top1 is None or math.isnan(top1) else round(top1, 4)


def _overrides(options: Mapping[str, Any]) -> str:
    return " ".join(f"method.{k}={v}".replace(" ", "") for k, v in options.items())


def head_of(row: MethodSpec, found: Found) -> str:
    """The comment at the top of a preset file."""
    what = "its setting" if found.point else "a MACs budget that it cannot reach"
    return (
        f"{row.label}: {what}, found by python -m asap.calibrate.\n"
        "`with` goes into a row of an experiment, `overrides` onto a command line."
    )


def tell(row: MethodSpec, preset: Mapping[str, Any]) -> None:
    """Log what was found; a budget that cannot be reached is a warning."""
    found = preset["found"]
    if preset["with"] is None:
        log.warning("%s: %s", row.label, found["reason"])
        return
    point = Point(preset["with"], found["macs_pct"], found["top1"], found["images"])
    seen = f"on {_calibration(found)}"
    if found["top1"] is not None:
        seen = f"{found['top1']:.2f} % correct {seen} (dense {found['dense_top1']:.2f} %)"
    log.info("%s: %s%s, %s", row.label, describe(point), _cost_images(found), seen)


def note_of(row: MethodSpec, preset: Mapping[str, Any]) -> str:
    """The footnote of a calibrated row."""
    found = preset["found"]
    setting = {"with": preset["with"], **found} if preset["with"] else found["nearest"]
    said = f"{in_words(setting['with'])}; {setting['macs_pct']:+.2f} % MACs{_cost_images(found)}"
    if preset["with"] is None:
        said = f"No setting meets {found['budget_macs_pct']:+g} %, this is the nearest: {said}"
    else:
        said = f"{'Tuned' if found['budget_macs_pct'] is None else 'Calibrated'}: {said}"
        if found["top1"] is not None:
            said += f" and {found['top1']:.2f} % correct"
    return join(row.note, f"{said} on {_calibration(found)}.")


def _calibration(found: Mapping[str, Any]) -> str:
    return f"{found['images']} calibration {found.get('examples', 'images')}"


def _cost_images(found: Mapping[str, Any]) -> str:
    count = found.get("cost_images")  # older presets have none
    return "" if count is None else f" on {count} training {found.get('examples', 'images')}"


def in_words(options: Mapping[str, Any]) -> str:
    """As "tau = 3.0, r = [16, 8]", from a method or from a file."""
    plain = {name: [*v] if isinstance(v, tuple) else v for name, v in options.items()}
    return ", ".join(f"{name} = {value}" for name, value in plain.items())


def join(*parts: str | None) -> str:
    """The sentences that are not empty, in one line."""
    return " ".join(part for part in parts if part)


# ---- the two files of one calibration: the preset, and every setting that was tried


@dataclass(frozen=True)
class Files:
    """results/calibration/<backbone>-<method>-macs<budget>.{yaml,csv}; without a budget -tuned.

    `key` identifies the request; files of another key count as absent. The newest have these names;
    files of another request that had them are renamed, with the beginning of their key.
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
        """Rename files of another key that have these names."""
        preset = _found_in(self.preset).get("key")
        setting = next((row["key"] for row in self._rows() if row.get("key")), None)
        for file, key in ((self.preset, preset), (self.settings, setting)):
            owner = str(key or self.key).partition("-")[0]
            if owner != self.key:
                with guarded(file):
                    file.replace(file.with_name(f"{_moved(self.stem, owner).name}{file.suffix}"))

    def without(self, unread: Sequence[Sequence[int]]) -> "Files":
        """The files of the same request, with only the settings measured without these images."""
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
        """The preset; None if there is none with this key."""
        content = _content_of(self.preset)
        return content if _found_in(self.preset).get("key") == self.key else None

    def write_preset(self, head: str, content: Mapping[str, Any]) -> Path:
        plain = json.loads(json.dumps(content))
        text = yaml.safe_dump(
            plain, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
        )
        lines = "".join(f"# {line}\n" for line in head.splitlines())
        return write_file(self.preset, lines + text)

    def read_settings(self) -> list[Point]:
        """The settings that an earlier run measured for this key."""
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


def _content_of(preset: Path) -> dict[str, Any]:
    """A preset file's content, empty if it is missing or damaged."""
    try:
        content = yaml.safe_load(read_bytes(preset) or b"")
    except yaml.YAMLError:
        content = None
    return content if isinstance(content, dict) else {}


def _found_in(preset: Path) -> dict[str, Any]:
    found = _content_of(preset).get("found")
    return found if isinstance(found, dict) else {}


def _point(row: Mapping[str, str]) -> Point:
    top1 = float(row["top1"]) if row["top1"] else None
    return Point(json.loads(row["options"]), float(row["macs_pct"]), top1, int(row["images"]))
