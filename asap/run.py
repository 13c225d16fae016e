"""The command line: compose a config, run it, print the table.

    python -m asap.run experiment=demo
    python -m asap.run backbone=deit_base method=asap data=imagenet data.path=/data/imagenet
    python -m asap.run -m method=asap method.tau=2.5,3,3.5 method.clusters=4,6,8
    python -m asap.run experiment=matched_macs budget=-25
    torchrun --nproc-per-node=8 -m asap.run experiment=imagenet_deit_base data.path=/data/imagenet

With calibrate.macs_pct every row is first brought to that MACs budget, on calibration images.
Exit codes: 0 done; 1 some cells failed (listed; the others are recorded); 2 the request is wrong.
"""

import logging
from dataclasses import replace

from asap import ranks
from asap.calibrate.rows import at_budget
from asap.command import command
from asap.multirun import Job
from asap.output import line_of, mirror, show, write_outputs
from asap.report.result import CellResult
from asap.runner import run
from asap.runs.spec import RunSpec
from asap.session import Session

log = logging.getLogger("asap")
SET_APART = ("method.", "budget=", "calibrate.")  # options that labels of a multirun show


def main() -> None:
    """Run and exit with the code that the module's docstring lists."""
    command(work, show_jobs)


def work(spec: RunSpec, job: Job) -> None:
    """Run a spec and print its table, in a multirun a line for each row.

    A row that cannot reach the budget did not fail: the table says why it has no numbers.
    """
    calibrated = spec.calibrate.macs_pct is not None
    ready, missing = ranks.agreed(lambda: at_budget(spec)) if calibrated else (spec, {})
    session, results = run(ready)
    job.failed = [f"{r.label}: {r.reason}" for r in results if r.reason]
    for i, reason in missing.items():
        row = spec.rows[i]
        results.insert(
            i, CellResult(row.label, row.paper, row.ours, None, None, None, reason, row.note)
        )
    job.spec, job.results = ready, results
    if ranks.rank():  # rank 0 has the records
        return
    mirror(spec, results)
    if not job.several:
        show(write_outputs(session, results))
    for result in _set_apart(job) if job.several else []:
        if result.records:
            log.info("%s", line_of(result))


def show_jobs(jobs: list[Job]) -> None:
    """The tables of a multirun, one for each group of rows that can be compared."""
    groups: dict[tuple[str, ...], tuple[RunSpec, list[CellResult]]] = {}
    for job in jobs:
        if (spec := job.spec) is not None:
            group = (
                spec.title,
                spec.backbone.name,
                str(spec.data),
                spec.precision,
                str(spec.limit),
            )
            _add(groups.setdefault(group, (spec, []))[1], _set_apart(job))
    for spec, results in groups.values():
        show(write_outputs(Session(spec), results, f"{spec.title} (multirun)"))


def _set_apart(job: Job) -> list[CellResult]:
    """A job's results with the options in their labels that were given to it."""
    given = [o.removeprefix("method.") for o in job.overrides if o.startswith(SET_APART)]
    suffix = f" {', '.join(given)}" if given else ""
    return [r if r.is_dense else replace(r, label=r.label + suffix) for r in job.results]


def _add(kept: list[CellResult], results: list[CellResult]) -> None:
    """Keep what is recorded, each record once, and what no budget can reach."""
    for result in results:
        unreachable = result.reason and result.reason.startswith("unreachable")
        new = result.records and all(result.key != other.key for other in kept)
        if unreachable or new:
            kept.append(result)


if __name__ == "__main__":
    main()
