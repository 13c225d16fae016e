"""The command line: compose a config, run it, print the table.

    python -m asap.run experiment=demo
    python -m asap.run backbone=deit_base method=asap data=imagenet data.path=/data/imagenet
    python -m asap.run -m method=asap method.tau=2.5,3,3.5 method.clusters=4,6,8

Exit codes: 0 done; 1 some cells failed (listed; the others are recorded); 2 the request is wrong.
"""

import logging
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from asap.console import set_up_logging
from asap.errors import RequestError
from asap.output import show, write_outputs
from asap.runner import run
from asap.runs.configs import config_dir, read_method
from asap.runs.spec import read_spec

log = logging.getLogger("asap")


class _Outcome:
    """What happened to the cells of this command, over all jobs of a multirun."""

    started = 0
    failed: list[str]  # noqa: RUF012  (set in main)
    refused: list[str]  # noqa: RUF012


def main() -> None:
    """Run and exit with the code that the module's docstring lists."""
    set_up_logging()
    _Outcome.failed, _Outcome.refused = [], []
    try:
        _hydra_main()
    except SystemExit as stop:
        if stop.code and not _Outcome.started:
            sys.exit(2)  # the config did not compose: hydra has said why
        raise
    except KeyboardInterrupt:
        log.error("interrupted: run the same command again to continue where it stopped")
        sys.exit(130)
    done = _Outcome.started - len(_Outcome.refused)
    if _Outcome.failed:
        log.error("%d failed: %s", len(_Outcome.failed), "; ".join(_Outcome.failed))
    sys.exit(2 if _Outcome.refused and not done else 1 if _Outcome.failed else 0)


@hydra.main(version_base="1.3", config_path=str(config_dir()), config_name="config")
def _hydra_main(config: DictConfig) -> None:
    _Outcome.started += 1
    try:
        spec = read_spec(_plain(config), lambda name: read_method(name, _own_folders()))
        session, results = run(spec)
        show(write_outputs(session, results))
        _Outcome.failed += [f"{r.label}: {r.reason}" for r in results if r.reason]
    except RequestError as error:
        log.error("error: %s", error)
        _Outcome.refused.append(str(error))
        _Outcome.failed.append(str(error))


def _plain(config: DictConfig) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise RequestError(str(error).splitlines()[0]) from None
    assert isinstance(plain, dict)
    return {str(k): v for k, v in plain.items() if k != "hydra"}


def _own_folders() -> list[Path]:
    """Folders given with --config-dir: their configs come before the project's."""
    sources = HydraConfig.get().runtime.config_sources
    return [Path(s.path) for s in sources if s.schema == "file" and s.provider == "command-line"]


if __name__ == "__main__":
    main()
