"""What the jobs of a multirun did, told by files: a launcher may run them on other machines.

    <results>/multirun/jobs-<name>/<number>.json

A job writes its file when it begins and again when it ends; the process that was started by the
user reads them all, makes one table of them and removes them. The numbers are in the records.
"""

import json
import shutil
import uuid
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback

from asap.records.disk import read_bytes, write_bytes
from asap.records.store import Store
from asap.report.result import Result, RowRef
from asap.spec.read import spec_from
from asap.spec.run_spec import RunSpec


@dataclass
class Job:
    """One job: what it was given, what failed, and its rows as they were run."""

    number: int = 0
    overrides: list[str] = field(default_factory=list)
    several: bool = False  # one of a multirun
    ended: bool = False
    refused: bool = False
    failed: list[str] = field(default_factory=list)  # rows, or the request that was refused
    spec: RunSpec | None = None
    results: list[Result] = field(default_factory=list)


@dataclass
class Board:
    """The folder where the jobs of this multirun write. It travels to other processes."""

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


BOARD = Board()  # of this process; the hook below gives it its folder


class Hook(Callback):
    """Named in configs/config.yaml: tells where a multirun that starts will write."""

    def on_multirun_start(self, config: Any, **_: Any) -> None:
        below = Path(str(config.hydra.sweep.dir)).absolute()
        BOARD.folder = below / f"jobs-{uuid.uuid4().hex[:12]}"


def _encode(job: Job) -> bytes:
    plain = {f.name: getattr(job, f.name) for f in fields(Job)}
    plain["spec"] = None if job.spec is None else asdict(job.spec)
    plain["results"] = [_names(result) for result in job.results]
    return json.dumps(plain, default=str).encode()  # paths become texts


def _names(result: Result) -> dict[str, Any]:
    """A result with the keys of its records in their place."""
    return {"ref": asdict(result.ref), "config": result.config}


def _decode(content: bytes) -> Job:
    plain = json.loads(content)
    spec = None if plain["spec"] is None else spec_from(plain["spec"])
    results = [] if spec is None else [_found(spec, named) for named in plain["results"]]
    return Job(**{**plain, "spec": spec, "results": results})


def _found(spec: RunSpec, named: dict[str, Any]) -> Result:
    """A result with its records as they are on the disk."""
    found = Result.from_store(Store(spec.results / "runs"), RowRef(**named["ref"]))
    return replace(found, config=named["config"])
