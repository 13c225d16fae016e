"""The search for one row's setting, with measured or forecast costs."""

import math
from dataclasses import replace

from tqdm import tqdm

from asap.backbones.accepted import trunk_of
from asap.calibrate.bench import Race
from asap.calibrate.budget import Forecast, Found
from asap.calibrate.choice import most_accurate, search, search_blind
from asap.calibrate.preset import Files
from asap.calibrate.room import Room
from asap.calibrate.settings import Settings
from asap.errors import RequestError
from asap.methods import Method
from asap.methods.search_space import Knob
from asap.shared_prefix.forecast import AsapForecast, probe_for
from asap.spec.run_spec import MethodSpec

STEP = 1.5  # points below the budget for a method whose settings are steps wider than the window


def search_row(
    room: Room, row: MethodSpec, method: Method, knobs: list[Knob], files: Files
) -> tuple[Found, float | None]:
    """The search, and the window it needed; continues from the settings that are written."""
    forecast = _forecast(room, row, method, knobs)
    known = None if room.costs is None else forecast  # of the very images, to the integer
    files = files.without(room.images.unread)
    settings = Settings(room.bench, row, files, _race(room, knobs), known)
    grid = math.prod(len(knob.grid) for knob in knobs if knob.grid) if forecast is None else None
    with tqdm(total=grid, desc=f"{row.label:<24}", unit="setting", disable=None) as settings.bar:
        found, window = _found(room, method, knobs, settings, forecast)
    if not found.points:
        raise RequestError(f"no setting of {row.label} can be built: {settings.refused[0]}")
    return found, window


def _found(
    room: Room, method: Method, knobs: list[Knob], settings: Settings, forecast: Forecast | None
) -> tuple[Found, float | None]:
    """What is found in the narrowest window that holds a setting, and that window."""
    if room.budget is None:
        return most_accurate(knobs, settings), None
    look = search_blind if room.blind else search
    found, window = Found(None, ()), room.budget.window
    for window in _windows(room.budget.window, method):
        settings.budget = replace(room.budget, window=window)
        found = look(knobs, settings.budget, settings, forecast)
        if found.point is not None:
            break
    return found, window


def _windows(window: float, method: Method) -> tuple[float, ...]:
    """Costs that are known exactly need no room for chance: a window as wide as their steps."""
    return (window, STEP) if method.same_cost and window < STEP else (window,)


def _forecast(room: Room, row: MethodSpec, method: Method, knobs: list[Knob]) -> Forecast | None:
    """Costs without measuring every setting, for a method that can say them."""
    probe = probe_for(method, knobs)
    if probe is None or room.budget is None:
        return None
    with tqdm(
        total=len(room.bench.costs or room.bench),
        desc=f"{row.label:<24}",
        unit="img",
        disable=None,
        leave=False,
    ) as bar:
        room.bench.look(probe, bar.update)
    trunk = trunk_of(room.session.backbone)
    return AsapForecast(probe, trunk.cost, trunk.anatomy)


def _race(room: Room, knobs: list[Knob]) -> Race | None:
    """What settings are left early by, where the best accuracy is what is looked for."""
    return Race() if several(knobs) and room.budget and not room.blind else None


def several(knobs: list[Knob]) -> bool:
    return sum(len(knob.grid) > 1 for knob in knobs) > 1
