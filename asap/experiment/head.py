"""The head of a video run: found by its record, or trained on the data set's training clips."""

import logging
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from asap.backbones.video_head import HeadConfig, head_bytes, head_digest, load_head
from asap.data.video.options import with_split
from asap.errors import RequestError
from asap.measure import workers
from asap.measure.heads.checkpoints import Checkpoints
from asap.measure.heads.extraction import features_of, shape_of
from asap.measure.heads.features import FeatureFile, Features
from asap.measure.heads.parallel import extraction_of, spread_features, spread_gradients
from asap.measure.heads.recipe import Recipe
from asap.measure.heads.training import Curve, new_head, train
from asap.measure.in_memory import InMemory
from asap.measure.processes import size
from asap.measure.progress import progress
from asap.measure.record_parts import config_of
from asap.measure.session import Session
from asap.methods import Dense
from asap.publish.run_outputs import mirror
from asap.records.key import key_of
from asap.records.kinds import TRAINED_HEAD
from asap.records.store import Cell
from asap.report.result import Result
from asap.spec.run_spec import CalibrateSpec, HeadSpec, MeasureSpec, MethodSpec, RunSpec

log = logging.getLogger("asap")
FILE, CURVE = "head.safetensors", "training.csv"
DENSE = MethodSpec.of("dense", {}, "Dense")
TRAINING = ("kind", "epochs", "batch_size", "lr", "weight_decay", "warmup_epochs", "smoothing")


def with_head(spec: RunSpec, memory: InMemory) -> RunSpec:
    """The spec with the file of its head, which is trained first if there is no record of it.

    A spec without a head, or with its file, stays as it is. RequestError if there are no training
    clips, or the head cannot be trained on them, and before that if what follows is not possible.
    """
    if spec.head is None:
        return spec
    measured = spec.measure.accuracy or spec.measure.throughput or bool(spec.measure.also)
    _refuse_misfits(spec, memory, measured)
    if spec.head.file is not None:
        if not measured:
            raise RequestError(
                f"head.file={spec.head.file} is trained already, and nothing else is asked for: "
                "leave it out, or set measure.accuracy=true"
            )
        return spec
    session = _training_session(spec, memory)
    workers.meet(session)
    path = trained(session) / FILE
    return replace(spec, head=replace(spec.head, file=str(path)))


def _refuse_misfits(spec: RunSpec, memory: InMemory, measured: bool) -> None:
    """RequestError now, not after hours of features, if a row does not fit the backbone, there are
    no clips to evaluate, or the head in `head.file` is for something else.

    Rows whose options are still to be found are looked at when they are.
    """
    known = spec.calibrate.macs_pct is None
    rows = [row for row in spec.rows if known and _is_complete(row)]
    session = Session(replace(spec, rows=tuple(rows)), memory)
    _ = session.weights_digest  # refuses rows that do not fit
    if measured:
        _ = session.video_head  # reads the head, and finds the clips that it is for


def _is_complete(row: MethodSpec) -> bool:
    """True if a row has all its options, and the weights of the others."""
    return row.needs is None and row.budget is None and not row.open_grid and row.point_of is None


def trained(session: Session) -> Path:
    """The folder of the head of a session, whose data are the training clips.

    An interrupted training goes on at its last checkpoint. A damaged head is trained again.
    """
    spec, config = _head_of(session.spec), session.head_config
    assert config is not None
    identity = _identity(session, spec, config)
    cell = session.store.cell(key_of(identity))
    with cell.lock():
        record = cell.record(TRAINED_HEAD.name)
        if record is None or not _sound(cell.path / FILE):
            record = _train(session, spec, config, cell, identity)
    _tell(record, cell)
    mirror(session, [Result(record["label"], records={TRAINED_HEAD.name: record})])
    return cell.path


def _training_session(spec: RunSpec, memory: InMemory) -> Session:
    """The session of the unreduced backbone on the training clips of a spec's data."""
    head = _head_of(spec)
    session = Session(
        replace(
            spec,
            data=with_split(spec.data, "train"),
            rows=(DENSE,),
            limit=head.train_clips,
            measure=MeasureSpec(),
            calibrate=CalibrateSpec(),
        ),
        memory,
    )
    try:
        _ = session.data
    except RequestError as error:
        raise RequestError(
            f"the head is trained on training clips first: {error}; or give a trained one with "
            "head.file=<file>"
        ) from None
    return session


