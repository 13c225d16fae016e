"""Rows to their operating points: read from their files if they are there, else searched for.

Read `at_budget` first, then `_found_for`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from asap.backbones.accepted import adapter_of
from asap.calibrate.calibration_images import evaluation_spec
from asap.calibrate.calibration_set import CalibrationSet, Race
from asap.calibrate.context import CalibrationContext, Request
from asap.calibrate.found import Files, head_of, in_words, join, note_of, preset_of, tell
from asap.calibrate.space_walk import (
    Budget,
    Forecast,
    Found,
    Point,
    key_of_options,
    most_accurate,
    search,
    search_blind,
    several,
)  # fmt: skip
from asap.engine.executor import ReducedViT
from asap.errors import RequestError
from asap.measure.in_memory import InMemory
from asap.methods import Method, build
from asap.records.key import key_of
from asap.shared_prefix.forecast import CostForecast, probe_for
from asap.spec.run_spec import MethodSpec, RunSpec

STEP = 1.5  # points below the budget, for a method whose costs jump by more than the window


@dataclass(frozen=True)
class Calibrated:
    """A row at its operating point, or the reason why it has none.

    files: preset and settings. point: the options that were found or given.
    """

    row: MethodSpec
    reason: str | None = None
    files: tuple[Path, ...] = ()
    point: Mapping[str, Any] = field(default_factory=dict)


def at_budget(spec: RunSpec, memory: InMemory | None = None) -> tuple[RunSpec, list[Calibrated]]:
    """The run on the images that are left for evaluation, and each of its rows calibrated.

    A row is at its own budget or at `calibrate.macs_pct`, or has the reason why it cannot be.
    """
    if not any(_asks(spec, row) for row in spec.rows):
        done = with_points(spec.rows, [by_hand(row) for row in spec.rows])
    else:
        done = calibrate(spec, memory)
        spec = evaluation_spec(spec) if _budgeted(spec) else spec
    return spec, done


def calibrate(spec: RunSpec, memory: InMemory | None = None) -> list[Calibrated]:
    """Every row at its own budget or `calibrate.macs_pct`; dense rows stay as they are.

    A row without a knob gets the reason; if it is the only row beside dense ones, RequestError.
    """
    if not any(_asks(spec, row) for row in spec.rows):
        raise RequestError(
            "calibrate.macs_pct is missing: give the MACs against dense in %, such as -35.23"
        )
    context = CalibrationContext.of_run(spec, _budgeted(spec), memory or InMemory())
    context.check_grid()
    rows = zip(context.session.spec.rows, context.session.methods, strict=True)
    return with_points(spec.rows, [_calibrate_row(context, *row) for row in rows])


def _budgeted(spec: RunSpec) -> bool:
    """True if any row is to meet a budget."""
    return spec.calibrate.macs_pct is not None or any(row.budget for row in spec.rows)


def _asks(spec: RunSpec, row: MethodSpec) -> bool:
    """True if there is something to find for this row."""
    open_to = spec.calibrate.macs_pct is not None and row.point_of is None
    return open_to or row.budget is not None or bool(row.open_grid)


def _calibrate_row(context: CalibrationContext, row: MethodSpec, method: Method) -> Calibrated:
    spec, methods = context.session.spec, context.session.methods
    if not _asks(spec, row) or (not method.reduces and len(spec.rows) > 1):
        return by_hand(row)
    asked = context.request(row, method)
    if asked.budget is None and context.blind:
        return untuned(row)
    if any(knob.grid for knob in asked.knobs):
        return _found_for(context, asked)
    reason = f"{row.label} {method.no_knobs}"
    if sum(method.reduces for method in methods) < 2:
        raise RequestError(f"{reason}; or give calibrate.grid={{option: [value, value]}}")
    return Calibrated(row, f"unreachable: {reason}")


def _found_for(context: CalibrationContext, asked: Request) -> Calibrated:
    """The row at the setting of its preset; the preset is written first if it is not there, or if
    images that were left out of it can be read by now.
    """
    key, row, spec = key_of(context.identity(asked)), asked.row, context.session.spec
    macs_pct = None if asked.budget is None else asked.budget.macs_pct
    folder = spec.results / "calibration"
    files = Files.of(folder, spec.backbone.shown, row.label, macs_pct, key)
    preset = files.read_preset()
    if preset is None or context.readable(preset["found"].get("unread", ())):
        files.make_room()
        found, window = search_row(context, asked, files)
        preset = preset_of(context, asked, found, window, key)
        files.write_preset(head_of(row, found), preset)
    tell(row, preset)
    written = (files.preset, files.settings)
    options = preset["with"]
    if options is None and spec.calibrate.unreachable == "nearest":
        options = (preset["found"]["nearest"] or {}).get("with")
    if options is None:
        return Calibrated(row, preset["found"]["reason"], written)
    chosen = row.with_options(options, note=note_of(row, preset))
    return Calibrated(chosen, None, written, options)


# ---- the search for one row's setting, with measured or forecast costs


class Settings:
    """Called with options, returns their point; None for options that do not fit together.

    A setting whose measuring ended early is measured again if it is asked for in full, or if its
    cost meets the budget after all. `forecast`: costs that need not be measured.
    """

    bar: tqdm
    budget: Budget | None = None

    def __init__(
        self,
        images: CalibrationSet,
        row: MethodSpec,
        files: Files,
        race: Race | None,
        forecast: Forecast | None = None,
    ) -> None:
        self.images, self.row, self.files, self.race = images, row, files, race
        self.forecast = forecast
        self.known = {key_of_options(p.options): p for p in files.read_settings()}
        self.points: dict[str, Point] = {}
        self.refused: list[str] = []

    def __call__(self, options: dict[str, Any], early: bool) -> Point | None:
        point = self.known.get(key_of_options(options))
        if point is None or (point.top1 is None and self._matters(point, early)):
            try:
                setting = build(self.row.name, {**self.row.options, **options})
                ReducedViT(self.images.backbone, setting)
            except (RequestError, ValueError) as error:  # options that do not fit together
                self.refused.append(str(error))
                return None
            budget, race = (self.budget, self.race) if early else (None, None)
            known = self.forecast(options) if self.forecast is not None else None
            point = Point(options, *self.images.measure(setting, budget, race, known))
        self.known[key_of_options(options)] = self.points[key_of_options(options)] = point
        self.files.write_settings(self.points.values())
        self.bar.total = max(self.bar.total or 0, len(self.points))
        self.bar.update(1)
        return point

    def _matters(self, point: Point, early: bool) -> bool:
        return not early or self.budget is None or self.budget.holds(point.macs_pct)


def search_row(
    context: CalibrationContext, asked: Request, files: Files
) -> tuple[Found, float | None]:
    """The search, and the window it needed; settings that are in the file are not measured again.

    Raises RequestError if no setting of the row can be built.
    """
    label, knobs = asked.row.label, asked.knobs
    forecast = _forecast(context, asked)
    known = None if context.costs is None else forecast  # of the very images, to the integer
    # A race ends measurements early, which makes sense only if the best accuracy is looked for.
    race = Race() if several(knobs) and asked.budget and not context.blind else None
    files = files.without(context.unread())
    settings = Settings(context.images, asked.row, files, race, known)
    grid = math.prod(len(knob.grid) for knob in knobs if knob.grid) if forecast is None else None
    with tqdm(total=grid, desc=f"{label:<24}", unit="setting", disable=None) as settings.bar:
        found, window = _in_narrowest_window(context, asked, settings, forecast)
    if not found.points:
        raise RequestError(f"no setting of {label} can be built: {settings.refused[0]}")
    return found, window


def _in_narrowest_window(
    context: CalibrationContext, asked: Request, settings: Settings, forecast: Forecast | None
) -> tuple[Found, float | None]:
    """The setting found in the narrowest window that has one, and that window."""
    if asked.budget is None:
        return most_accurate(asked.knobs, settings), None
    look = search_blind if context.blind else search
    found, window = Found(None, ()), asked.budget.window
    for window in _windows(asked.budget.window, asked.method):
        settings.budget = replace(asked.budget, window=window)
        found = look(asked.knobs, settings.budget, settings, forecast)
        if found.point is not None:
            break
    return found, window


def _windows(window: float, method: Method) -> tuple[float, ...]:
    """The windows to try, narrowest first; exact costs need no room for chance."""
    return (window, STEP) if method.same_cost and window < STEP else (window,)


def _forecast(context: CalibrationContext, asked: Request) -> Forecast | None:
    """Costs without measuring every setting, for a method whose costs can be forecast."""
    probe = probe_for(asked.method, asked.knobs)
    if probe is None or asked.budget is None:
        return None
    images = context.images.costs or context.images
    label = f"{asked.row.label:<24}"
    with tqdm(total=len(images), desc=label, unit="img", disable=None, leave=False) as bar:
        images.look(probe, bar.update)
    adapter = adapter_of(context.session.backbone)
    return CostForecast(probe, adapter.cost, adapter.anatomy)


# ---- rows that get their point from elsewhere


def by_hand(row: MethodSpec) -> Calibrated:
    """A row as it is given, with a remark if it could have been calibrated."""
    point = {name: row.options[name] for name in row.given}
    if row.macs_pct is None or not point:
        return Calibrated(row, point=point)
    said = f"Given by hand, not calibrated: {in_words(point)}."
    return Calibrated(replace(row, note=join(row.note, said)), point=point)


def untuned(row: MethodSpec) -> Calibrated:
    """A row whose options would be chosen by labels, without labels: it gets their first values."""
    first = {name: values[0] for name, values in row.open_grid.items()}
    said = f"Not tuned, for want of training images: {in_words(first)}."
    return Calibrated(row.with_options(first, note=join(row.note, said)), point=first)


def with_points(rows: Sequence[MethodSpec], done: Sequence[Calibrated]) -> list[Calibrated]:
    """The rows, those with `point_of` at the points of the rows that they name."""
    source = {row.label: c for row, c in zip(rows, done, strict=True)}
    return [c if c.row.point_of is None else _like(c, source[c.row.point_of]) for c in done]


def _like(own: Calibrated, other: Calibrated) -> Calibrated:
    """A row at the point of another; options that it sets itself stay."""
    row = own.row
    if other.reason is not None:
        return Calibrated(row, f"it has the point of {other.row.label}, which has none")
    point = {k: v for k, v in other.point.items() if k not in row.given}
    if not point:
        return own
    said = f"The point of {other.row.label}: {in_words(point)}; its cost falls where it falls."
    return Calibrated(row.with_options(point, note=join(row.note, said)), point=point)
