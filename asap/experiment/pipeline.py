"""From specs to published results, in the order in which things happen: the file to read first.

    specs -> head of videos -> rows -> calibrated rows -> accuracy, speeds -> separate rows
        -> tables, mirrors

A row that has its record is not measured again; an interrupted one continues where it stopped; one
that fails does not affect the others. Under torchrun this is the leader's program, and the workers
evaluate their share of a row's images (measure/workers.py).
"""

import logging
from collections.abc import Sequence
from dataclasses import replace

from asap.calibrate import at_budget
from asap.data.open import refuse_lost
from asap.errors import RequestError
from asap.experiment.accuracy_rows import Accuracy
from asap.experiment.cost_rows import Cost
from asap.experiment.head import with_head
from asap.experiment.job import Job
from asap.experiment.latency_rows import Latency
from asap.experiment.measurement import Measurement, wanted_of
from asap.experiment.rows import Row, among
from asap.experiment.separate_rows import (
    on_left_out_images,
    refuse_lost_checkpoints,
    with_own_checkpoint,
)
from asap.experiment.shared_pass import share, share_ahead
from asap.experiment.throughput_rows import Throughput
from asap.measure import workers
from asap.measure.in_memory import InMemory
from asap.measure.session import Session
from asap.publish.run_outputs import free_title, line_of, mirror, show, write_outputs
from asap.report.budget_misses import note_misses
from asap.report.result import Result, unmeasured
from asap.spec.check import refuse_one_picture
from asap.spec.run_spec import RunSpec

log = logging.getLogger("asap")
# In this order. Timing comes last, so that its errors cost no other record. Under torchrun the
# workers wait during it, and nothing else is running.
MEASUREMENTS: tuple[Measurement, ...] = (Accuracy(), Cost(), Throughput(), Latency())


def evaluate(jobs: Sequence[Job], memory: InMemory) -> None:
    """Do the jobs of a command one after the other, publish each, and write the outcome into it.

    A job that is refused or fails does not affect the others. memory: backbones and data sets that
    jobs share.
    """
    titles: set[str] = set()
    for number, job in enumerate(jobs):
        with job.attempt():
            later = [other.spec for other in jobs[number + 1 :] if other.spec is not None]
            _evaluate(job, later, memory, titles)
        job.ended = True


def _evaluate(job: Job, later: list[RunSpec], memory: InMemory, titles: set[str]) -> None:
    """Do one job. If it is refused, its rows stay in a shared table, with the reason."""
    asked = job.spec
    assert asked is not None
    try:
        refuse_one_picture(asked)
        refuse_lost_checkpoints(asked)
        _refuse_lost_data(asked)
        given, asked = asked, with_head(asked, memory)
        heads = [replace(o, head=asked.head) if o.head == given.head else o for o in later]
        share_ahead(asked, heads, memory)
        spec, rows = _at_budgets(asked, memory)
        session = Session(spec, memory)
        rows = among(rows, _with_the_others, lambda chosen: _measured(session, chosen))
        rows = _with_left_out(rows, memory)
        rows = [row if row.method.needs is None else _separately(row, memory) for row in rows]
        rows = _with_misses(rows)
    except RequestError as error:
        if asked.table:
            job.results = [unmeasured(asked, method, str(error)) for method in asked.rows]
        raise
    job.spec, job.results = spec, [row.result for row in rows]
    failed = job.labelled([row.result for row in rows if row.failed])
    job.failed = [f"{result.label}: {result.reason}" for result in failed]
    _publish(session, job, titles)


def _refuse_lost_data(spec: RunSpec) -> None:
    """RequestError if the data that a run reads are not there; costs need none."""
    needed = (one for one in MEASUREMENTS if one.kind is not Cost.kind)
    if spec.head is not None or any(one.wanted(spec) for one in needed):
        refuse_lost(spec.data)


