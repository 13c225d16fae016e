"""Mirror a finished cell to Weights & Biases. The records on disk are the truth; this may fail.

Called after the record is on disk. Whatever goes wrong here is one warning, never an exception: a
dashboard cannot cost a result. Offline needs neither account nor network.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from asap.report.result import CellResult, curves, scalars

log = logging.getLogger(__name__)
Mode = Literal["offline", "online", "disabled"]

_INIT_SECONDS = 30  # how long to wait for a server that does not answer
_FINISH_SECONDS = 120  # how long an upload may hold up the next cell


def log_cell(
    result: CellResult,
    config: Mapping[str, Any],
    mode: Mode,
    project: str,
    entity: str | None,
    group: str | None,
    directory: Path,
) -> bool:
    """Write one run: id = record key, job type eval, summary scalars, per-block curves.

    Runs are kept under `directory`, completed by W&B's own process a moment after this returns.
    True if it was written or nothing was asked for (disabled); False, after a warning, if it
    failed.
    """
    if mode == "disabled":
        return True
    try:
        _log(result, config, mode, project, entity, group, directory)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        log.warning("W&B: %s was not logged: %s (its record is kept)", result.label, reason)
        return False
    return True


def _log(
    result: CellResult,
    config: Mapping[str, Any],
    mode: Mode,
    project: str,
    entity: str | None,
    group: str | None,
    directory: Path,
) -> None:
    import wandb

    if result.key is None:
        raise ValueError("there is no record")
    if mode == "online" and not wandb.login(prompt=False, verify=False):
        raise ValueError("no API key: set WANDB_API_KEY or run `wandb login`, or use mode=offline")
    directory.mkdir(parents=True, exist_ok=True)
    run = wandb.init(
        id=result.key,
        resume="allow" if mode == "online" else None,
        name=f"{result.label} {result.backbone}",
        project=project,
        entity=entity,
        group=group,
        job_type="eval",
        tags=_tags(result),
        config=dict(config),
        dir=directory,
        mode=mode,
        reinit="create_new",
        settings=_settings(),
    )
    try:
        _write(run, result)
    finally:
        run.finish()


def _settings() -> Any:
    """Quiet, and nothing collected about the machine: the record holds what belongs to a result."""
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


def _tags(result: CellResult) -> list[str]:
    """Backbone, method, precision; W&B takes tags of 1 to 64 characters."""
    names = [str(result.backbone), str(result.method["name"])]
    names += [str(record["precision"]) for record in result.records]
    names += ["extension"] if result.ours else []
    return [name[:64] for name in dict.fromkeys(names)]


def _write(run: Any, result: CellResult) -> None:
    run.define_metric("block")
    for name, points in curves(result).items():
        run.define_metric(f"block/{name}", step_metric="block", summary="none")
        for block, value in points.items():
            run.log({"block": block, f"block/{name}": value})
    run.summary.update(scalars(result))
