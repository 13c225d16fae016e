"""What the commands share: compose a config, run a job on its spec, exit with the right code."""

import difflib
import logging
import os
import re
import sys
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import partial
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
Prepare = Callable[[list[RunSpec]], object]


class _Outcome:
    """What happened to the cells of this command, over all jobs of a multirun."""

    started: int
    waiting: list[tuple[RunSpec, list[str]]]  # jobs of a multirun that are done after the last
    current: list[str] | None  # what was given to the waiting job that is done now
    failed: list[str]  # rows that failed, and requests that were refused
    refused: int

    @classmethod
    def clear(cls) -> None:
        cls.started, cls.failed, cls.refused = 0, [], 0
        cls.waiting, cls.current = [], None

    @classmethod
    def count(cls, job: Callable[[], list[str]]) -> None:
        """Do a job; one line for a request that is refused."""
        try:
            cls.failed += job()
        except RequestError as error:
            log.error("error: %s", error)
            cls.refused += 1
            cls.failed.append(str(error))

    @classmethod
    def code(cls) -> int:
        """The exit code; several failures, or one among several jobs, are listed at the end."""
        if cls.failed and not cls.started == cls.refused == 1:
            log.error("%d failed: %s", len(cls.failed), "; ".join(cls.failed))
        if cls.refused and cls.refused == cls.started:
            return 2
        return 1 if cls.failed else 0


_Outcome.clear()  # a launcher's other processes import this file and run jobs only


def command(
    job: Job, finish: Callable[[], object] = lambda: None, prepare: Prepare | None = None
) -> None:
    """Run `job` on the spec of the command line, several times in a multirun, and exit.

    `job` says what failed, one line each; `finish` comes after the last. With `prepare`, the jobs
    of a multirun in this process wait until all are known, then `prepare` sees their specs first;
    jobs that a launcher gives to other processes are done there, each alone. Exit codes: 0 done; 1
    something failed, or a part of a multirun was refused; 2 the request is wrong; 130 interrupted.
    """
    set_up_logging()
    _Outcome.clear()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # hydra raises, so that we print one line
    try:
        _composed(job, os.getpid() if prepare else None)()
        if prepare and _Outcome.waiting:
            _do_waiting(job, prepare)
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
    if _Outcome.current is not None:
        return _Outcome.current
    config = HydraConfig.get()
    return list(config.overrides.task) if config.mode == RunMode.MULTIRUN else None


def _do_waiting(job: Job, prepare: Prepare) -> None:
    """Do the jobs of a multirun whose specs are all known now."""
    prepare([spec for spec, _ in _Outcome.waiting])
    for spec, given in _Outcome.waiting:
        _Outcome.current = given
        _Outcome.count(partial(job, spec))


def _composed(job: Job, waits_in: int | None) -> Callable[[], None]:
    """The job as hydra calls it; a job of a multirun in process `waits_in` waits."""

    def run_job(config: DictConfig) -> None:
        _Outcome.started += 1
        _Outcome.count(lambda: start(config))

    def start(config: DictConfig) -> list[str]:
        spec = read_spec(_plain(config), lambda name: read_method(name, _own_folders()))
        given = overrides()
        if given is None or waits_in != os.getpid():
            return job(spec)
        _Outcome.waiting.append((spec, given))
        return []

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
