"""From a spec to records: the file to read first.

    spec -> session (backbone, data, store) -> per row: accuracy, then throughput -> results

A row that has its record already is not done again; one that was interrupted continues where it
stopped; one that fails leaves the others alone. Under torchrun this is the leader's program, and
the workers evaluate their share of a row's images (measure/workers.py).
"""

import logging
import time
from collections.abc import Callable
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
from asap.measure.accuracy import Evaluation, evaluate
from asap.measure.processes import size
from asap.measure.progress import progress
from asap.measure.session import (
    DTYPES,
    NOTHING_SHARED,
    Session,
    config_of,
    describe,
)
from asap.methods import Method
from asap.records.key import key_of
from asap.records.predictions import matrix
from asap.records.schema import SCHEMA_VERSION, AccuracyRecord, environment
from asap.records.store import Cell
from asap.report.result import Result, unmeasured
from asap.report.statistics import evaluated, summarise
from asap.spec.run_spec import MethodSpec, RunSpec

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
            record = _recorded(session, cell, held) or _measure(session, row, method, cell)
        predictions = _predictions(cell, session.spec.data.strict)
        # As this run calls them, whoever recorded the same numbers before.
        record = {**record, "label": row.label, **session.about_data}
        return replace(result, accuracy=record, predictions=predictions)
    except RequestError:
        raise
    except Exception as error:  # the other rows go on; the failure is recorded and listed
        return replace(result, reason=note_failure(cell, row.label, error))


def _recorded(session: Session, cell: Cell, held: ExitStack) -> AccuracyRecord | None:
    """What is recorded already. The cell stays locked until `held` is closed.

    Images that could not be read are tried again, whatever the reason was: a record is final where
    they still cannot be, else it lacks them.
    """
    held.enter_context(cell.lock())
    if cell.key not in session.shared:  # whose images were tried a moment ago
        cell.drop_failed()
    record = cell.accuracy()
    if record is None or not record["n_failed"]:
        return record
    failed = cell.failed()
    if not (again := session.readable(failed)):
        return record
    log.info("%s: %d of %d failed images can be read now", cell.key, len(again), len(failed))
    cell.reopen(again)
    return None


def _predictions(cell: Cell, strict: bool) -> Callable[[], pd.DataFrame]:
    """What reads the recorded predictions, once they are seen to be sound. RequestError where
    `strict` and an image could not be read.
    """
    found = cell.predictions()
    if strict:
        refuse_unreadable(found)
    return cell.predictions


def _measure(session: Session, row: MethodSpec, method: Method, cell: Cell) -> AccuracyRecord:
    """Evaluate one row and write its record."""
    spec, data = session.spec, session.data
    dtype = DTYPES[spec.precision]
    how = Evaluation(
        spec.batch_size, spec.workers, session.device, dtype, spec.shard_seconds, scored=data.scored
    )
    model = ReducedViT(session.backbone, method)
    started = time.monotonic()
    with progress(row.label, len(data)) as bar:
        spread = workers.spread(session, row, model, cell, how, bar.update)
        predictions = evaluate(model, data, cell, how, bar.update, spread)
    return _record(session, row, model, cell, how, predictions, started)


def _record(
    session: Session,
    row: MethodSpec,
    model: ReducedViT,
    cell: Cell,
    how: Evaluation,
    predictions: pd.DataFrame,
    started: float,
) -> AccuracyRecord:
    """Write the record of a row that is evaluated."""
    spec, data, method = session.spec, session.data, model.method
    _refuse_none(predictions, cell)
    earlier = session.shared.get(cell.key, NOTHING_SHARED)
    counted = summarise(predictions, data.clustered, method.reduces)
    record = AccuracyRecord(
        schema_version=SCHEMA_VERSION,
        key=cell.key,
        identity=session.identity(method),
        label=row.label,
        method=describe(method),
        backbone=spec.backbone.shown,
        weights=session.weights_record,
        preprocessing_from=session.preprocessing_from,
        parameters=sum(p.numel() for p in session.backbone.parameters()),
        **session.about_data,
        **counted,
        gmacs_no_attention=_without_attention(model, predictions),
        precision=spec.precision,
        device=session.device.type,
        seed=spec.seed,
        environment={**environment(), "processes": size()},
        seconds=round(time.monotonic() - started + earlier.seconds, 3),
        batch_size=spec.batch_size,
        batch_halved=how.halved + earlier.halved,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    cell.finish_accuracy(config_of(spec, row), record, predictions)
    return record


def _refuse_none(predictions: pd.DataFrame, cell: Cell) -> None:
    """RequestError if no image could be read: no number comes from no image.

    A row whose answers are all not finite is a row: 0.00 % of them are right, and the next run
    would find the same.
    """
    errors = predictions["error"]
    if errors.isna().any():
        return
    cell.discard_shards()  # what is repaired may look the same from outside
    raise RequestError(
        f"none of the {len(errors)} images could be read; {predictions['path'][0]}: {errors[0]}: "
        "check data.path"
    )


def _without_attention(model: ReducedViT, predictions: pd.DataFrame) -> float:
    """Mean GMACs of the backbone in the convention that leaves out the attention products."""
    tokens = matrix(evaluated(predictions), "tokens")
    macs = backbone_macs(model.trunk.cost, tokens, model.method.position, attention_products=False)
    return float(macs.sum()) / len(macs) / 1e9
