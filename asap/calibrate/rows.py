"""Calibrate the rows of a run to one MACs budget, each once: from its files if they are there."""

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import Any

from tqdm import tqdm

from asap.backbones.families import trunk_of
from asap.calibrate.bench import Bench, Race
from asap.calibrate.forecast import AsapForecast, probe_for
from asap.calibrate.images import blind, calibration_spec, evaluation_spec
from asap.calibrate.points import Calibrated, by_hand, in_words, join, untuned, with_points
from asap.calibrate.preset import Files
from asap.calibrate.settings import Settings
from asap.engine import ENGINE_VERSION
from asap.errors import RequestError
from asap.measure.budget import (
    Budget,
    Forecast,
    Found,
    Point,
    describe,
    most_accurate,
    search,
    search_blind,
)
from asap.methods import Method
from asap.methods.knobs import Knob
from asap.runs.keys import key_of
from asap.runs.record import environment
from asap.runs.spec import MethodSpec, RunSpec
from asap.session import DTYPES, Session

log = logging.getLogger("asap")
CALIBRATION_VERSION = 2  # raised by hand when the same request finds another setting
BLIND = "no labels: the setting nearest to the budget, at it or below; other knobs at their values"
TUNED = "no budget: the best accuracy"
STEP = 1.5  # points below the budget for a method whose settings are steps wider than the window
ONE = "one knob: the setting nearest to the budget, at it or below"
MANY = (
    "several knobs: the best accuracy among the settings at or up to `window` points below; "
    "settings clearly behind on the first images are left early"
)


def at_budget(spec: RunSpec) -> tuple[RunSpec, dict[int, str]]:
    """The run with its rows at `calibrate.macs_pct` or their own budgets, on the images that are
    left for evaluation; by position, why other rows cannot be there.
    """
    if not any(_asks(spec, row) for row in spec.rows):
        done = with_points(spec.rows, [by_hand(row) for row in spec.rows])
    else:
        done = calibrate(spec)
        spec = evaluation_spec(spec) if _budgeted(spec) else spec
    missing = {i: c.reason for i, c in enumerate(done) if c.reason is not None}
    return replace(spec, rows=tuple(c.row for c in done if c.reason is None)), missing


def calibrate(spec: RunSpec) -> list[Calibrated]:
    """Every row at the budget, which is its own or `calibrate.macs_pct`; dense rows stay as they
    are. The only other row is refused with RequestError if it has no knob; among several it carries
    the reason.
    """
    if not any(_asks(spec, row) for row in spec.rows):
        raise RequestError(
            "calibrate.macs_pct is missing: give the MACs against dense in %, such as -35.23"
        )
    without = blind(spec) and not _budgeted(spec)
    room = _Room(Session(spec if without else calibration_spec(spec)), blind(spec))
    _check_grid(room)
    return with_points(spec.rows, [_attempt(room, i) for i in range(len(spec.rows))])


def _budgeted(spec: RunSpec) -> bool:
    """Whether any row is to meet a budget."""
    return spec.calibrate.macs_pct is not None or any(row.budget for row in spec.rows)


def _asks(spec: RunSpec, row: MethodSpec) -> bool:
    """Whether calibration has anything to find for this row."""
    open_to = spec.calibrate.macs_pct is not None and row.point_of is None
    return open_to or row.budget is not None or bool(row.open_grid)


