"""The command line: compose a config, run it, print the table.

    python -m asap.run experiment=demo
    python -m asap.run backbone=deit_base method=asap data=imagenet data.path=/data/imagenet
    python -m asap.run -m method=asap method.tau=2.5,3,3.5 method.clusters=4,6,8
    python -m asap.run experiment=matched_macs budget=-25

With calibrate.macs_pct every row is first brought to that MACs budget, on calibration images, as
is a row with a budget of its own (macs_pct).
Exit codes: 0 done; 1 some cells failed (listed; the others are recorded); 2 the request is wrong.
"""

import logging
from dataclasses import dataclass, field, replace

from asap.apart import insert_rows, without_apart
from asap.calibrate.rows import at_budget
from asap.command import command, overrides
from asap.errors import RequestError
from asap.output import line_of, mirror, show, write_outputs
from asap.report.result import CellResult, unmeasured
from asap.runner import run
from asap.runs.spec import RunSpec
from asap.session import Session

log = logging.getLogger("asap")
SET_APART = ("method.", "budget=", "calibrate.")  # options that labels of a multirun show


@dataclass
class Shared:
    """Rows of several jobs that stand in one table, and a session with their images."""

    session: Session | None = None
    results: list[CellResult] = field(default_factory=list)


Sweep = dict[tuple[str, ...], Shared]  # by what can be compared


def main() -> None:
    """Run and exit with the code that the module's docstring lists."""
    sweep: Sweep = {}
    command(lambda spec: job(spec, sweep), lambda: _show_sweep(sweep))


def job(spec: RunSpec, sweep: Sweep) -> list[str]:
    """Run a spec and print its table; the rows that failed. A row that cannot reach its budget, or
    lacks a checkpoint, did not fail: the table says why it has no numbers. In a multirun the rows
    are kept in `sweep`; a block of a shared table keeps its place in it when it is refused.
    """
    given = overrides()
    try:
        session, results, failed = _measured(spec)
    except RequestError as error:
        if given is not None and spec.table:
            _block(sweep, spec).results += [unmeasured(spec, r, str(error)) for r in spec.rows]
        raise
    mirror(spec, results)
    if given is None or spec.table:
        show(write_outputs(session, results))
    if given is not None and spec.table:
        block = _block(sweep, spec)
        block.session = block.session or session
        block.results += results
    elif given is not None:
        _keep(sweep, session, results, [o for o in given if o.startswith(SET_APART)])
    return failed


def _measured(spec: RunSpec) -> tuple[Session, list[CellResult], list[str]]:
    """The session, the results of all rows, and those that failed."""
    ready, missing = at_budget(without_apart(spec))
    session, results = run(ready)
    failed = [f"{r.label}: {r.reason}" for r in results if r.reason]
    return session, insert_rows(spec, ready, missing, results, lambda own: run(own)[1]), failed


def _block(sweep: Sweep, spec: RunSpec) -> Shared:
    """The table that this run is a block of, told apart from others by images and precision."""
    return sweep.setdefault((str(spec.table), str(spec.data), spec.precision), Shared())


def _show_sweep(sweep: Sweep) -> None:
    """The tables of a multirun, one for each group of rows that can be compared."""
    for shared in sweep.values():
        if shared.session is not None:
            spec = shared.session.spec
            title = spec.table or f"{spec.title} (multirun)"
            show(write_outputs(shared.session, shared.results, title))


def _keep(sweep: Sweep, session: Session, results: list[CellResult], options: list[str]) -> None:
    """Say in a line how a job of a multirun went; its rows join one table at the end."""
    spec = session.spec
    suffix = ", ".join(o.removeprefix("method.") for o in options)
    group = (spec.title, spec.backbone.name, str(spec.data), spec.precision, str(spec.limit))
    kept = sweep.setdefault(group, Shared(session)).results
    for result in results:
        if not result.is_dense and suffix:
            result = replace(result, label=f"{result.label} {suffix}")
        if result.reason and result.reason.startswith("unreachable"):
            kept.append(result)
        elif result.records and all(result.key != other.key for other in kept):
            kept.append(result)
            log.info("%s", line_of(result))


if __name__ == "__main__":
    main()
