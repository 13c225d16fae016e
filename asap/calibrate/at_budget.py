"""Calibrate the rows of a run to one MACs budget, each once: from its files if they are there."""

from dataclasses import replace

from asap.calibrate.found import head_of, note_of, preset_of, tell
from asap.calibrate.images import evaluation_spec
from asap.calibrate.points import Calibrated, by_hand, untuned, with_points
from asap.calibrate.preset import Files
from asap.calibrate.room import Room, check_grid, identity_of, knobs_of
from asap.calibrate.search import search_row
from asap.errors import RequestError
from asap.methods import Method
from asap.methods.search_space import Knob
from asap.records.key import key_of
from asap.spec.run_spec import MethodSpec, RunSpec


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
    room = Room.of_run(spec, _budgeted(spec))
    check_grid(room)
    return with_points(spec.rows, [_attempt(room, i) for i in range(len(spec.rows))])


def _budgeted(spec: RunSpec) -> bool:
    """Whether any row is to meet a budget."""
    return spec.calibrate.macs_pct is not None or any(row.budget for row in spec.rows)


def _asks(spec: RunSpec, row: MethodSpec) -> bool:
    """Whether calibration has anything to find for this row."""
    open_to = spec.calibrate.macs_pct is not None and row.point_of is None
    return open_to or row.budget is not None or bool(row.open_grid)


def _attempt(room: Room, index: int) -> Calibrated:
    row, method = room.spec.rows[index], room.session.methods[index]
    room = room.of(row)
    alone = sum(method.reduces for method in room.session.methods) < 2
    if not _asks(room.spec, row) or (not method.reduces and len(room.spec.rows) > 1):
        return by_hand(row)
    if room.budget is None and room.blind:
        return untuned(row)
    knobs = knobs_of(room, row, method)
    if not any(knob.grid for knob in knobs):
        reason = f"{row.label} {method.no_knobs}"
        if alone:
            raise RequestError(f"{reason}; or give calibrate.grid={{option: [value, value]}}")
        return Calibrated(row, f"unreachable: {reason}")
    return _calibrate_row(room, row, method, knobs)


def _calibrate_row(room: Room, row: MethodSpec, method: Method, knobs: list[Knob]) -> Calibrated:
    key = key_of(identity_of(room, method, knobs))
    folder = room.spec.results / "calibration"
    macs_pct = None if room.budget is None else room.budget.macs_pct
    files = Files.of(folder, room.spec.backbone.shown, row.label, macs_pct, key)
    preset = files.read_preset()
    if preset is None or room.images.readable(preset["found"].get("unread", ())):
        files.make_room()
        found, window = search_row(room, row, method, knobs, files)
        preset = preset_of(room, row, method, knobs, found, window, key)
        files.write_preset(head_of(row, found), preset)
    tell(row, preset)
    written = (files.preset, files.settings)
    options = preset["with"]
    if options is None and room.spec.calibrate.unreachable == "nearest":
        options = (preset["found"]["nearest"] or {}).get("with")
    if options is None:
        return Calibrated(row, preset["found"]["reason"], written)
    chosen = replace(row, options={**row.options, **options}, note=note_of(row, preset))
    return Calibrated(chosen, None, written, options)
