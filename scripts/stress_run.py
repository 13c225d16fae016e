"""The command that the stress test runs: how it is started, and the files that it must leave.

It runs in one process, under torchrun, and as a multirun under each of hydra's launchers.
"""

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO

from asap.records.store import Store
from asap.records.tables import ANSWER_COLUMNS, decode

ROWS = "rows=[{method: dense}, {method: random_drop}, {method: tome, with: {r: 3}}, "
ROWS += "{method: asap, with: {tau: 2.0}}]"
N_ROWS = 4
SWEEP = ("-m", "method=random_drop,tome,asap")  # four records, with the baseline
SHORT = ("-m", "method=tome,asap")  # three records, since each job starts a process
TWO = ["torch.distributed.run", "--standalone", "--nproc-per-node=2"]
LAUNCHES = {  # description, launching module, arguments, arguments for the same in one process
    "one": ("one process", [], [ROWS], [ROWS]),
    "torchrun": ("two processes under torchrun", TWO, [ROWS], [ROWS]),
    "basic": ("a multirun in one process (hydra's basic launcher)", [], [*SWEEP], [*SWEEP]),
    "joblib": (
        "a multirun whose two jobs run in two worker processes (joblib)",
        [],
        [*SHORT, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
        [*SHORT],
    ),
    "submitit": (
        "a multirun whose two jobs run in a process each (submitit's local executor)",
        [],
        [*SHORT, "hydra/launcher=submitit_local"],
        [*SHORT],
    ),
}
VOLATILE = ("created", "seconds", "environment", "batch_halved")  # when and where, not what
PATIENCE = 300  # seconds until a process counts as hanging


class Failure(Exception):
    """Something happened that must not happen."""


def reported(report: Path, command: str, stress: Callable[[Path], list[str]]) -> int:
    """Write and print the report of a stress test in a folder of its own; the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            lines, verdict = stress(Path(folder)), "passed"
        except Failure as failure:
            lines, verdict = [str(failure).replace(folder, "<folder>")], "FAILED"
    text = "\n".join([command, "", *lines, "", verdict]) + "\n"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(text, "utf-8")
    sys.stdout.write(text)
    return 0 if verdict == "passed" else 1


@dataclass
class Started:
    """A running command, in its own session, and its standard error."""

    process: subprocess.Popen
    errors: IO[str]

    def end(self) -> tuple[int, str]:
        """Wait for the end; returns the exit code and standard error."""
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failure(f"no end within {PATIENCE} s") from None
        self.errors.seek(0)
        return code, self.errors.read()

    def finish(self) -> None:
        """Wait for the end. Failure if the exit code is not 0."""
        code, said = self.end()
        if code != 0:
            raise Failure(f"exit code {code}: {said.strip()[-400:]}")


@dataclass
class Run:
    """A command that is started several times, on different results folders."""

    images: int
    launch: str = "one"
    shard_seconds: float = 0.2

    @property
    def name(self) -> str:
        return LAUNCHES[self.launch][0]

    @property
    def rows(self) -> int:
        """The number of records that the command makes."""
        return N_ROWS - (LAUNCHES[self.launch][3] == [*SHORT])

    def start(self, results: Path, alone: bool = False) -> Started:
        """Start the command; with `alone`, in one process instead of by the launcher."""
        _, through, what, in_one = LAUNCHES[self.launch]
        through, what = ([], in_one) if alone else (through, what)
        command = [
            *(sys.executable, "-m"), *through, *(["-m"] if through else []), "asap.run", *what,
            "title=Stress", "device=cpu", "batch_size=8", f"data.images={self.images}",
            f"shard_seconds={self.shard_seconds}", f"results={results}",
        ]  # fmt: skip
        errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (read after the end)
        # A background job of a shell ignores SIGINT, and so would its child processes.
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
            start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        return Started(process, errors)


def wait_for_work(started: Started, results: Path) -> float:
    """Wait until the command has done its imports and opened the store; returns the time."""
    runs = results / "runs"
    before = _changed(runs)
    while _changed(runs) == before and started.process.poll() is None:
        time.sleep(0.002)
    return time.time()


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


# ---- what a folder holds


def outcome(results: Path) -> dict[str, bytes]:
    """The content, by path, of every file that must not depend on interruptions."""
    files = [*results.glob("runs/*/*.parquet"), *results.glob("tables/*")]
    found = {str(path.relative_to(results)): path.read_bytes() for path in files}
    for path in results.glob("runs/*/accuracy.json"):
        record = json.loads(path.read_bytes())
        lasting = {k: v for k, v in record.items() if k not in VOLATILE}
        found[str(path.relative_to(results))] = json.dumps(lasting, sort_keys=True).encode()
    return found


def compare(results: Path, expected: dict[str, bytes], rows: int) -> None:
    """Raise Failure unless a finished run has exactly the files of the undisturbed run."""
    found = outcome(results)
    if found.keys() != expected.keys():
        raise Failure(f"other files: {sorted(found.keys() ^ expected.keys())}")
    if differing := [name for name in expected if found[name] != expected[name]]:
        raise Failure(f"other bytes: {differing}")
    patterns = ("*.tmp", "shard-*", "error.json", "*.corrupt", ".probe")
    if left := [path.name for pattern in patterns for path in results.rglob(pattern)]:
        raise Failure(f"left over: {left}")
    if (count := len(Store(results / "runs").cells())) != rows:
        raise Failure(f"{count} records instead of {rows}")


def check_sound(results: Path, images: int) -> Counter[str]:
    """Count what a kill left. Failure if a file with a final name is incomplete or duplicated."""
    seen = Counter[str]()
    for cell in (path for path in results.glob("runs/*") if path.is_dir()):
        bounds = []
        for path in cell.glob("*.parquet"):
            if path.name == "traces.parquet":
                continue
            rows = decode(path.read_bytes(), ANSWER_COLUMNS)["index"].to_pylist()
            if path.name == "answers.parquet":
                start, stop = 0, images
            else:
                start, stop = map(int, path.stem.split("-")[1:])
                bounds.append((start, stop))
            if rows != list(range(start, stop)):
                raise Failure(f"{path.name} does not hold each of its images once")
        if any(second < stop for (_, stop), (second, _) in pairwise(sorted(bounds))):
            raise Failure("shards overlap")
        for path in cell.glob("*.json"):
            json.loads(path.read_bytes())
        done = (cell / "accuracy.json").exists()
        seen["finished rows"] += done
        seen["rows with shards"] += bool(bounds) and not done
        seen["temporary files"] += len(list(cell.glob(".*.tmp")))
    return seen


def work_done(results: Path) -> dict[Path, int]:
    """The files that a restart must not change, with their modification times."""
    found = {}
    for cell in (path for path in results.glob("runs/*") if path.is_dir()):
        done = (cell / "accuracy.json").exists()
        names = ("accuracy.json", "*.parquet", "config.yaml") if done else ("shard-*",)
        for path in (path for name in names for path in cell.glob(name)):
            found[path] = path.stat().st_mtime_ns
    return found


def check_kept(before: dict[Path, int]) -> None:
    """Raise Failure if a finished row, or saved images, have been evaluated again."""
    for path, written in before.items():
        if path.exists():
            if path.stat().st_mtime_ns != written:
                raise Failure(f"{path.parent.name}/{path.name} was written again")
        elif not (path.name.startswith("shard-") and (path.parent / "accuracy.json").exists()):
            raise Failure(f"{path.parent.name}/{path.name} is gone")
