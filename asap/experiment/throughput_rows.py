"""Throughput records of a run's rows: those missing are timed together, with both baselines."""

import logging
from typing import Any

from tqdm import tqdm

from asap.data.base import images_per_example
from asap.data.open import options_of
from asap.engine.path import path_of
from asap.experiment.rows import Row
from asap.experiment.timed_rows import refuse_timing, timed_together
from asap.measure.baselines import why_not_compiled
from asap.measure.decoded_speed import clip_speeds
from asap.measure.device import machine, measuring_alone
from asap.measure.session import Session
from asap.measure.throughput import measure_throughput, steps
from asap.measure.timed_images import load_pictures
from asap.measure.timing import ThroughputPlan
from asap.methods import Method
from asap.records.key import key_of
from asap.records.kinds import THROUGHPUT
from asap.records.schema import ThroughputRecord
from asap.records.store import Cell
from asap.spec.run_spec import RunSpec
from asap.tasks.video import Video

log = logging.getLogger("asap")


class Throughput:
    """Images per second, all rows without a record together."""

    kind = THROUGHPUT

    def wanted(self, spec: RunSpec) -> bool:
        return spec.measure.throughput

    def refuse(self, spec: RunSpec) -> None:
        refuse_timing(spec)

    def measure(self, session: Session, rows: list[Row]) -> list[Row]:
        return with_throughput(session, rows)


def with_throughput(session: Session, rows: list[Row]) -> list[Row]:
    """The rows with their throughput records; rows that have one are not timed again."""
    plan = _plan(session)
    return timed_together(
        session, rows, THROUGHPUT, lambda row: _cell(session, row, plan),
        lambda lacking: _time(session, lacking, plan),
    )  # fmt: skip


def _cell(session: Session, row: Row, plan: ThroughputPlan) -> Cell:
    return session.store.cell(key_of(_identity(session, row.built, plan)))


def _plan(session: Session) -> ThroughputPlan:
    m = session.spec.measure
    warmup = 2.0 if m.short else 10.0
    return ThroughputPlan(m.rounds, m.seconds, short=m.short, warmup_seconds=warmup)


def _identity(session: Session, method: Method, plan: ThroughputPlan) -> dict[str, Any]:
    conditions = _conditions(session, plan)
    conditions["path"] = path_of(session.model(method))
    return session.identity(method, THROUGHPUT, conditions)


def _conditions(session: Session, plan: ThroughputPlan) -> dict[str, Any]:
    """Everything that changes a speed but no accuracy: the machine, and how it is timed."""
    m = session.spec.measure
    return {
        **_decoding(session),
        "batch_size": _batch_size(session),
        "images": m.throughput_images,
        "rounds": plan.rounds,
        "seconds": plan.seconds_per_round,
        "short": plan.short,
        "opponents": _opponents(session),
        "latency_calls": m.latency_calls,
        **machine(session.device),
    }


def _decoding(session: Session) -> dict[str, Any]:
    """What the speed of clips from their files depends on besides; empty for images."""
    spec = session.spec
    if session.data.task != Video.name:
        return {}
    decoder = getattr(options_of(spec.data), "decoder", None)
    return {
        "decoding": {"decoder": decoder, "workers": spec.workers, "batch_size": spec.batch_size}
    }


def _opponents(session: Session) -> list[str]:
    """The further dense models, sorted; where nothing can be compiled there is no compiled one.

    So a speed is measured again once there is a compiler.
    """
    asked = set(session.spec.measure.opponents)
    if why_not_compiled(session.device) is not None:
        asked.discard("compiled")
    return sorted(asked)


def _batch_size(session: Session) -> int:
    m = session.spec.measure
    wanted = m.throughput_batch_size or session.spec.batch_size
    return min(wanted, _count(session))


def _count(session: Session) -> int:
    """How many images are timed; those of a video are its frames."""
    there = len(session.data) * images_per_example(session.data)
    return min(session.spec.measure.throughput_images, there)


def _time(session: Session, rows: list[Row], plan: ThroughputPlan) -> list[ThroughputRecord]:
    """One interleaved measurement of several rows: their records."""
    spec, pre = session.spec, session.preprocessing.identity
    mean, std = pre["mean"], pre["std"]
    count = _count(session)
    pictures = load_pictures(session.data, count, mean, std, session.device, spec.seed)
    named = {str(i): row.built for i, row in enumerate(rows)}
    opponents, calls = spec.measure.opponents, spec.measure.latency_calls
    total = steps(plan, len(named), len(opponents), calls)
    with tqdm(total=total, desc=f"{'throughput':<24}", unit="lap", disable=None) as bar:
        timed = measure_throughput(
            session.backbone, named, pictures, _batch_size(session), mean, std, plan,
            spec.seed, bar.update, opponents=opponents, latency_calls=calls,
            backend=session.backend(),
        )  # fmt: skip
        if bar.disable:
            log.info("throughput: %d methods, %d laps", len(named), total)
    records = []
    for name, row in zip(named, rows, strict=True):
        conditions = _identity(session, row.built, plan)["conditions"]
        head = session.head(THROUGHPUT, row.built, row.method.label, conditions)
        head["environment"] |= timed.circumstances(name)
        record = ThroughputRecord(**{**timed.fields(name), **head, "metrics": {}})
        if session.data.task == Video.name:
            with measuring_alone(session.device):
                model, how = session.model(row.built), session.evaluation()
                record["clips"] = clip_speeds(model, session.data, how, count, plan.short)
        records.append(record)
    return records