@dataclass
class _Room:
    """What the rows of a calibration share; `blind`: it sees no labels. `budget`: of one row."""

    session: Session
    blind: bool
    budget: Budget | None = None
    benches: list[Bench] = field(default_factory=list)

    @property
    def spec(self) -> RunSpec:
        return self.session.spec

    @property
    def bench(self) -> Bench:
        """The images, read when they are first needed, once for all rows."""
        if not self.benches:
            s, spec = self.session, self.spec
            log.info("calibration: %s", s.data.description)
            arguments = (spec.batch_size, spec.workers, s.device, DTYPES[spec.precision])
            self.benches.append(Bench(s.backbone, s.data, *arguments, self.blind))
        return self.benches[0]

    def of(self, row: MethodSpec) -> "_Room":
        """The same for a row: with its budget."""
        c = self.spec.calibrate
        macs_pct = c.macs_pct if row.budget is None else row.budget
        return replace(self, budget=None if macs_pct is None else Budget(macs_pct, c.window))


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
    room = room.of(row)
    alone = sum(method.reduces for method in room.session.methods) < 2
    if not _asks(room.spec, row) or (not method.reduces and len(room.spec.rows) > 1):
        return by_hand(row)
    if room.budget is None and room.blind:
        return untuned(row)
    knobs = _knobs(room, row, method)
    if not any(knob.grid for knob in knobs):
        reason = f"{row.label} {method.no_knobs}"
        if alone:
            raise RequestError(f"{reason}; or give calibrate.grid={{option: [value, value]}}")
        return Calibrated(row, f"unreachable: {reason}")
    return _calibrate_row(room, row, method, knobs)


def _knobs(room: _Room, row: MethodSpec, method: Method) -> list[Knob]:
    """The method's knobs, with the grids of the row and of `calibrate.grid` in the place of their
    own. Without a budget those of the row alone, and so for a row with options of its own.
    """
    grid = {**row.open_grid, **(room.spec.calibrate.grid or {})}
    if room.budget is None or (row.budget is not None and row.given):
        return [Knob(name, tuple(grid[name])) for name in row.open_grid]
    declared = method.knobs(trunk_of(room.session.backbone).anatomy) if method.reduces else ()
    found = [
        replace(knob, grid=tuple(grid[knob.name]), beyond=()) if knob.name in grid else knob
        for knob in declared
    ]
    own = {f.name for f in fields(method)} - {knob.name for knob in found}
    return found + [Knob(name, tuple(grid[name])) for name in grid if name in own]


def _calibrate_row(room: _Room, row: MethodSpec, method: Method, knobs: list[Knob]) -> Calibrated:
    key = key_of(_identity(room, method, knobs))
    folder = room.spec.results / "calibration"
    macs_pct = None if room.budget is None else room.budget.macs_pct
    files = Files.of(folder, room.spec.backbone.name, row.label, macs_pct, key)
    preset = files.read_preset()
    if preset is None:
        found, window = _search(room, row, method, knobs, files)
        preset = _preset(room, row, method, knobs, found, window, key)
        files.write_preset(_head(row, found), preset)
    _tell(row, preset)
    written = (files.preset, files.settings)
    options = preset["with"]
    if options is None and room.spec.calibrate.unreachable == "nearest":
        options = (preset["found"]["nearest"] or {}).get("with")
    if options is None:
        return Calibrated(row, preset["found"]["reason"], written)
    chosen = replace(row, options={**row.options, **options}, note=_note(row, preset))
    return Calibrated(chosen, None, written, options)


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
        "budget": None if room.budget is None else asdict(room.budget),
        **({"blind": True} if room.blind else {}),
        "knobs": [asdict(knob) for knob in knobs],
    }


def _search(
    room: _Room, row: MethodSpec, method: Method, knobs: list[Knob], files: Files
) -> tuple[Found, float | None]:
    """The search, and the window it needed; continues from the settings that are written."""
    settings = Settings(room.bench, row, files, _race(room, knobs))
    forecast = _forecast(room, row, method, knobs)
    grid = math.prod(len(knob.grid) for knob in knobs if knob.grid) if forecast is None else None
    with tqdm(total=grid, desc=f"{row.label:<24}", unit="setting", disable=None) as settings.bar:
        found, window = _found(room, method, knobs, settings, forecast)
    if not found.points:
        raise RequestError(f"no setting of {row.label} can be built: {settings.refused[0]}")
    return found, window


