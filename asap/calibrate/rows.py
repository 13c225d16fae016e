"""Calibrate the rows of a run to one MACs budget, each once: from its files if they are there."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Any

from tqdm import tqdm

from asap.backbones.families import trunk_of
from asap.calibrate.bench import Bench, Race
from asap.calibrate.forecast import AsapForecast, probe_for
from asap.calibrate.images import calibration_spec
from asap.calibrate.preset import Files
from asap.engine import ENGINE_VERSION
from asap.engine.executor import ReducedViT
from asap.errors import RequestError
from asap.measure.budget import Budget, Forecast, Found, Point, describe, search
from asap.methods import Method, build
from asap.methods.knobs import Knob
from asap.runs.keys import key_of
from asap.runs.record import environment
from asap.runs.spec import MethodSpec, RunSpec
from asap.session import DTYPES, Session

log = logging.getLogger("asap")
CALIBRATION_VERSION = 2  # raised by hand when the same request finds another setting
STEP = 1.5  # points below the budget for a method whose settings are steps wider than the window
ONE = "one knob: the setting nearest to the budget, at it or below"
MANY = (
    "several knobs: the best accuracy among the settings at or up to `window` points below; "
    "settings clearly behind on the first images are left early"
)


@dataclass(frozen=True)
class Calibrated:
    """A row at the budget, or the reason why it cannot be there. `files`: preset and settings."""

    row: MethodSpec
    reason: str | None = None
    files: tuple[Path, ...] = ()


def at_budget(spec: RunSpec) -> tuple[RunSpec, dict[int, str]]:
    """The run with its rows at `calibrate.macs_pct`; by position, why others cannot be there."""
    done = calibrate(spec)
    missing = {i: c.reason for i, c in enumerate(done) if c.reason is not None}
    return replace(spec, rows=tuple(c.row for c in done if c.reason is None)), missing


def calibrate(spec: RunSpec) -> list[Calibrated]:
    """Every row at the budget; dense rows stay as they are. The only other row is refused with
    RequestError if it has no knob; among several it carries the reason.
    """
    budget = _budget(spec)
    room = _Room(Session(calibration_spec(spec)), budget)
    _check_grid(room)
    return [_attempt(room, i) for i in range(len(spec.rows))]


def _budget(spec: RunSpec) -> Budget:
    c = spec.calibrate
    if c.macs_pct is None:
        raise RequestError(
            "calibrate.macs_pct is missing: give the MACs against dense in %, such as -35.23"
        )
    return Budget(c.macs_pct, c.window)


@dataclass
class _Room:
    """What the rows of a calibration share."""

    session: Session
    budget: Budget

    @property
    def spec(self) -> RunSpec:
        return self.session.spec

    @cached_property
    def bench(self) -> Bench:
        s, spec = self.session, self.spec
        dtype = DTYPES[spec.precision]
        log.info("calibration: %s", s.data.description)
        return Bench(s.backbone, s.data, spec.batch_size, spec.workers, s.device, dtype)


def _check_grid(room: _Room) -> None:
    """RequestError for a name in `calibrate.grid` that no row has, with a value that is no list."""
    known = {f.name for method in room.session.methods for f in fields(method)}
    for name, values in (room.spec.calibrate.grid or {}).items():
        if name not in known:
            raise RequestError(f"calibrate.grid has {name!r}, which is an option of no row")
        if not isinstance(values, list) or not values:
            raise RequestError(f"calibrate.grid.{name}={values!r} is not a list: give its values")


def _attempt(room: _Room, index: int) -> Calibrated:
    row, method = room.spec.rows[index], room.session.methods[index]
    alone = sum(method.reduces for method in room.session.methods) < 2
    if not method.reduces and len(room.spec.rows) > 1:
        return Calibrated(row)
    knobs = _knobs(room, method)
    if not any(knob.grid for knob in knobs):
        reason = f"{row.label} {method.no_knobs}"
        if alone:
            raise RequestError(f"{reason}; or give calibrate.grid={{option: [value, value]}}")
        return Calibrated(row, f"unreachable: {reason}")
    return _calibrate_row(room, row, method, knobs)


def _knobs(room: _Room, method: Method) -> list[Knob]:
    """The method's knobs with the grids of `calibrate.grid` in the place of their own."""
    grid = room.spec.calibrate.grid or {}
    declared = method.knobs(trunk_of(room.session.backbone).anatomy) if method.reduces else ()
    found = [
        replace(knob, grid=tuple(grid[knob.name]), beyond=()) if knob.name in grid else knob
        for knob in declared
    ]
    own = {f.name for f in fields(method)} - {knob.name for knob in found}
    return found + [Knob(name, tuple(grid[name])) for name in grid if name in own]


