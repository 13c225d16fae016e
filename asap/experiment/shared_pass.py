"""Rows that can share a prefix of dense blocks, evaluated in one pass.

The pass leaves shards in every cell and nothing else: `accuracy_rows` then finds no image missing
and writes the records. A row that fails here is evaluated there, where it fails alone.
"""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace

from asap.errors import RequestError, one_line
from asap.measure.in_memory import InMemory, Shared
from asap.measure.joint_evaluation import Target, evaluate_together
from asap.measure.processes import size
from asap.measure.progress import progress
from asap.measure.session import Session
from asap.methods import Method, build
from asap.records.store import Cell
from asap.shared_prefix import SharedPrefix
from asap.spec.run_spec import LogSpec, MethodSpec, RunSpec

log = logging.getLogger("asap")
MOST_CELLS = 256  # in one pass: each holds an open lock, and the rows since the last shard


def share(session: Session) -> None:
    """Evaluate the rows that can share a pass, if at least two of them reduce tokens.

    Raises RequestError as `with_accuracy` does. After any other error the rows are evaluated one by
    one.
    """
    spec = session.spec
    wanted = spec.shared_trunk and spec.measure.accuracy and not spec.answers
    if not wanted or size() > 1:  # several processes share out the images of one row instead
        return
    rows = [
        m for m in dict.fromkeys(session.methods) if m.sharing is not None and _fits(session, m)
    ]
    if sum(method.reduces for method in rows) < 2:
        return
    cells = {session.cell(method): method for method in rows}
    lacking = {
        cell.key: method
        for cell, method in cells.items()
        if cell.key not in session.memory.shared and cell.record("accuracy") is None
    }
    keys = sorted(lacking)  # every process locks in the same order
    for start in range(0, len(keys), MOST_CELLS):
        part = {key: lacking[key] for key in keys[start : start + MOST_CELLS]}
        if sum(method.reduces for method in part.values()) >= 2:
            _together(session, part)


def share_ahead(spec: RunSpec, later: Sequence[RunSpec], memory: InMemory) -> None:
    """Evaluate the rows of a run together with those of later runs of the same command.

    Only the first of runs with the same images does it, for all of them. A run that would be
    refused is skipped here: it raises its error when its turn comes.
    """
    if size() > 1 or not _is_settled(spec) or _images_of(spec) in memory.shared_ahead:
        return
    memory.shared_ahead.append(images := _images_of(spec))
    alike = [one for one in later if _is_settled(one) and _images_of(one) == images]
    if not alike:
        return
    rows = [row for one in (spec, *alike) for row in one.rows if _builds(row)]
    try:
        session = Session(replace(spec, rows=()), memory)
        fitting = [row for row in rows if _fits(session, build(row.name, row.options))]
        share(Session(replace(spec, rows=tuple(fitting)), memory))
    except RequestError as error:
        log.debug("not shared: %s", error)


def _is_settled(spec: RunSpec) -> bool:
    """True if the rows may share a pass, and all their options and images are known already.

    They are not if a row is calibrated or needs a checkpoint, or a head is still to be trained.
    """
    open_rows = (r.budget is not None or r.open_grid or r.point_of or r.needs for r in spec.rows)
    known = spec.calibrate.macs_pct is None and not any(open_rows)
    headed = (spec.head is None or spec.head.file is not None) and not spec.answers
    return spec.shared_trunk and spec.measure.accuracy and known and headed


def _images_of(spec: RunSpec) -> RunSpec:
    """A spec that is equal for specs with the same images, backbone and way of evaluation."""
    return replace(spec, title="", rows=(), log=LogSpec(), remarks=())


def _builds(row: MethodSpec) -> bool:
    try:
        return build(row.name, row.options).sharing is not None
    except RequestError:
        return False


def _fits(session: Session, method: Method) -> bool:
    """True if the method can be evaluated with this backbone, in a shared pass."""
    try:
        SharedPrefix(session.backbone, [method])
    except ValueError:
        return False
    return True


def _together(session: Session, part: dict[str, Method]) -> None:
    with ExitStack() as locks:
        cells = [session.cell(method) for method in part.values()]
        for cell in cells:
            locks.enter_context(cell.lock())
            cell.drop_failed()
        # Another process may have finished some.
        todo = [cell for cell in cells if cell.record("accuracy") is None]
        try:
            _evaluate(session, todo, [part[cell.key] for cell in todo])
        except RequestError:
            raise
        except Exception as error:  # the rows can still be evaluated one by one
            log.debug("shared trunk", exc_info=error)
            reason = one_line(error, kind=True)
            log.warning("the shared trunk failed (%s): one row after the other instead", reason)


def _evaluate(session: Session, cells: list[Cell], methods: list[Method]) -> None:
    data, how = session.data, session.evaluation()
    started = time.monotonic()

    def model(members: list[int]) -> SharedPrefix:
        chosen = [methods[i] for i in members]
        return SharedPrefix(session.backbone, chosen, session.backend(graphs=False))

    label = f"{len(cells)} cells, one trunk"
    with progress(label, len(data) * len(cells), session.task.examples) as bar:
        targets = [Target(*pair) for pair in zip(cells, methods, strict=True)]
        failed = evaluate_together(model, data, targets, how, bar.update)
    share_of = (time.monotonic() - started) / max(len(cells), 1)
    session.memory.shared |= {cell.key: Shared(share_of, how.halved) for cell in cells}
    if failed:
        log.debug("left out of the shared trunk: %d cells", len(failed))
