"""Throughput records of a run's rows: all that are missing are timed together, with both baselines."""

import logging
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import torch
from tqdm import tqdm

from asap.measure.device import device_name
from asap.measure.pictures import load_pictures
from asap.measure.throughput import measure_throughput
from asap.measure.timing import ThroughputPlan
from asap.methods import Method
from asap.report.result import CellResult
from asap.runs.keys import key_of
from asap.runs.record import SCHEMA_VERSION, ThroughputRecord, environment
from asap.session import Session

log = logging.getLogger("asap")


def measure_speed(session: Session, results: list[CellResult]) -> list[CellResult]:
    """The results with their throughput records; what is recorded already is not timed again."""
    plan = _plan(session)
    cells = [session.store.cell(key_of(_identity(session, m, plan))) for m in session.methods]
    missing = [i for i, cell in enumerate(cells) if cell.throughput() is None]
    if missing:
        records = _time(session, [session.methods[i] for i in missing], plan)
        for i, record in zip(missing, records, strict=True):
            row = session.spec.rows[i]
            with cells[i].lock():
                entry = {"key": cells[i].key, "label": row.label, **record}
                cells[i].finish_throughput({"method": row.label}, ThroughputRecord(**entry))
    return [
        replace(result, throughput=_labelled(cell.throughput(), result.label))
        for result, cell in zip(results, cells, strict=True)
    ]


def _labelled(record: ThroughputRecord | None, label: str) -> ThroughputRecord | None:
    return None if record is None else {**record, "label": label}


def _plan(session: Session) -> ThroughputPlan:
    m = session.spec.measure
    warmup = 2.0 if m.short else 10.0
    return ThroughputPlan(m.rounds, m.seconds, short=m.short, warmup_seconds=warmup)


def _identity(session: Session, method: Method, plan: ThroughputPlan) -> dict[str, Any]:
    """What changes a speed: all that changes a result, and everything about the machine."""
    m = session.spec.measure
    return {
        **session.identity(method),
        "batch_size": _batch_size(session),
        "images": m.throughput_images,
        "rounds": plan.rounds,
        "seconds": plan.seconds_per_round,
        "short": plan.short,
        "device_name": device_name(session.device),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }


def _batch_size(session: Session) -> int:
    m = session.spec.measure
    return min(m.throughput_batch_size or session.spec.batch_size, len(session.data))


def _time(session: Session, methods: list[Method], plan: ThroughputPlan) -> list[dict[str, Any]]:
    """One interleaved measurement of several methods; their records without key and label."""
    spec, pre = session.spec, session.preprocessing.identity
    mean, std = pre["mean"], pre["std"]
    count = min(spec.measure.throughput_images, len(session.data))
    pictures = load_pictures(session.data, count, mean, std, session.device, spec.seed)
    named = {str(i): method for i, method in enumerate(methods)}
    steps = plan.steps(len(named) + 2)
    with tqdm(total=steps, desc=f"{'throughput':<24}", unit="lap", disable=None) as bar:
        timed = measure_throughput(
            session.backbone, named, pictures, _batch_size(session), mean, std, plan,
            spec.seed, bar.update,
        )  # fmt: skip
        if bar.disable:
            log.info("throughput: %d methods, %d laps", len(named), steps)
    return [
        {
            "schema_version": SCHEMA_VERSION,
            "identity": _identity(session, method, plan),
            "backbone": spec.backbone.name,
            "data": session.data.description,
            **timed.fields(name),
            "precision": spec.precision,
            "environment": {**environment(), **timed.circumstances(name)},
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        for name, method in named.items()
    ]