def _calibrate_row(room: _Room, row: MethodSpec, method: Method, knobs: list[Knob]) -> Calibrated:
    c = room.budget
    key = key_of(_identity(room, method, knobs))
    folder = room.spec.results / "calibration"
    files = Files.of(folder, room.spec.backbone.name, row.label, c.macs_pct, key)
    preset = files.read_preset()
    if preset is None:
        found, window = _search(room, row, method, knobs, files)
        preset = _preset(room, row, method, knobs, found, window, key)
        files.write_preset(_head(row, found), preset)
    _tell(row, preset)
    written = (files.preset, files.settings)
    if preset["with"] is None:
        return Calibrated(row, preset["found"]["reason"], written)
    chosen = replace(row, options={**row.options, **preset["with"]}, note=_note(row, preset))
    return Calibrated(chosen, None, written)


def _identity(room: _Room, method: Method, knobs: list[Knob]) -> dict[str, Any]:
    """Exactly what changes which setting is found: not the values that the knobs had before."""
    identity = room.session.identity(method)
    turned = {knob.name for knob in knobs}
    about = identity["method"]
    options = {k: v for k, v in about["options"].items() if k not in turned}
    return {
        **identity,
        "method": {**about, "options": options},
        "calibration": CALIBRATION_VERSION,
        "budget": asdict(room.budget),
        "knobs": [asdict(knob) for knob in knobs],
    }


def _search(
    room: _Room, row: MethodSpec, method: Method, knobs: list[Knob], files: Files
) -> tuple[Found, float]:
    """The search, and the window it needed; continues from the settings that are written."""
    measure = _Measure(room, row, files, Race() if _several(knobs) else None)
    forecast = _forecast(room, row, method, knobs)
    grid = prod(len(knob.grid) for knob in knobs if knob.grid) if forecast is None else None
    wide = replace(room.budget, window=max(STEP, room.budget.window))
    with tqdm(total=grid, desc=f"{row.label:<24}", unit="setting", disable=None) as measure.bar:
        found = search(knobs, measure.budget, measure, forecast)
        if found.point is None and method.same_cost and wide != measure.budget:
            measure.budget = wide  # costs are known exactly, so no room for chance is needed
            found = search(knobs, wide, measure, forecast)
    if not found.points:
        raise RequestError(f"no setting of {row.label} can be built: {measure.refused[0]}")
    return found, measure.budget.window


class _Measure:
    """Measures settings of a row on the calibration images, and writes every one down."""

    bar: tqdm

    def __init__(self, room: _Room, row: MethodSpec, files: Files, race: Race | None) -> None:
        self.bench, self.row, self.files, self.race = room.bench, row, files, race
        self.budget = room.budget
        self.known = {_name(p.options): p for p in files.read_settings()}
        self.points: dict[str, Point] = {}
        self.refused: list[str] = []

    def __call__(self, options: dict[str, Any], early: bool) -> Point | None:
        point = self.known.get(_name(options))
        if point is None or (point.top1 is None and self._matters(point, early)):
            try:
                setting = build(self.row.name, {**self.row.options, **options})
                ReducedViT(self.bench.backbone, setting)
            except (RequestError, ValueError) as error:  # options that do not fit together
                self.refused.append(str(error))
                return None
            budget, race = (self.budget, self.race) if early else (None, None)
            point = Point(options, *self.bench.measure(setting, budget, race))
        self.known[_name(options)] = self.points[_name(options)] = point
        self.files.write_settings(self.points.values())
        self.bar.total = max(self.bar.total or 0, len(self.points))
        self.bar.update(1)
        return point

    def _matters(self, point: Point, early: bool) -> bool:
        """Whether a setting that was left early has to be measured again."""
        return not early or self.budget.holds(point.macs_pct)


