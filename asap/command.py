"""What the commands share: compose a config, run a job on its spec, exit with the right code."""

import difflib
import logging
import os
import re
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from asap.console import one_line, set_up_logging
from asap.errors import RequestError
from asap.methods.find import find, names
from asap.runs.configs import config_dir, read_method
from asap.runs.spec import RunSpec, read_spec

log = logging.getLogger("asap")
Job = Callable[[RunSpec], list[str]]


class _Outcome:
    """What happened to the cells of this command, over all jobs of a multirun."""

    started: int
    failed: list[str]  # rows that failed, and requests that were refused
    refused: int

    @classmethod
    def clear(cls) -> None:
        cls.started, cls.failed, cls.refused = 0, [], 0

    @classmethod
    def code(cls) -> int:
        """The exit code; several failures, or one among several jobs, are listed at the end."""
        if cls.failed and not cls.started == cls.refused == 1:
            log.error("%d failed: %s", len(cls.failed), "; ".join(cls.failed))
        if cls.refused and cls.refused == cls.started:
            return 2
        return 1 if cls.failed else 0


def command(job: Job, finish: Callable[[], object] = lambda: None) -> None:
    """Run `job` on the spec of the command line, several times in a multirun, and exit.

    `job` says what failed, one line each; `finish` comes after the last. Exit codes: 0 done; 1
    something failed, or a part of a multirun was refused; 2 the request is wrong; 130 interrupted.
    """
    set_up_logging()
    _Outcome.clear()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # hydra raises, so that we print one line
    try:
        _composed(job)()
    except KeyboardInterrupt:
        log.error("interrupted: run the same command again to continue where it stopped")
        sys.exit(130)
    except Exception as error:
        if _Outcome.started:
            raise
        log.error("error: %s", _not_composed(one_line(error)))
        sys.exit(2)
    try:
        finish()
    except RequestError as error:  # the records are there; it is only the table that is missing
        log.error("error: %s", error)
        _Outcome.failed.append(str(error))
    sys.exit(_Outcome.code())


def overrides() -> list[str] | None:
    """What was given to this job of a multirun; None where there is only one job."""
    config = HydraConfig.get()
    return list(config.overrides.task) if config.mode == RunMode.MULTIRUN else None


def _composed(job: Job) -> Callable[[], None]:
    """The job as hydra calls it, with one line for a request that is refused."""

    def run_job(config: DictConfig) -> None:
        _Outcome.started += 1
        try:
            spec = read_spec(_plain(config), lambda name: read_method(name, _own_folders()))
            _Outcome.failed += job(spec)
        except RequestError as error:
            log.error("error: %s", error)
            _Outcome.refused += 1
            _Outcome.failed.append(str(error))

    return hydra.main(str(config_dir()), "config", version_base="1.3")(run_job)


def _not_composed(reason: str) -> str:
    """Hydra's reason why the config did not compose; a remedy that helps for an unknown key."""
    unknown = re.match(r"Could not override '([^']+)'", reason)
    if unknown is None:
        return f"the config does not compose: {reason}"
    keys = _keys()
    near = difflib.get_close_matches(unknown[1], keys, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    if unknown[1] in keys:
        hint = "the chosen method or group does not have it; "
    return f"unknown key {unknown[1]!r}: {hint}--help lists all keys"


def _keys() -> list[str]:
    """Everything that can be set, as on the command line."""
    kinds = [("method", find(name)) for name in names()]
    kinds += [(f.name, f.type) for f in fields(RunSpec) if is_dataclass(f.type)]
    inside = [f"{group}.{f.name}" for group, kind in kinds for f in fields(kind)]
    return [*inside, *(f.name for f in fields(RunSpec))]


def _plain(config: DictConfig) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise RequestError(f"{error.full_key} is missing: give {error.full_key}=...") from None
    except OmegaConfBaseException as error:
        raise RequestError(one_line(error)) from None
    assert isinstance(plain, dict)
    return {str(k): v for k, v in plain.items() if k != "hydra"}


def _own_folders() -> list[Path]:
    """Folders given with --config-dir: their configs come before the project's."""
    sources = HydraConfig.get().runtime.config_sources
    return [Path(s.path) for s in sources if s.schema == "file" and s.provider == "command-line"]
