"""The evaluation of one row by several processes: the leader's part and the workers'.

The leader sends a spec, a row and ranges of images; every process evaluates its share of them and
leaves shards in the row's cell, from where the leader takes them.
"""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from asap.engine.executor import ReducedViT
from asap.errors import RequestError
from asap.measure.accuracy import Ranges, count_of, evaluate_ranges, uncovered
from asap.measure.fitting import pruner_of
from asap.measure.in_memory import InMemory
from asap.measure.joint_evaluation import Evaluation
from asap.measure.processes import ask, local_rank, rank, serve, share, size
from asap.measure.questions import PictureEncoder
from asap.measure.session import Session
from asap.methods import build
from asap.records.disk import write_bytes
from asap.records.key import key_of
from asap.records.store import Cell
from asap.spec.run_spec import MethodSpec, RunSpec

VISIBLE_SECONDS = 90  # for a network file system to show what another machine has written


@dataclass
class Worker:
    """What a worker keeps from one task to the next; `kept`: of tasks of a kind, by its name."""

    memory: InMemory = field(default_factory=InMemory)
    kept: dict[str, Any] = field(default_factory=dict)
    _last: Session | None = field(default=None, init=False)

    def session(self, spec: RunSpec) -> Session:
        """The session of a spec; for the same spec as last time, the same."""
        if self._last is None or self._last.spec != spec:
            self._last = Session(spec, self.memory)
        return self._last


def work() -> None:
    """The program of every rank but 0: evaluate what the leader asks for, until it ends."""
    serve(Worker())


# ---- before work is shared out


def meet(session: Session) -> None:
    """Check that all workers, given the same spec, have the same run as this session.

    RequestError if they have other weights or images, or another results folder.
    """
    if size() == 1:
        return
    root = session.store.root
    mark = root / f".met-{uuid.uuid4().hex}"
    keys = keys_of(session)  # hashes the pictures and keeps the hashes for the other processes
    write_bytes(mark, b"")
    try:
        ask(_Hash(session.spec), lambda: None)
        others = ask(_Compare(session.spec, mark), lambda: (keys, True))
    finally:
        mark.unlink(missing_ok=True)
    if any(found != keys for found, _ in others):
        raise RequestError(
            "the processes have other weights, images or kinds of device than one another: give "
            "all machines the same files"
        )
    if not all(seen for _, seen in others):
        raise RequestError(f"{root} is not one folder for all machines: choose a shared one")


def keys_of(session: Session) -> list[str]:
    """The keys of all rows, which depend on the weights, the images and the kind of device."""
    rows = zip(session.methods, session.pruners, strict=True)
    return [key_of(session.identity(method, pruner=pruner)) for method, pruner in rows]


@dataclass(frozen=True)
class _Hash:
    """The first process of each machine hashes the pictures and writes the hashes to its disk.

    The other processes of the machine read them there.
    """

    spec: RunSpec

    def __call__(self, worker: Worker) -> None:
        if local_rank() == 0:
            _ = worker.session(self.spec).data.digest


@dataclass(frozen=True)
class _Compare:
    """The keys that a worker computes, and whether it sees the leader's file."""

    spec: RunSpec
    mark: Path

    def __call__(self, worker: Worker) -> tuple[list[str], bool]:
        return keys_of(worker.session(self.spec)), self.mark.exists()


# ---- the work


def spread(
    session: Session,
    row: MethodSpec,
    model: ReducedViT | PictureEncoder,
    cell: Cell,
    how: Evaluation,
    advance: Callable[[int], object],
) -> Callable[[Ranges], None] | None:
    """A function that evaluates ranges of images with all processes; None for a single process.

    It returns when the shards of all are visible. `advance` gets the leader's progress, scaled as
    if all were equally far; `how.halved` becomes the largest number of halvings of any process.
    """

    if size() == 1:
        return None

    def evaluate(ranges: Ranges) -> None:
        own = share(ranges, 0, size())
        scaled = Scaled(advance, count_of(ranges), count_of(own))
        task = _Evaluate(session.spec, row, cell, how.batch_size, how.halved, ranges)

        def leaders() -> int:
            evaluate_ranges(model, session.data, own, cell, how, scaled.add)
            return how.halved

        how.halved = max(ask(task, leaders))
        wait_for(lambda: not uncovered(cell.shards(), len(session.data)))

    return evaluate


def wait_for(visible: Callable[[], bool]) -> None:
    """Wait until the files of other machines are visible; not for ever."""
    deadline = time.monotonic() + VISIBLE_SECONDS
    while not visible() and time.monotonic() < deadline:
        time.sleep(1)


@dataclass(frozen=True)
class _Evaluate:
    """A worker's share of the ranges, left as shards in the cell."""

    spec: RunSpec
    row: MethodSpec
    cell: Cell
    batch_size: int
    halved: int
    ranges: Ranges

    def __call__(self, worker: Worker) -> int:
        session = worker.session(self.spec)
        how = session.evaluation(pruner_of(self.row))
        how = replace(how, batch_size=self.batch_size, halved=self.halved)
        model = session.encoder(build(self.row.name, self.row.options))
        own = share(self.ranges, rank(), size())
        evaluate_ranges(model, session.data, own, self.cell, how)
        return how.halved


class Scaled:
    """Calls `advance` with one process's progress, scaled as if all were equally far."""

    def __init__(self, advance: Callable[[int], object], whole: int, own: int) -> None:
        self.advance, self.whole, self.own = advance, whole, own
        self.done = self.told = 0

    def add(self, images: int) -> None:
        self.done += images
        reached = self.done * self.whole // self.own
        self.advance(reached - self.told)
        self.told = reached
