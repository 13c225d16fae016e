"""The command line: compose a config, run it, print the table.

    python -m asap.run experiment=demo
    python -m asap.run backbone=deit_base method=asap data=imagenet data.path=/data/imagenet
    python -m asap.run -m method=asap method.tau=2.5,3,3.5 method.clusters=4,6,8

Exit codes: 0 done; 1 some cells failed (listed; the others are recorded); 2 the request is wrong.
"""

import difflib
import logging
import os
import re
import sys
from dataclasses import fields, is_dataclass, replace
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
from asap.output import line_of, mirror, show, write_outputs
from asap.report.result import CellResult
from asap.runner import run
from asap.runs.configs import config_dir, read_method
from asap.runs.spec import RunSpec, read_spec
from asap.session import Session

log = logging.getLogger("asap")


class _Outcome:
    """What happened to the cells of this command, over all jobs of a multirun."""

    started: int
    failed: list[str]  # rows that failed, and requests that were refused
    refused: int
    sweep: dict[tuple[str, ...], tuple[Session, list[CellResult]]]  # a multirun's, by comparability

    @classmethod
    def clear(cls) -> None:
        cls.started, cls.failed, cls.refused, cls.sweep = 0, [], 0, {}

    @classmethod
    def code(cls) -> int:
        """The exit code; several failures, or one among several jobs, are listed at the end."""
        if cls.failed and not cls.started == cls.refused == 1:
            log.error("%d failed: %s", len(cls.failed), "; ".join(cls.failed))
        if cls.refused and cls.refused == cls.started:
            return 2
        return 1 if cls.failed else 0


def main() -> None:
    """Run and exit with the code that the module's docstring lists."""
    set_up_logging()
    _Outcome.clear()
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # hydra raises, so that we print one line
    try:
        _hydra_main()
    except KeyboardInterrupt:
        log.error("interrupted: run the same command again to continue where it stopped")
        sys.exit(130)
    except Exception as error:
        if _Outcome.started:
            raise
        log.error("error: %s", _not_composed(one_line(error)))
        sys.exit(2)
    _show_sweep()
    sys.exit(_Outcome.code())


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")
def _hydra_main(config: DictConfig) -> None:
    _Outcome.started += 1
    try:
        spec = read_spec(_plain(config), lambda name: read_method(name, _own_folders()))
        session, results = run(spec)
        mirror(spec, results)
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            _keep(session, results)
        else:
            show(write_outputs(session, results))
        _Outcome.failed += [f"{r.label}: {r.reason}" for r in results if r.reason]
    except RequestError as error:
        log.error("error: %s", error)
        _Outcome.refused += 1
        _Outcome.failed.append(str(error))


def _show_sweep() -> None:
    """The tables of a multirun, one for each group of rows that can be compared."""
    try:
        for session, results in _Outcome.sweep.values():
            show(write_outputs(session, results, f"{session.spec.title} (multirun)"))
    except RequestError as error:  # the records are there; it is only the table that is missing
        log.error("error: %s", error)
        _Outcome.failed.append(str(error))


def _keep(session: Session, results: list[CellResult]) -> None:
    """Say in a line how a job of a multirun went; its rows join one table at the end."""
    options = [o for o in HydraConfig.get().overrides.task if o.startswith("method.")]
    suffix = ", ".join(o.removeprefix("method.") for o in options)
    spec = session.spec
    group = (spec.backbone.name, str(spec.data), spec.precision, str(spec.limit))
    kept = _Outcome.sweep.setdefault(group, (session, []))[1]
    for result in results:
        if not result.is_dense and suffix:
            result = replace(result, label=f"{result.label} {suffix}")
        if result.records and all(result.key != other.key for other in kept):
            kept.append(result)
            log.info("%s", line_of(result))


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


if __name__ == "__main__":
    main()
