"""The command line: compose a config, run it, print the table.

    python -m asap.run experiment=demo
    python -m asap.run backbone=deit_base method=asap data=imagenet data.path=/data/imagenet
    python -m asap.run -m method=asap method.tau=2.5,3,3.5 method.clusters=4,6,8
    python -m asap.run experiment=matched_macs budget=-25
    torchrun --nproc-per-node=8 -m asap.run experiment=imagenet_deit_base data.path=/data/imagenet

With calibrate.macs_pct every row is first brought to that MACs budget, on calibration images, as
is a row with a budget of its own (macs_pct).
Exit codes: 0 done; 1 some cells failed (listed; the others are recorded); 2 the request is wrong.
"""

import logging
from collections.abc import Mapping

from asap.calibrate import at_budget
from asap.cli.command import command
from asap.cli.jobs import Job
from asap.cli.multirun_tables import free_title, set_apart, show_jobs
from asap.errors import RequestError
from asap.experiment.pipeline import run
from asap.experiment.separate_rows import insert_rows, with_left_out, without_apart
from asap.experiment.shared_pass import likeness, share_multirun
from asap.measure.session import Session
from asap.publish.run_outputs import line_of, mirror, show, write_outputs
from asap.report.budget_misses import note_misses
from asap.report.result import Result, unmeasured
from asap.spec.run_spec import RunSpec

log = logging.getLogger("asap")


def main() -> None:
    """Run and exit with the code that the module's docstring lists."""
    lenders: dict[str, Session] = {}
    shown: set[str] = set()

    def prepare(specs: list[RunSpec]) -> None:
        lenders.update(share_multirun(specs))

    command(lambda spec, job: work(spec, job, lenders, shown), __doc__, show_jobs, prepare)


def work(spec: RunSpec, job: Job, lenders: Mapping[str, Session], shown: set[str]) -> None:
    """Run a spec and print its table; in a multirun a line for each row, unless the jobs share a
    table: then each prints its block of it, in files of its own. `shown`: see `free_title`.

    A row that cannot reach its budget, or lacks a checkpoint, did not fail: the table says why it
    has no numbers. A block that is refused keeps its place in a shared table.
    """
    job.spec = spec
    try:
        session = _measure(spec, job, lenders)
    except RequestError as error:
        if spec.table:
            job.results = [unmeasured(spec, row, str(error)) for row in spec.rows]
        raise
    mirror(session, set_apart(job, job.results))
    if spec.table or not job.several:
        show(write_outputs(session, job.results, free_title(spec.title, shown)))
        return
    for result in set_apart(job, job.results):
        if result.records:
            log.info("%s", line_of(result))


def _measure(spec: RunSpec, job: Job, lenders: Mapping[str, Session]) -> Session:
    """Bring the rows to their budgets and measure them; into `job`. `lenders`: by `likeness`, which
    calibration may change: its images are left out then.
    """
    ready, missing = at_budget(without_apart(spec))
    session, results = run(ready, lenders.get(likeness(ready)))
    job.failed = [f"{r.label}: {r.reason}" for r in set_apart(job, results) if r.reason]
    job.spec = ready
    results = with_left_out(ready, results, _results)
    shown = insert_rows(spec, ready, missing, results, _results)
    job.results = _with_misses(spec, shown)
    return session


def _results(spec: RunSpec) -> list[Result]:
    return run(spec)[1]


def _with_misses(spec: RunSpec, results: list[Result]) -> list[Result]:
    """The results, saying which of them miss their budget on these images."""
    dense = [result for result in results if result.is_dense][:1]
    shown = []
    for row, result in zip(spec.rows, results, strict=True):
        common = None if row.point_of is not None else spec.calibrate.macs_pct
        budget = common if row.budget is None else row.budget
        shown.append(result if budget is None else note_misses([*dense, result], budget)[-1])
    return shown
