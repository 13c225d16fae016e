"""What the rows of a calibration share: the images, each row's budget, knobs and key."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import cached_property
from typing import Any

from asap.backbones.accepted import trunk_of
from asap.calibrate.bench import Bench
from asap.calibrate.budget import Budget
from asap.calibrate.images import blind, calibration_spec, cost_spec
from asap.data.base import DataSet
from asap.errors import RequestError
from asap.measure.session import DTYPES, Session
from asap.methods import Method
from asap.methods.search_space import Knob
from asap.spec.run_spec import MethodSpec, RunSpec

log = logging.getLogger("asap")
CALIBRATION_VERSION = 3  # raised by hand when the same request finds another setting


@dataclass
class Images:
    """The calibration images, read when they are first needed, once for all rows.

    blind: no label is looked at. costs: more images, on which MACs are met.
    """

    session: Session
    blind: bool
    costs: DataSet | None = None

    @cached_property
    def bench(self) -> Bench:
        log.info("calibration: %s", self.session.data.description)
        if self.costs is None:
            return self._bench(self.session.data, self.blind, None)
        log.info("its costs: %s", self.costs.description)
        return self._bench(self.session.data, False, self._bench(self.costs, True, None))

    @property
    def unread(self) -> list[list[int]]:
        """Positions of images that could not be read: of the calibration, of its costs."""
        costs = self.bench.costs
        return [self.bench.unread, [] if costs is None else costs.unread]

    def readable(self, unread: Sequence[Sequence[int]]) -> bool:
        """Whether any of the images that once could not be read can be read now."""
        calibration, costs = unread or ((), ())
        if self.session.readable(calibration):
            return True
        return self.costs is not None and any(self.costs[i].image is not None for i in costs)

    def _bench(self, data: DataSet, without_labels: bool, costs: Bench | None) -> Bench:
        s = self.session
        arguments = (s.spec.batch_size, s.spec.workers, s.device, DTYPES[s.spec.precision])
        return Bench(s.backbone, data, *arguments, without_labels, costs)


@dataclass
class Room:
    """The images with the budget of one row."""

    images: Images
    budget: Budget | None = None

    @classmethod
    def of_run(cls, spec: RunSpec, budgeted: bool) -> "Room":
        """Of a run whose rows have a budget, or not: then no labels are no reason for a slice."""
        without = blind(spec)
        if without and not budgeted:
            return cls(Images(Session(spec), True))
        session, costs = Session(calibration_spec(spec)), cost_spec(spec)
        return cls(Images(session, without, None if costs is None else session.data_of(costs)))

    @property
    def session(self) -> Session:
        return self.images.session

    @property
    def spec(self) -> RunSpec:
        return self.session.spec

    @property
    def blind(self) -> bool:
        return self.images.blind

    @property
    def costs(self) -> DataSet | None:
        return self.images.costs

    @property
    def bench(self) -> Bench:
        return self.images.bench

    def of(self, row: MethodSpec) -> "Room":
        """The same for a row: with its budget."""
        c = self.spec.calibrate
        macs_pct = c.macs_pct if row.budget is None else row.budget
        return replace(self, budget=None if macs_pct is None else Budget(macs_pct, c.window))


def check_grid(room: Room) -> None:
    """RequestError for a name in `calibrate.grid` that no row has, with a value that is no list."""
    known = {f.name for method in room.session.methods for f in fields(method)}
    for name, values in (room.spec.calibrate.grid or {}).items():
        if name not in known:
            raise RequestError(f"calibrate.grid has {name!r}, which is an option of no row")
        if not isinstance(values, list) or not values:
            raise RequestError(f"calibrate.grid.{name}={values!r} is not a list: give its values")


def knobs_of(room: Room, row: MethodSpec, method: Method) -> list[Knob]:
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


def identity_of(room: Room, method: Method, knobs: list[Knob]) -> dict[str, Any]:
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
        **({} if room.costs is None or method.same_cost else {"costs": room.costs.digest}),
        "knobs": [asdict(knob) for knob in knobs],
    }
