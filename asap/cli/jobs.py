"""The jobs of a command line: composed by Hydra, and run here or in a launcher's processes.

    <results>/multirun/jobs-<name>/<number>.json

A job in another process writes its file when it begins and again when it ends. The process that the
user started reads all files, makes one table and removes them. The results are in the records; a
file has only their keys.
"""

import json
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from asap.cli.compose import given, launcher_of, read
from asap.cli.console import set_up_logging
from asap.experiment.job import Job
from asap.records.disk import read_bytes, write_bytes
from asap.records.store import Store
from asap.report.result import Result, RowRef
from asap.spec.configs import config_dir
from asap.spec.read import spec_from
from asap.spec.run_spec import RunSpec


def compose_jobs(jobs: list[Job], work: Callable[[Sequence[Job]], None]) -> None:
    """Let Hydra compose the specs of the command line, and add a job for each to `jobs`.

    With a process launcher, each job also does its `work`, in the process that composes it.
    """
    board = BOARD  # pickled with `compose_one` for other processes

    def compose_one(config: DictConfig) -> None:
        set_up_logging()
        hydra_config = HydraConfig.get()
        job = _begun(hydra_config)
        jobs.append(job)
        elsewhere = job.several and launcher_of(hydra_config) != "basic"
        if elsewhere:
            board.write(job)
        with job.attempt():
            job.spec = read(config)
        if elsewhere:
            work([job] if job.spec is not None else [])
            job.ended = True
            board.write(job)

    hydra.main(str(config_dir()), "config", version_base="1.3")(compose_one)()


def _begun(config: Any) -> Job:
    """A new job; in a multirun with its number and overrides."""
    if config.mode != RunMode.MULTIRUN:
        return Job(environment=dict(config.job.env_set))
    return Job(int(config.job.num), given(config), True, dict(config.job.env_set))


@dataclass
class Board:
    """The folder where jobs in other processes write; None if this is not a multirun."""

    folder: Path | None = None

    def write(self, job: Job) -> None:
        if self.folder is not None:
            write_bytes(self.folder / f"{job.number}.json", _encode(job))

    def read(self) -> list[Job]:
        """All jobs that have begun, by number."""
        paths = [] if self.folder is None else self.folder.glob("*.json")
        contents = [read_bytes(path) for path in paths]
        return sorted((_decode(c) for c in contents if c), key=lambda job: job.number)

    def clear(self) -> None:
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)
        self.folder = None


BOARD = Board()  # of this process; the hook below sets its folder


class Hook(Callback):
    """Named in configs/config.yaml: sets the folder of the board when a multirun starts."""

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        below = Path(str(config.hydra.sweep.dir)).absolute()
        BOARD.folder = below / f"jobs-{uuid.uuid4().hex[:12]}"


def _encode(job: Job) -> bytes:
    plain = {f.name: getattr(job, f.name) for f in fields(Job)}
    plain["spec"] = None if job.spec is None else asdict(job.spec)
    plain["results"] = [_names(result) for result in job.results]
    return json.dumps(plain, default=str).encode()  # paths become texts


def _names(result: Result) -> dict[str, Any]:
    """A result for a file: the keys of its records instead of the records."""
    return {"ref": asdict(result.ref), "config": result.config}


def _decode(content: bytes) -> Job:
    plain = json.loads(content)
    spec = None if plain["spec"] is None else spec_from(plain["spec"])
    results = [] if spec is None else [_found(spec, named) for named in plain["results"]]
    return Job(**{**plain, "spec": spec, "results": results})


def _found(spec: RunSpec, named: dict[str, Any]) -> Result:
    """The result for such keys, with its records read from the disk."""
    found = Result.from_store(Store(spec.results / "runs"), RowRef(**named["ref"]))
    return replace(found, config=named["config"])