def _forecast(room: _Room, row: MethodSpec, method: Method, knobs: list[Knob]) -> Forecast | None:
    """Costs without measuring every setting, for a method that can say them."""
    probe = probe_for(method, knobs)
    if probe is None:
        return None
    with tqdm(
        total=len(room.bench), desc=f"{row.label:<24}", unit="img", disable=None, leave=False
    ) as bar:
        room.bench.look(probe, bar.update)
    trunk = trunk_of(room.session.backbone)
    return AsapForecast(probe, trunk.cost, trunk.anatomy)


def _several(knobs: list[Knob]) -> bool:
    return sum(len(knob.grid) > 1 for knob in knobs) > 1


def _name(options: Mapping[str, Any]) -> str:
    return repr(sorted(options.items()))


def _preset(
    room: _Room,
    row: MethodSpec,
    method: Method,
    knobs: list[Knob],
    found: Found,
    window: float,
    key: str,
) -> dict[str, Any]:
    """What was found and how, as the preset file says it."""
    p = found.point
    kept = {k: v for k, v in row.options.items() if k not in {knob.name for knob in knobs}}
    return {
        "with": None if p is None else dict(p.options),
        "overrides": None if p is None else _overrides(p.options),
        "found": {
            "method": {"name": row.name, "label": row.label, "options": kept},
            "backbone": room.spec.backbone.name,
            "budget_macs_pct": room.budget.macs_pct,
            "window": window,
            "macs_pct": None if p is None else round(p.macs_pct, 4),
            "top1": None if p is None else round(p.top1 or 0.0, 4),
            "dense_top1": round(room.bench.dense_top1, 4),
            "images": len(room.bench),
            "data": room.session.data.description,
            "rule": MANY if _several(knobs) else ONE,
            "grid": {knob.name: list(knob.grid) for knob in knobs if knob.grid},
            "costs": "measured" if probe_for(method, knobs) is None else "forecast, then measured",
            "settings_tried": len(found.points),
            "settings_on_all_images": sum(q.top1 is not None for q in found.points),
            "reason": found.reason,
            "would_reach": [{"with": dict(q.options), "macs_pct": q.macs_pct} for q in found.ways],
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


def _overrides(options: Mapping[str, Any]) -> str:
    return " ".join(f"method.{k}={v}".replace(" ", "") for k, v in options.items())


def _head(row: MethodSpec, found: Found) -> str:
    what = "its setting for a MACs budget" if found.point else "a MACs budget that it cannot reach"
    return (
        f"{row.label}: {what}, found on calibration images by python -m asap.calibrate.\n"
        "`with` goes into a row of an experiment, `overrides` onto a command line."
    )


def _tell(row: MethodSpec, preset: Mapping[str, Any]) -> None:
    found = preset["found"]
    if preset["with"] is None:
        log.warning("%s: %s", row.label, found["reason"])
        return
    point = Point(preset["with"], found["macs_pct"], found["top1"], found["images"])
    log.info(
        "%s: %s, %.2f %% correct on %d calibration images (dense %.2f %%)",
        row.label, describe(point), found["top1"], found["images"], found["dense_top1"],
    )  # fmt: skip


def _note(row: MethodSpec, preset: Mapping[str, Any]) -> str:
    """The footnote of a calibrated row."""
    found = preset["found"]
    options = ", ".join(f"{k} = {v}" for k, v in preset["with"].items())
    said = (
        f"Calibrated: {options}; {found['macs_pct']:+.2f} % MACs and {found['top1']:.2f} % correct "
        f"on {found['images']} calibration images."
    )
    return f"{row.note} {said}" if row.note else said
