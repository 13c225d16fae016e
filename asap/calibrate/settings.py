"""The settings of one row on the calibration images, each measured once and written down."""

from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

from asap.calibrate.bench import Bench, Race
from asap.calibrate.budget import Budget, Forecast, Point
from asap.calibrate.preset import Files
from asap.engine.executor import ReducedViT
from asap.errors import RequestError
from asap.methods import build
from asap.spec.run_spec import MethodSpec


class Settings:
    """Called with options, gives their point; None for options that do not fit together.

    A setting that was left early is measured again where it matters: when asked for in full, or
    when its cost meets the budget after all. `forecast`: costs that need not be measured.
    """

    bar: tqdm
    budget: Budget | None = None

    def __init__(
        self,
        bench: Bench,
        row: MethodSpec,
        files: Files,
        race: Race | None,
        forecast: Forecast | None = None,
    ) -> None:
        self.bench, self.row, self.files, self.race = bench, row, files, race
        self.forecast = forecast
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
            known = self.forecast(options) if self.forecast is not None else None
            point = Point(options, *self.bench.measure(setting, budget, race, known))
        self.known[_name(options)] = self.points[_name(options)] = point
        self.files.write_settings(self.points.values())
        self.bar.total = max(self.bar.total or 0, len(self.points))
        self.bar.update(1)
        return point

    def _matters(self, point: Point, early: bool) -> bool:
        return not early or self.budget is None or self.budget.holds(point.macs_pct)


def _name(options: Mapping[str, Any]) -> str:
    return repr(sorted(options.items()))
