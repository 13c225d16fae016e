"""Latency records of a run's rows on questions: those missing are timed together, with full."""

from dataclasses import asdict, dataclass
from typing import Any, cast

import torch
from tqdm import tqdm

from asap.backbones.llava.checkpoint import Llava
from asap.engine.path import path_of
from asap.errors import RequestError
from asap.experiment.rows import Row
from asap.experiment.timed_rows import refuse_timing, timed_together
from asap.measure.device import DTYPES, device_name, keep_memory, machine
from asap.measure.latency_summary import MIB, conditions, summary_of
from asap.measure.question_latency import Candidate, ask_all, peaks
from asap.measure.questions import PictureEncoder
from asap.measure.resources import NO_MEMORY
from asap.measure.session import Session
from asap.measure.spans import spans_on
from asap.measure.timed_questions import prepared
from asap.methods import Dense, Method
from asap.methods.language.base import Pruner
from asap.records.key import key_of
from asap.records.latency_record import LATENCY, LatencyRecord
from asap.records.store import Cell
from asap.spec.read import read_group
from asap.spec.run_spec import RunSpec

FULL = "full"
NAMED = "measure.also.latency"


@dataclass(frozen=True)
class LatencyPlan:
    """How many questions about how many pictures are timed, after `warmup` that do not count.

    RequestError for values with which nothing could be said of a time.
    """

    questions: int = 300
    pictures: int = 50
    warmup: int = 20

    def __post_init__(self) -> None:
        for name, least in (("questions", 3), ("pictures", 1), ("warmup", 0)):
            if getattr(self, name) < least:
                raise RequestError(
                    f"{NAMED}.{name}={getattr(self, name)} is not possible: give {least} or more"
                )

    @classmethod
    def of(cls, spec: RunSpec) -> "LatencyPlan":
        """The plan that a run asks for; RequestError for another key than the fields."""
        return read_group(cls, spec.measure.also[LATENCY.name], NAMED)


class Latency:
    """The time of a question, part by part, all rows without a record together."""

    kind = LATENCY

    def wanted(self, spec: RunSpec) -> bool:
        return LATENCY.name in spec.measure.also

    def refuse(self, spec: RunSpec) -> None:
        if not spec.answers:
            raise RequestError(
                f"measure=latency times questions, and backbone={spec.backbone.shown} answers "
                f"none: give task=vlm, or measure=throughput with measure.latency_calls"
            )
        refuse_timing(spec)
        LatencyPlan.of(spec)

    def measure(self, session: Session, rows: list[Row]) -> list[Row]:
        plan = LatencyPlan.of(session.spec)
        rows = [_without_reference(row) for row in rows]
        return timed_together(
            session, rows, LATENCY, lambda row: _cell(session, row, plan),
            lambda lacking: _time(session, lacking, plan),
        )  # fmt: skip


def _is_full(row: Row) -> bool:
    """Whether nothing is reduced; `Result.is_dense` knows that of a row with a record only."""
    return isinstance(row.built, Dense) and row.pruner is None


def _without_reference(row: Row) -> Row:
    """A row that reads true masks of objects is a reference, which nobody could run."""
    if row.open and row.pruner is not None and row.pruner.needs_objects:
        return row.without("a reference by the true masks is not timed")
    return row


def _cell(session: Session, row: Row, plan: LatencyPlan) -> Cell:
    conditions = _conditions(session, row, plan)
    return session.store.cell(
        key_of(session.identity(row.built, LATENCY, conditions, pruner=row.pruner))
    )


def _conditions(session: Session, row: Row, plan: LatencyPlan) -> dict[str, Any]:
    """Everything that changes a time but no answer: the machine, and how it is timed."""
    path = path_of(session.model(row.built))
    return {**asdict(plan), **machine(session.device), "path": path}


def _time(session: Session, rows: list[Row], plan: LatencyPlan) -> list[LatencyRecord]:
    """Ask all rows, and the full model beside them; their records."""
    device, dtype = session.device, DTYPES[session.spec.precision]
    kept = keep_memory(device)
    llava = session.answerer(None).llava
    with tqdm(desc=f"{'questions to time':<24}", unit="question", disable=None) as bar:
        ready = prepared(
            session.data, plan.questions, plan.pictures, llava.frame, device, dtype, bar.update
        )
    candidates = {str(i): _candidate(session, row.built, row.pruner) for i, row in enumerate(rows)}
    full = next((str(i) for i, row in enumerate(rows) if _is_full(row)), FULL)
    if full == FULL:
        candidates[FULL] = _candidate(session, Dense(), None)
    spans = spans_on(device, torch.get_num_threads())
    held = peaks(candidates, ready.questions[0], spans)
    total = plan.warmup + len(ready.questions)
    with tqdm(total=total, desc=f"{'latency':<24}", unit="question", disable=None) as bar:
        found = ask_all(
            candidates, ready.questions, plan.warmup, spans, session.spec.seed, bar.update
        )
    cost, element = llava.language.cost, llava.language.dtype.itemsize
    records = []
    for name, row in enumerate(rows):
        own = found[str(name)]
        summary = summary_of(own, found[full], spans.clock, cost, element, session.spec.seed)
        peak = held[str(name)]
        record = (
            _head(session, row, plan)
            | summary
            | {
                "device": str(device),
                "device_name": device_name(device),
                "threads": torch.get_num_threads(),
                "clock": spans.clock,
                "path": candidates[str(name)].tower.path,
                "n_pictures": ready.pictures,
                "warmup": plan.warmup,
                "preparation_ms": ready.preparation_ms,
                "peak_memory_mb": None if peak is None else peak / MIB,
                "weights_mb": _weights(llava) / MIB,
                "missing": {} if peak is not None else {"peak_memory_mb": NO_MEMORY},
                "metrics": {},
            }
        )
        record["environment"] |= {"memory_kept": kept, "device_condition": conditions(own)}
        records.append(cast(LatencyRecord, record))
    return records


def _head(session: Session, row: Row, plan: LatencyPlan) -> dict[str, Any]:
    asked = _conditions(session, row, plan)
    return session.head(LATENCY, row.built, row.method.label, asked, pruner=row.pruner)


def _candidate(session: Session, method: Method, pruner: Pruner | None) -> Candidate:
    answerer, encoder = session.answerer(pruner), session.encoder(method)
    assert isinstance(encoder, PictureEncoder)
    return Candidate(encoder, answerer.visual, answerer.decoder)


def _weights(llava: Llava) -> int:
    """Bytes of all weights."""
    return sum(p.numel() * p.element_size() for p in llava.parameters())
