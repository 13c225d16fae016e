"""Mirror a finished result to Weights & Biases. The records on disk are the truth; this may fail.

Called after the record is on disk. Any failure here is one warning, never an exception: a dashboard
must not cost a result. Offline mode needs neither account nor network. A marker file
(`<directory>/mirrored/<key>`) keeps a row from being logged twice; delete it to log the row again.
"""

import io
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np

from asap.errors import one_line
from asap.report.example_table import Example
from asap.report.figures.clip_panels import animated
from asap.report.result import Result
from asap.report.scalars import curves, scalars, training_curves

log = logging.getLogger(__name__)
Mode = Literal["offline", "online", "disabled"]

_INIT_SECONDS = 30  # to wait for a server
_FINISH_SECONDS = 120  # that an upload may delay the next row
_CLOSED: set["WandbTarget"] = set()  # unavailable targets, which later rows skip


@dataclass(frozen=True)
class WandbTarget:
    """Where runs are logged. directory: W&B's own files; group: shared by the runs of a sweep."""

    mode: Mode
    project: str
    entity: str | None
    group: str | None
    directory: Path


def log_result(
    result: Result,
    config: Mapping[str, Any],
    target: WandbTarget,
    record: Path | None = None,
    examples: Callable[[], Sequence[Example]] = tuple,
) -> bool:
    """Log one run: id = record key, job type eval, summary scalars, curves by block or by epoch, a
    table of `examples()` (called only if the run is logged), and an artifact that refers to the
    folder `record` without copying it.

    W&B's own process completes the files a moment after this returns. True if the run was logged
    now or before, or if the mode is "disabled"; False, after a warning, if logging failed. If no
    run can be started, later rows of this process skip the target.
    """
    if target.mode == "disabled":
        return True
    if target in _CLOSED:
        return False
    try:
        if not _mirrored(result, config, target):
            with _no_logging_errors():
                _log(result, config, target, record, examples)
            _remember(result, config, target)
    except Exception as error:  # a mirror never costs a result, whatever fails in it
        reason = one_line(error, kind=True)
        later = "; later rows are not tried: the same command logs them once W&B can be reached"
        said = "its record is kept" + (later if target in _CLOSED else "")
        log.warning("W&B: %s was not logged: %s (%s)", result.label, reason, said)
        return False
    return True


@contextmanager
def _no_logging_errors() -> Iterator[None]:
    """Without logging's tracebacks: a full disk causes one for each line of W&B's own logs."""
    before, logging.raiseExceptions = logging.raiseExceptions, False
    try:
        yield
    finally:
        logging.raiseExceptions = before


def _log(
    result: Result,
    config: Mapping[str, Any],
    target: WandbTarget,
    record: Path | None,
    examples: Callable[[], Sequence[Example]],
) -> None:
    if result.key is None:
        raise ValueError("there is no record")
    run = _begun(result, config, target)
    try:
        _write(run, result)
        _write_examples(run, examples())
        _refer(run, result, record)
    finally:
        run.finish()


def _begun(result: Result, config: Mapping[str, Any], target: WandbTarget) -> Any:
    """A started W&B run; if none can be started, the target is marked unavailable."""
    try:
        import wandb

        if target.mode == "online" and not wandb.login(prompt=False, verify=False):
            raise ValueError(
                "no API key: set WANDB_API_KEY or run `wandb login`, or use mode=offline"
            )
        target.directory.mkdir(parents=True, exist_ok=True)
        return wandb.init(
            id=result.key,
            resume="allow" if target.mode == "online" else None,
            name=f"{result.label} {result.backbone}",
            project=target.project,
            entity=target.entity,
            group=target.group,
            job_type="eval",
            tags=_tags(result),
            config=dict(config),
            dir=target.directory,
            mode=target.mode,
            reinit="create_new",
            settings=_settings(),
        )
    except Exception:  # `log_result` reports it
        _CLOSED.add(target)
        raise


def _marker(result: Result, target: WandbTarget) -> Path:
    return target.directory / "mirrored" / str(result.key)


def _mirrored(result: Result, config: Mapping[str, Any], target: WandbTarget) -> bool:
    """Whether this result was logged to this target with these values before."""
    marker = _marker(result, target)
    return marker.is_file() and marker.read_text("utf-8") == _digest(result, config, target)


def _remember(result: Result, config: Mapping[str, Any], target: WandbTarget) -> None:
    marker = _marker(result, target)
    marker.parent.mkdir(parents=True, exist_ok=True)
    marker.write_text(_digest(result, config, target), "utf-8")


def _digest(result: Result, config: Mapping[str, Any], target: WandbTarget) -> str:
    where = [target.mode, target.project, target.entity, target.group]
    said = [result.label, scalars(result), dict(config), where]
    return sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def _settings() -> Any:
    """Quiet, and without data about the machine: a record holds all that belongs to a result."""
    import wandb

    return wandb.Settings(
        console="off",
        silent=True,
        x_disable_stats=True,
        x_disable_machine_info=True,
        x_save_requirements=False,
        disable_git=True,
        disable_code=True,
        init_timeout=_INIT_SECONDS,
        finish_timeout=_FINISH_SECONDS,
    )


def _tags(result: Result) -> list[str]:
    """Backbone, method, precision; W&B takes tags of 1 to 64 characters."""
    names = [str(result.backbone), str(result.reducing["name"])]
    names += [str(record["precision"]) for record in result.records.values()]
    names += ["extension"] if result.ours else []
    return [name[:64] for name in dict.fromkeys(names)]


def _write(run: Any, result: Result) -> None:
    for axis, found in (("block", curves(result)), ("epoch", training_curves(result))):
        run.define_metric(axis)
        for name, points in found.items():
            run.define_metric(f"{axis}/{name}", step_metric=axis, summary="none")
            for place, value in points.items():
                run.log({axis: place, f"{axis}/{name}": value})
    run.summary.update(scalars(result))


def _write_examples(run: Any, examples: Sequence[Example]) -> None:
    """The table `examples`: one row per image or clip, one column per map."""
    import wandb

    def shown(picture: np.ndarray) -> Any:
        if picture.ndim == 3:
            return wandb.Image(picture)
        return wandb.Video(io.BytesIO(animated(list(picture), "GIF")), format="gif")

    if not examples:
        return
    maps = list(dict.fromkeys(name for example in examples for name in example.pictures))
    table = wandb.Table(columns=[*maps, "label", "prediction", "stop block", "sink", "tokens"])
    for e in examples:
        drawn = [shown(e.pictures[name]) if name in e.pictures else None for name in maps]
        table.add_data(*drawn, e.label, e.prediction, e.stop_block, e.sink, e.tokens)
    run.log({"examples": table})


def _refer(run: Any, result: Result, record: Path | None) -> None:
    """An artifact that refers to the record's folder without copying it."""
    import wandb

    if record is None:
        return
    artifact = wandb.Artifact(f"record-{result.key}", type="record", metadata={"key": result.key})
    artifact.add_reference(record.resolve().as_uri())
    run.log_artifact(artifact)