def run(spec: RunSpec, memory: InMemory | None = None) -> tuple[Session, list[Result]]:
    """Measure the rows of a spec; returns its session and their results.

    Nothing is calibrated or published: all options must be given, and all rows use the same
    weights. Raises RequestError for a request that cannot be carried out; after any other error the
    row's result has the reason.
    """
    memory = memory or InMemory()
    spec = with_head(spec, memory)
    session = Session(spec, memory)
    rows = _measured(session, [Row.of(spec, method) for method in spec.rows])
    return session, [row.result for row in rows]


# ---- the steps: rows in, rows out


def _at_budgets(spec: RunSpec, memory: InMemory) -> tuple[RunSpec, list[Row]]:
    """All rows at their own budgets or `calibrate.macs_pct`, and the spec to evaluate them under.

    It has the images that calibration leaves for evaluation, and the rows that reach their budget.
    Rows with their own checkpoint are not calibrated.
    """
    others = [method for method in spec.rows if method.needs is None]
    ready, points = at_budget(replace(spec, rows=tuple(others)), memory)
    reached = replace(ready, rows=tuple(point.row for point in points if point.reason is None))

    def to_points(rows: list[Row]) -> list[Row]:
        return [
            Row.of(reached, point.row) if point.reason is None else row.without(point.reason)
            for row, point in zip(rows, points, strict=True)
        ]

    rows = [Row.of(reached, method) for method in spec.rows]
    return reached, among(rows, lambda row: row.method.needs is None, to_points)


def _with_the_others(row: Row) -> bool:
    """True if a row is measured together with others, with their backbone."""
    return row.open and row.method.needs is None


def _measured(session: Session, rows: list[Row]) -> list[Row]:
    """The rows with all of their records."""
    wanted = wanted_of(MEASUREMENTS, session.spec)
    if not wanted:  # the run makes the head alone
        return rows
    workers.meet(session)
    share(session)
    rows = [row.begun() for row in rows]
    for measurement in wanted:
        rows = measurement.measure(session, rows)
    return rows


def _with_left_out(rows: list[Row], memory: InMemory) -> list[Row]:
    """The rows; the baseline's also has its record on the images that calibration took."""
    dense = next((row for row in rows if row.result.is_dense and row.result.accuracy), None)
    spec = None if dense is None else on_left_out_images(dense)
    if spec is None or dense is None:
        return rows
    _, (left_out,) = run(spec, memory)
    whole = replace(dense, result=replace(dense.result, left_out=left_out.accuracy))
    return [whole if row is dense else row for row in rows]


def _separately(row: Row, memory: InMemory) -> Row:
    """A row with its own weights, measured on the images of the other rows.

    If its checkpoint is not given, the reason names what it needs.
    """
    if row.method.file is None:
        return row.without(f"it needs {row.method.needs}")
    spec = with_own_checkpoint(row.spec, row.method)
    (own,) = _measured(Session(spec, memory), [Row.of(spec, spec.rows[0])])
    return replace(own, result=replace(own.result, own_weights=True))


def _with_misses(rows: list[Row]) -> list[Row]:
    """The rows, with a note on those that miss their budget on these images."""
    dense = [row.result for row in rows if row.result.is_dense][:1]

    def noted(row: Row) -> Row:
        asked = row.spec.calibrate.macs_pct if row.method.point_of is None else None
        budget = asked if row.method.budget is None else row.method.budget
        if budget is None:
            return row
        return replace(row, result=note_misses([*dense, row.result], budget)[-1])

    return [noted(row) for row in rows]


def _publish(session: Session, job: Job, titles: set[str]) -> None:
    """Copy the rows to dashboards, then print and write the table.

    In a multirun, jobs that share a table write their blocks of it to separate files; the others
    print a line for each row, and their tables are made at the end.
    """
    mirror(session, job.labelled(job.results))
    if session.spec.table or not job.several:
        show(write_outputs(session, job.results, free_title(session.spec.title, titles)))
        return
    for result in job.labelled(job.results):
        if result.records:
            log.info("%s", line_of(result))