def _head_of(spec: RunSpec) -> HeadSpec:
    if spec.head is None:
        raise ValueError("the run has no head")
    return spec.head


def _identity(session: Session, spec: HeadSpec, config: HeadConfig) -> dict[str, Any]:
    """Everything that changes the head's weights: no method, so that it serves all of them.

    The run's seed is for the draws of methods; the head has its own.
    """
    conditions = {name: getattr(spec, name) for name in TRAINING}
    if spec.kind == "attention":
        conditions["heads"] = spec.heads
    conditions |= {"features": spec.features, "seed": spec.seed, "classes": config.class_digest}
    about = session.identity(Dense(), TRAINED_HEAD, conditions) | {"methods": {}}
    return {name: value for name, value in about.items() if name != "seed"}


def _sound(path: Path) -> bool:
    try:
        load_head(path)
    except RequestError as reason:
        log.warning("%s: it is trained again", reason)
        return False
    return True


def _train(
    session: Session, spec: HeadSpec, config: HeadConfig, cell: Cell, identity: Mapping[str, Any]
) -> dict[str, Any]:
    """Train the head of a cell and write its record, which is returned."""
    started = time.monotonic()
    file = _file(session, spec, config, identity)
    features = features_of(
        file, lambda: extraction_of(session, file), spread_features(session.spec)
    )
    _refuse_unreadable(session, features)
    recipe = Recipe(spec, len(features))
    checkpoints = Checkpoints(cell.path / "training", config, features.digest)
    gradients = spread_gradients(features, file, config, spec.smoothing, session.spec.device)
    head = new_head(config, spec.seed).to(session.device)
    with progress(f"{spec.kind} head", recipe.steps, "steps") as bar:
        curve = train(head, recipe, gradients, checkpoints, session.spec.shard_seconds, bar.update)
    seconds = round(time.monotonic() - started, 3)
    record = {
        **session.head(TRAINED_HEAD, Dense(), f"Head ({spec.kind}, {spec.reads})"),
        "key": cell.key,
        "identity": identity,
        "metrics": _metrics(features, curve) | {"head_seconds": seconds},
        "epochs": {"loss": curve.losses, "top1": curve.top1},
        "head": asdict(config),
        "digest": head_digest(head, config),
        "weights": session.weights_record,
        "device": session.device.type,
    }
    record["metrics"]["head_parameters"] = sum(p.numel() for p in head.parameters())
    record["environment"] |= {"processes": size()}
    contents = {FILE: head_bytes(head, config), CURVE: curve.to_csv().encode()}
    cell.finish(TRAINED_HEAD.name, config_of(session.spec, DENSE), record, files=contents)
    checkpoints.clear()
    return record


def _file(
    session: Session, spec: HeadSpec, config: HeadConfig, identity: Mapping[str, Any]
) -> FeatureFile:
    """The file of the features of the session's clips. Heads of all kinds share it."""
    about = {**identity, "kind": "features", "conditions": {"features": spec.features}}
    shape = shape_of(session.data, config.width, spec.features)
    return FeatureFile(session.spec.results / "features", about, shape)


def _refuse_unreadable(session: Session, features: Features) -> None:
    """RequestError if no clip has features, or with data.strict if one has none."""
    failed = [one.error for one in features.entries if one.error is not None]
    if not failed:
        return
    said = f"{len(failed):,} of {len(features.entries):,} training clips have no features"
    if not len(features):
        raise RequestError(
            f"{said} ({failed[0]}): check data.path, the frames that are taken (data.frames, "
            "data.stride) and data.seconds_per_clip"
        )
    if session.spec.data.strict:
        raise RequestError(f"{said} ({failed[0]}): repair them or set data.strict=false")
    log.warning("%s and are left out (%s)", said, failed[0])


def _metrics(features: Features, curve: Curve) -> dict[str, float]:
    return {
        "train_loss": curve.losses[-1],
        "train_top1": curve.top1[-1],
        "train_clips": len(features.readable),
        "train_clips_failed": len(features.entries) - len(features.readable),
        "train_steps": len(curve.steps),
    }


def _tell(record: Mapping[str, Any], cell: Cell) -> None:
    found = record["metrics"]
    log.info(
        "head: %s, trained on %s clips: loss %.4f, %.2f %% of them right in the last epoch (%s)",
        record["label"], f"{found['train_clips']:,}", found["train_loss"], found["train_top1"],
        cell.path / FILE,
    )  # fmt: skip