def _found(
    room: _Room, method: Method, knobs: list[Knob], settings: Settings, forecast: Forecast | None
) -> tuple[Found, float | None]:
    """What is found in the narrowest window that holds a setting, and that window."""
    if room.budget is None:
        return most_accurate(knobs, settings), None
    look = search_blind if room.blind else search
    narrow, *wider = _windows(room.budget.window, method)
    settings.budget = replace(room.budget, window=narrow)
    found = look(knobs, settings.budget, settings, forecast)
    for window in wider:
        if found.point is None:
            settings.budget = replace(room.budget, window=window)
            found = look(knobs, settings.budget, settings, forecast)
    return found, settings.budget.window


def _windows(window: float, method: Method) -> tuple[float, ...]:
    """Costs that are known exactly need no room for chance: a window as wide as their steps."""
    return (window, STEP) if method.same_cost and window < STEP else (window,)


def _forecast(room: _Room, row: MethodSpec, method: Method, knobs: list[Knob]) -> Forecast | None:
    """Costs without measuring every setting, for a method that can say them."""
    probe = probe_for(method, knobs)
    if probe is None or room.budget is None:
        return None
    with tqdm(
        total=len(room.bench), desc=f"{row.label:<24}", unit="img", disable=None, leave=False
    ) as bar:
        room.bench.look(probe, bar.update)
    trunk = trunk_of(room.session.backbone)
    return AsapForecast(probe, trunk.cost, trunk.anatomy)


def _race(room: _Room, knobs: list[Knob]) -> Race | None:
    """What settings are left early by, where the best accuracy is what is looked for."""
    return Race() if _several(knobs) and room.budget and not room.blind else None


def _several(knobs: list[Knob]) -> bool:
    return sum(len(knob.grid) > 1 for knob in knobs) > 1


def _preset(
    room: _Room,
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
    rule = MANY if _several(knobs) else ONE
    rule = TUNED if room.budget is None else BLIND if room.blind else rule
    return {
        "with": None if p is None else dict(p.options),
        "overrides": None if p is None else _overrides(p.options),
        "found": {
            "method": {"name": row.name, "label": row.label, "options": kept},
            "backbone": room.spec.backbone.name,
            "budget_macs_pct": room.budget and room.budget.macs_pct,
            "window": window,
            "macs_pct": None if p is None else round(p.macs_pct, 4),
            "top1": None if p is None else _plain(p.top1),
            "dense_top1": _plain(room.bench.dense_top1),
            "images": len(room.bench),
            "data": room.session.data.description,
            "rule": rule,
            "grid": {knob.name: list(knob.grid) for knob in knobs if knob.grid},
            "costs": "measured" if probe_for(method, knobs) is None else "forecast, then measured",
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


def _setting(point: Point) -> dict[str, Any]:
    return {"with": dict(point.options), "macs_pct": round(point.macs_pct, 4)}


def _plain(top1: float | None) -> float | None:
    """None for an accuracy that nobody looked at."""
    return None if top1 is None or math.isnan(top1) else round(top1, 4)


def _overrides(options: Mapping[str, Any]) -> str:
    return " ".join(f"method.{k}={v}".replace(" ", "") for k, v in options.items())


def _head(row: MethodSpec, found: Found) -> str:
    what = "its setting" if found.point else "a MACs budget that it cannot reach"
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
    seen = f"on {found['images']} calibration images"
    if found["top1"] is not None:
        seen = f"{found['top1']:.2f} % correct {seen} (dense {found['dense_top1']:.2f} %)"
    log.info("%s: %s, %s", row.label, describe(point), seen)


def _note(row: MethodSpec, preset: Mapping[str, Any]) -> str:
    """The footnote of a calibrated row."""
    found = preset["found"]
    setting = {"with": preset["with"], **found} if preset["with"] else found["nearest"]
    said = f"{in_words(setting['with'])}; {setting['macs_pct']:+.2f} % MACs"
    if preset["with"] is None:
        said = f"No setting meets {found['budget_macs_pct']:+g} %, this is the nearest: {said}"
    else:
        said = f"{'Tuned' if found['budget_macs_pct'] is None else 'Calibrated'}: {said}"
        if found["top1"] is not None:
            said += f" and {found['top1']:.2f} % correct"
    return join(row.note, f"{said} on {found['images']} calibration images.")
