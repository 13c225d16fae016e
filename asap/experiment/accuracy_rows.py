"""The accuracy record of a row: read if it exists, else measured."""

import logging
import time
from contextlib import ExitStack
from dataclasses import replace

import pandas as pd

from asap.core.macs import backbone_macs
from asap.engine.executor import ReducedViT
from asap.errors import RequestError, one_line
from asap.experiment.rows import Row
from asap.measure import workers
from asap.measure.accuracy import evaluate
from asap.measure.in_memory import Shared
from asap.measure.joint_evaluation import Evaluation
from asap.measure.processes import size
from asap.measure.progress import progress
from asap.measure.questions import tell_other_prompt
from asap.measure.session import Session
from asap.measure.traces import costs, metrics_of
from asap.records.kinds import ACCURACY
from asap.records.schema import AccuracyRecord
from asap.records.store import Cell
from asap.records.tables import Evaluated, frame_of, matrix
from asap.report.result import Result
from asap.spec.run_spec import RunSpec
from asap.tasks.questions import Questions

log = logging.getLogger("asap")
NOTHING_SHARED = Shared(0.0, 0)


class Accuracy:
    """Accuracy and MACs, one row after the other."""

    kind = ACCURACY

    def wanted(self, spec: RunSpec) -> bool:
        return spec.measure.accuracy

    def refuse(self, spec: RunSpec) -> None:
        """Nothing is refused beforehand."""

    def measure(self, session: Session, rows: list[Row]) -> list[Row]:
        return [with_accuracy(session, row) if row.open else row for row in rows]


def with_accuracy(session: Session, row: Row) -> Row:
    """The row with its accuracy record, or with the reason why it has none.

    A row that has its record is not measured again, and an interrupted one continues where it
    stopped. Raises RequestError for a request that cannot be carried out.
    """
    cell = session.cell(row.built, row.pruner)
    try:
        with ExitStack() as held:
            if not _is_recorded(session, cell, held):
                _measure(session, row, cell)
        return replace(row, result=_found(session, row, cell))
    except RequestError:
        raise
    except Exception as error:  # the other rows go on; the failure is recorded and listed
        cell.fail(error)
        label, reason = row.method.label, one_line(error, kind=True)
        log.debug("failure of %s", label, exc_info=error)
        log.error("%s failed: %s (details: %s/error.json)", label, reason, cell.path)
        return row.without(f"failed: {reason}", failed=True)


def _is_recorded(session: Session, cell: Cell, held: ExitStack) -> bool:
    """True if there is a final record. The cell stays locked until `held` is closed.

    Images that could not be read are tried again. If some can be read now, the record becomes an
    unfinished run that lacks them. So are questions that failed, but for those that always would.
    """
    held.enter_context(cell.lock())
    if cell.key not in session.memory.shared:  # a joint pass has just tried its images
        cell.drop_failed()
    record = cell.record("accuracy")
    if record is None or not record["n_failed"]:
        return record is not None
    failed = cell.failed()
    if not (again := session.readable(failed)):
        return True
    now = "are asked again" if session.spec.answers else "can be read now"
    log.info(
        "%s: %d of %d failed %s %s", cell.key, len(again), len(failed), session.task.examples, now
    )
    cell.reopen(again)
    return False


def _found(session: Session, row: Row, cell: Cell) -> Result:
    """The row's result with its record, whose label and data are named as in this run.

    Another run may have recorded the same numbers under other names. Reads both tables, so damage
    shows here. RequestError if data.strict and an image could not be read.
    """
    ref = replace(row.result.ref, records={"accuracy": cell.key})
    found = Result.from_store(session.store, ref)
    answers, _ = found.answers(), found.traces()
    if session.spec.data.strict:
        _refuse_unreadable(answers, session.task.examples)
    record = {**found.measured, **session.about_data}
    return replace(found.with_records(accuracy=record), config=row.config)


def _measure(session: Session, row: Row, cell: Cell) -> None:
    """Evaluate one row and write its record."""
    data, how = session.data, session.evaluation(row.pruner)
    model = session.encoder(row.built)
    if isinstance(how.task, Questions):
        tell_other_prompt(how.task)
    started = time.monotonic()
    with progress(row.method.label, len(data), session.task.examples) as bar:
        spread = workers.spread(session, row.method, model, cell, how, bar.update)
        evaluated = evaluate(model, data, cell, how, bar.update, spread)
    _record(session, row, cell, how, evaluated, started)


def _record(
    session: Session,
    row: Row,
    cell: Cell,
    how: Evaluation,
    evaluated: Evaluated,
    started: float,
) -> None:
    """Write the record of an evaluated row."""
    spec, data, method = session.spec, session.data, row.built
    answers, traces = frame_of(evaluated.answers), frame_of(evaluated.traces)
    _refuse_none(answers, cell, session.task.examples)
    earlier = session.memory.shared.get(cell.key, NOTHING_SHARED)
    label = row.method.label
    head = session.head(ACCURACY, method, label, pruner=row.pruner) | session.about_data
    head["environment"] |= {"processes": size()}
    found = {**costs(traces, method.reduces)}
    found |= {"gmacs_no_attention": _without_attention(session.model(method), traces)}
    found |= how.task.score(answers, data.clustered)  # may know of costs beside the backbone's
    record = AccuracyRecord(
        **head,
        metrics=metrics_of(method, traces, label),
        weights=session.weights_record,
        preprocessing_from=session.preprocessing_from,
        parameters=session.parameters,
        **found,
        device=session.device.type,
        seed=spec.seed,
        seconds=round(time.monotonic() - started + earlier.seconds, 3),
        batch_size=spec.batch_size,
        batch_halved=how.halved + earlier.halved,
    )
    cell.finish("accuracy", row.config, record, evaluated)


def _refuse_unreadable(answers: pd.DataFrame, examples: str) -> None:
    """RequestError if some could not be evaluated, with the first of them and their errors."""
    failed = answers[answers["error"].notna()]
    if failed.empty:
        return
    pairs = zip(failed["path"], failed["error"], strict=True)
    some = "; ".join(f"{path}: {error}" for path, error in list(pairs)[:3])
    raise RequestError(
        f"data.strict=true: {len(failed):,} of {len(answers):,} {examples} could not be "
        f"evaluated ({some}): repair them or set it false"
    )


def _refuse_none(answers: pd.DataFrame, cell: Cell, examples: str) -> None:
    """RequestError if none of the examples could be read.

    A row whose answers are all not finite is not refused: 0.00 % of them are right, and the next
    run would find the same.
    """
    errors = answers["error"]
    if errors.isna().any():
        return
    cell.discard_shards()  # repaired files may have the same key
    raise RequestError(
        f"none of the {len(errors):,} {examples} could be read; {answers['path'][0]}: {errors[0]}: "
        f"check data.path{' and the frames that are taken' if examples == 'clips' else ''}"
    )


def _without_attention(model: ReducedViT, traces: pd.DataFrame) -> float:
    """GMACs of the backbone per example, in the convention that leaves out attention products."""
    tokens = matrix(traces, "vision.tokens")
    macs = backbone_macs(
        model.adapter.cost, tokens, model.method.position, attention_products=False
    )
    return float(macs.sum()) / traces["example"].nunique() / 1e9
