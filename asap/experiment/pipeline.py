"""From a spec to records: the file to read first.

    spec -> session (backbone, data, store) -> per row: accuracy, then throughput -> results

A row that has its record already is not done again; one that was interrupted continues where it
stopped; one that fails leaves the others alone. Under torchrun this is the leader's program, and
the workers evaluate their share of a row's images (measure/workers.py).
"""

import logging
import time
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime

import pandas as pd

from asap.core.macs import backbone_macs
from asap.engine.executor import ReducedViT
from asap.errors import RequestError
from asap.experiment.failure import note_failure, refuse_unreadable
from asap.experiment.shared_pass import share
from asap.experiment.throughput_rows import measure_speed, refuse_timing
from asap.measure import workers
from asap.measure.accuracy import evaluate
from asap.measure.joint_evaluation import Evaluation
from asap.measure.processes import size
from asap.measure.progress import progress
from asap.measure.session import (
    DTYPES,
    NOTHING_SHARED,
    Session,
    config_of,
)
from asap.measure.traces import costs, metrics_of
from asap.methods import Method
from asap.records.key import key_of
from asap.records.kinds import ACCURACY
from asap.records.schema import AccuracyRecord, environment
from asap.records.store import Cell
from asap.records.tables import Evaluated, frame_of, matrix
from asap.report.result import Result, unmeasured
from asap.spec.run_spec import MethodSpec, RunSpec
from asap.tasks.classification import Classification

log = logging.getLogger("asap")


def run(spec: RunSpec, lender: Session | None = None) -> tuple[Session, list[Result]]:
    """Measure every row of a spec that has no record yet; the results of all rows, in order.

    Raises RequestError for a request that cannot be carried out; a row that fails otherwise carries
    the reason in its result. `lender`: a session with the same backbone and data.
    """
    refuse_timing(spec)
    session = Session(spec, lender)
    workers.meet(session)
    share(session)
    results = []
    for row, method in zip(spec.rows, session.methods, strict=True):
        result = unmeasured(spec, row, ours=method.extension)
        result = replace(result, config=config_of(spec, row))
        if spec.measure.accuracy:
            result = _attempt(session, row, method, result)
        results.append(result)
    if spec.measure.throughput:
        # Workers wait without work: nothing runs beside what is timed.
        results = measure_speed(session, results)
    return session, results


def _attempt(session: Session, row: MethodSpec, method: Method, result: Result) -> Result:
    """The row with its accuracy record, or with the reason why it has none."""
    cell = session.store.cell(key_of(session.identity(method)))
    try:
        with ExitStack() as held:
            if not _is_recorded(session, cell, held):
                _measure(session, row, method, cell)
        return _found(session, result, cell)
    except RequestError:
        raise
    except Exception as error:  # the other rows go on; the failure is recorded and listed
        return replace(result, reason=note_failure(cell, row.label, error))


def _is_recorded(session: Session, cell: Cell, held: ExitStack) -> bool:
    """Whether there is a record already. The cell stays locked until `held` is closed.

    Images that could not be read are tried again, whatever the reason was: a record is final where
    they still cannot be, else it lacks them.
    """
    held.enter_context(cell.lock())
    if cell.key not in session.shared:  # whose images were tried a moment ago
        cell.drop_failed()
    record = cell.record("accuracy")
    if record is None or not record["n_failed"]:
        return record is not None
    failed = cell.failed()
    if not (again := session.readable(failed)):
        return True
    log.info("%s: %d of %d failed images can be read now", cell.key, len(again), len(failed))
    cell.reopen(again)
    return False


def _found(session: Session, result: Result, cell: Cell) -> Result:
    """The row with its record as this run calls it, whoever recorded the same numbers before, once
    its tables are seen to be sound. RequestError where data.strict and an image could not be read.
    """
    ref = replace(result.ref, records={"accuracy": cell.key})
    found = Result.from_store(session.store, ref)
    answers, _ = found.answers(), found.traces()
    if session.spec.data.strict:
        refuse_unreadable(answers)
    record = {**found.measured, **session.about_data}
    return replace(found.with_records(accuracy=record), config=result.config)


def _measure(session: Session, row: MethodSpec, method: Method, cell: Cell) -> None:
    """Evaluate one row and write its record."""
    spec, data = session.spec, session.data
    task = Classification(data.scored)
    dtype = DTYPES[spec.precision]
    how = Evaluation(spec.batch_size, spec.workers, session.device, dtype, task, spec.shard_seconds)
    model = ReducedViT(session.backbone, method)
    started = time.monotonic()
    with progress(row.label, len(data)) as bar:
        spread = workers.spread(session, row, model, cell, how, bar.update)
        evaluated = evaluate(model, data, cell, how, bar.update, spread)
    _record(session, row, model, cell, how, evaluated, started)


def _record(
    session: Session,
    row: MethodSpec,
    model: ReducedViT,
    cell: Cell,
    how: Evaluation,
    evaluated: Evaluated,
    started: float,
) -> None:
    """Write the record of a row that is evaluated."""
    spec, data, method = session.spec, session.data, model.method
    answers, traces = frame_of(evaluated.answers), frame_of(evaluated.traces)
    _refuse_none(answers, cell)
    earlier = session.shared.get(cell.key, NOTHING_SHARED)
    record = AccuracyRecord(
        schema_version=ACCURACY.version,
        key=cell.key,
        identity=session.identity(method),
        label=row.label,
        metrics=metrics_of(method, traces),
        backbone=spec.backbone.shown,
        weights=session.weights_record,
        preprocessing_from=session.preprocessing_from,
        parameters=sum(p.numel() for p in session.backbone.parameters()),
        **session.about_data,
        **how.task.score(answers, data.clustered),
        **costs(traces, method.reduces),
        gmacs_no_attention=_without_attention(model, traces),
        precision=spec.precision,
        device=session.device.type,
        seed=spec.seed,
        environment={**environment(), "processes": size()},
        seconds=round(time.monotonic() - started + earlier.seconds, 3),
        batch_size=spec.batch_size,
        batch_halved=how.halved + earlier.halved,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    cell.finish("accuracy", config_of(spec, row), record, evaluated)


def _refuse_none(answers: pd.DataFrame, cell: Cell) -> None:
    """RequestError if no image could be read: no number comes from no image.

    A row whose answers are all not finite is a row: 0.00 % of them are right, and the next run
    would find the same.
    """
    errors = answers["error"]
    if errors.isna().any():
        return
    cell.discard_shards()  # what is repaired may look the same from outside
    raise RequestError(
        f"none of the {len(errors)} images could be read; {answers['path'][0]}: {errors[0]}: "
        "check data.path"
    )


def _without_attention(model: ReducedViT, traces: pd.DataFrame) -> float:
    """Mean GMACs of the backbone in the convention that leaves out the attention products."""
    tokens = matrix(traces, "vision.tokens")
    macs = backbone_macs(model.trunk.cost, tokens, model.method.position, attention_products=False)
    return float(macs.sum()) / len(macs) / 1e9
