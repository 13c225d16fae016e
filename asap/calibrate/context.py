"""The images that the rows of a calibration share, and the request for each of its rows."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

from asap.backbones.accepted import adapter_of
from asap.calibrate.calibration_images import blind, calibration_spec, cost_spec
from asap.calibrate.calibration_set import CalibrationSet
from asap.calibrate.space_walk import Budget
from asap.data.base import DataSet
from asap.errors import RequestError
from asap.measure.in_memory import InMemory
from asap.measure.session import Session
from asap.methods import Method
from asap.methods.search_space import SearchDimension
from asap.records.identity import VISION
from asap.spec.run_spec import MethodSpec, RunSpec

log = logging.getLogger("asap")
CALIBRATION_VERSION = 3  # raised by hand when the same request finds another setting


@dataclass(frozen=True)
class Request:
    """What to find for one row: values of `knobs`, at `budget` if there is one."""

    row: MethodSpec
    method: Method
    knobs: tuple[SearchDimension, ...]
    budget: Budget | None


@dataclass
class CalibrationContext:
    """The calibration images of a run; they are read when first needed, once for all rows.

    session: the run with its calibration images in place of its evaluation images.
    blind: labels are not looked at. costs: more images, on which costs are measured, if any.
    """

    session: Session
    blind: bool
    costs: DataSet | None = None

    @classmethod
    def of_run(cls, spec: RunSpec, budgeted: bool, memory: InMemory) -> "CalibrationContext":
        """The context of a run; `budgeted`: a row has a budget.

        Without budgets and without labels there is nothing to find: the session then keeps the
        run's own images.
        """
        without = blind(spec)
        if without and not budgeted:
            return cls(Session(spec, memory), True)
        session, costs = Session(calibration_spec(spec), memory), cost_spec(spec)
        return cls(session, without, None if costs is None else session.data_of(costs))

    @cached_property
    def images(self) -> CalibrationSet:
        """The images in memory. Raises RequestError if none can be read."""
        log.info("calibration: %s", self.session.data.description)
        if self.costs is None:
            return self._read(self.session.data, self.blind, None)
        log.info("its costs: %s", self.costs.description)
        return self._read(self.session.data, False, self._read(self.costs, True, None))

    def _read(
        self, data: DataSet, without_labels: bool, costs: CalibrationSet | None
    ) -> CalibrationSet:
        s = self.session
        how = s.evaluation()
        where = (how.batch_size, how.workers, how.device, how.dtype, how.task)
        # a setting sees a few batches: recording them would take longer than running them
        backend = s.backend(graphs=False)
        return CalibrationSet(s.backbone, data, *where, without_labels, costs, backend)

    def unread(self) -> list[list[int]]:
        """Positions of images that could not be read: of the calibration images, of `costs`."""
        costs = self.images.costs
        return [self.images.unread, [] if costs is None else costs.unread]

    def readable(self, unread: Sequence[Sequence[int]]) -> bool:
        """True if any of the images that could not be read before can be read now."""
        calibration, costs = unread or ((), ())
        if self.session.readable(calibration):
            return True
        return self.costs is not None and any(self.costs[i].inputs is not None for i in costs)

    def check_grid(self) -> None:
        """RequestError if a name in `calibrate.grid` has no list, or is an option of no row."""
        known = {f.name for method in self.session.methods for f in fields(method)}
        for name, values in (self.session.spec.calibrate.grid or {}).items():
            if name not in known:
                raise RequestError(f"calibrate.grid has {name!r}, which is an option of no row")
            if not isinstance(values, list) or not values:
                raise RequestError(
                    f"calibrate.grid.{name}={values!r} is not a list: give its values"
                )

    def request(self, row: MethodSpec, method: Method) -> Request:
        """The request for a row: its own budget, else the run's, and its knobs."""
        asked = self.session.spec.calibrate
        macs_pct = asked.macs_pct if row.budget is None else row.budget
        budget = None if macs_pct is None else Budget(macs_pct, asked.window)
        return Request(row, method, self._knobs(row, method, budget), budget)

    def _knobs(
        self, row: MethodSpec, method: Method, budget: Budget | None
    ) -> tuple[SearchDimension, ...]:
        """The method's knobs; grids of the row and of `calibrate.grid` replace their own.

        Without a budget only the knobs of the row; also for a row with its own budget and options.
        """
        grid = {**row.open_grid, **(self.session.spec.calibrate.grid or {})}
        if budget is None or (row.budget is not None and row.given):
            return tuple(SearchDimension(name, tuple(grid[name])) for name in row.open_grid)
        anatomy = adapter_of(self.session.backbone).anatomy
        found = tuple(
            replace(knob, grid=tuple(grid[knob.name]), beyond=()) if knob.name in grid else knob
            for knob in (method.search_space(anatomy) if method.reduces else ())
        )
        own = {f.name for f in fields(method)} - {knob.name for knob in found}
        return found + tuple(
            SearchDimension(name, tuple(grid[name])) for name in grid if name in own
        )

    def identity(self, asked: Request) -> dict[str, Any]:
        """Exactly what changes the setting that is found, so not the values of knobs before it."""
        identity = self.session.identity(asked.method)
        turned = {knob.name for knob in asked.knobs}
        about = identity["methods"][VISION]
        options = {k: v for k, v in about["options"].items() if k not in turned}
        apart = None if asked.method.same_cost else self.costs
        return {
            **identity,
            "methods": {VISION: {**about, "options": options}},
            "calibration": CALIBRATION_VERSION,
            "budget": None if asked.budget is None else asdict(asked.budget),
            **({"blind": True} if self.blind else {}),
            **({} if apart is None else {"costs": apart.digest}),
            "knobs": [asdict(knob) for knob in asked.knobs],
        }
