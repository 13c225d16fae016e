"""What was found for a row and how: as its preset says it, the log and the table's footnote."""

import logging
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from asap.calibrate.budget import Found, Point, describe
from asap.calibrate.points import in_words, join
from asap.calibrate.room import Room
from asap.calibrate.search import several
from asap.engine import ENGINE_VERSION
from asap.methods import Method
from asap.methods.search_space import Knob
from asap.records.schema import environment
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


def preset_of(
    room: Room,
    row: MethodSpec,
    method: Method,
    knobs: list[Knob],
    found: Found,
    window: float | None,
    key: str,
) -> dict[str, Any]:
    """What was found and how, as the preset file says it."""
    p = found.point
    kept = {k: v for k, v in row.options.items() if k not in {knob.name for knob in knobs}}
    rule = MANY if several(knobs) else ONE
    rule = TUNED if room.budget is None else BLIND if room.blind else rule
    return {
        "with": None if p is None else dict(p.options),
        "overrides": None if p is None else _overrides(p.options),
        "found": {
            "method": {"name": row.name, "label": row.label, "options": kept},
            "backbone": room.spec.backbone.shown,
            "budget_macs_pct": room.budget and room.budget.macs_pct,
            "window": window,
            "macs_pct": None if p is None else round(p.macs_pct, 4),
            "top1": None if p is None else _plain(p.top1),
            "dense_top1": _plain(room.bench.dense_top1),
            "images": len(room.bench),
            "data": room.session.data.description,
            **({"unread": unread} if any(unread := room.images.unread) else {}),
            "rule": rule,
            "grid": {knob.name: list(knob.grid) for knob in knobs if knob.grid},
            **_costs(room, method, knobs),
            "settings_tried": len(found.points),
            "settings_on_all_images": sum(q.top1 is not None for q in found.points),
            "reason": found.reason,
            "nearest": found.nearest and _setting(found.nearest),
            "would_reach": [_setting(q) for q in found.ways],
            "weights": room.session.weights_digest,
            "data_digest": room.session.data.digest,
            "precision": room.spec.precision,
            "device": room.session.device.type,
            "engine_version": ENGINE_VERSION,
            "method_version": method.method_version,
            "environment": environment(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "key": key,
        },
    }


def _costs(room: Room, method: Method, knobs: list[Knob]) -> dict[str, Any]:
    """Where the costs are from: without images of their own, they are measured with accuracies."""
    apart = None if method.same_cost else room.costs
    forecast = "forecast, then measured" if apart is None else "forecast"
    return {
        "costs": "measured" if probe_for(method, knobs) is None else forecast,
        "cost_images": apart and len(room.bench.costs or ()),
        "cost_data": apart and apart.description,
    }


def _setting(point: Point) -> dict[str, Any]:
    return {"with": dict(point.options), "macs_pct": round(point.macs_pct, 4)}


def _plain(top1: float | None) -> float | None:
    """None for an accuracy that nobody looked at."""
    return None if top1 is None or math.isnan(top1) else round(top1, 4)


def _overrides(options: Mapping[str, Any]) -> str:
    return " ".join(f"method.{k}={v}".replace(" ", "") for k, v in options.items())


def head_of(row: MethodSpec, found: Found) -> str:
    what = "its setting" if found.point else "a MACs budget that it cannot reach"
    return (
        f"{row.label}: {what}, found on calibration images by python -m asap.calibrate.\n"
        "`with` goes into a row of an experiment, `overrides` onto a command line."
    )


def tell(row: MethodSpec, preset: Mapping[str, Any]) -> None:
    found = preset["found"]
    if preset["with"] is None:
        log.warning("%s: %s", row.label, found["reason"])
        return
    point = Point(preset["with"], found["macs_pct"], found["top1"], found["images"])
    seen = f"on {found['images']} calibration images"
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
    return join(row.note, f"{said} on {found['images']} calibration images.")


def _cost_images(found: Mapping[str, Any]) -> str:
    count = found.get("cost_images")  # older presets have none
    return "" if count is None else f" on {count} training images"
