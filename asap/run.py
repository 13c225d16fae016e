"""The command line: compose a config, run it, print the table.

    python -m asap.run experiment=demo
    python -m asap.run backbone=deit_base method=asap data=imagenet data.path=/data/imagenet
    python -m asap.run -m method=asap method.tau=2.5,3,3.5 method.clusters=4,6,8
    python -m asap.run experiment=matched_macs budget=-25

With calibrate.macs_pct every row is first brought to that MACs budget, on calibration images.
Exit codes: 0 done; 1 some cells failed (listed; the others are recorded); 2 the request is wrong.
"""

import logging
from dataclasses import replace

from asap.calibrate.rows import at_budget
from asap.command import command, overrides
from asap.output import line_of, mirror, show, write_outputs
from asap.report.result import CellResult
from asap.runner import run
from asap.runs.spec import RunSpec
from asap.session import Session
from asap.shared import likeness, share_multirun

log = logging.getLogger("asap")
SET_APART = ("method.", "budget=", "calibrate.")  # options that labels of a multirun show
Sweep = dict[tuple[str, ...], tuple[Session, list[CellResult]]]  # by what can be compared


def main() -> None:
    """Run and exit with the code that the module's docstring lists."""
    sweep: Sweep = {}
    lenders: dict[str, Session] = {}

    def prepare(specs: list[RunSpec]) -> None:
        lenders.update(share_multirun(specs))

    command(
        lambda spec: job(spec, sweep, lenders.get(likeness(spec))),
        lambda: _show_sweep(sweep),
        prepare,
    )


def job(spec: RunSpec, sweep: Sweep, lender: Session | None = None) -> list[str]:
    """Run a spec and print its table; the rows that failed. A row that cannot reach the budget did
    not fail: the table says why it has no numbers. In a multirun the rows are kept in `sweep`.
    """
    ready, missing = (spec, {}) if spec.calibrate.macs_pct is None else at_budget(spec)
    session, results = run(ready, lender)
    failed = [f"{r.label}: {r.reason}" for r in results if r.reason]
    for i, reason in missing.items():
        row = spec.rows[i]
        results.insert(
            i, CellResult(row.label, row.paper, row.ours, None, None, None, reason, row.note)
        )
    mirror(spec, results)
    given = overrides()
    if given is None:
        show(write_outputs(session, results))
    else:
        _keep(sweep, session, results, [o for o in given if o.startswith(SET_APART)])
    return failed


def _show_sweep(sweep: Sweep) -> None:
    """The tables of a multirun, one for each group of rows that can be compared."""
    for session, results in sweep.values():
        show(write_outputs(session, results, f"{session.spec.title} (multirun)"))


def _keep(sweep: Sweep, session: Session, results: list[CellResult], options: list[str]) -> None:
    """Say in a line how a job of a multirun went; its rows join one table at the end."""
    suffix = ", ".join(o.removeprefix("method.") for o in options)
    spec = session.spec
    group = (spec.title, spec.backbone.name, str(spec.data), spec.precision, str(spec.limit))
    kept = sweep.setdefault(group, (session, []))[1]
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
