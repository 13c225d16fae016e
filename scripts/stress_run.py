"""One command as a stress test runs it: how it is started and killed, and what it must leave.

Three ways to start it: in one process, under torchrun, and as a multirun in worker processes.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from asap.runs.predictions import decode_predictions
from asap.runs.store import Store

ROWS = "rows=[{method: dense}, {method: random_drop}, {method: tome, with: {r: 3}}, "
ROWS += "{method: asap, with: {tau: 2.0}}]"
SWEEP = ("-m", "method=asap", "method.tau=1.5,2,2.5")  # with the baseline: four records
N_ROWS = 4
LAUNCHES = {
    "one": ("one process", [], [ROWS]),
    "torchrun": (
        "two processes under torchrun",
        ["torch.distributed.run", "--standalone", "--nproc-per-node=2"],
        [ROWS],
    ),
    "multirun": (
        "a multirun whose jobs run in two worker processes (joblib)",
        [],
        [*SWEEP, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"],
    ),
}
ALONE = {"one": [ROWS], "torchrun": [ROWS], "multirun": list(SWEEP)}  # the same in one process
VOLATILE = ("created", "seconds", "environment")  # of a record: when and where, not what
PATIENCE = 300  # seconds until a process counts as hanging


class Failure(Exception):
    """What must not happen did."""


@dataclass
class Run:
    """The same command again and again, on different results folders."""

    images: int
    launch: str = "one"
    shard_seconds: float = 0.2

    @property
    def name(self) -> str:
        return LAUNCHES[self.launch][0]

    def start(self, results: Path, alone: bool = False) -> subprocess.Popen:
        """Start it; `alone`: whatever the launch is, in one process."""
        _, through, what = LAUNCHES[self.launch]
        through, what = ([], ALONE[self.launch]) if alone else (through, what)
        command = [
            *(sys.executable, "-m"), *through, *(["-m"] if through else []), "asap.run", *what,
            "title=Stress", "device=cpu", "batch_size=8", f"data.images={self.images}",
            f"shard_seconds={self.shard_seconds}", f"results={results}",
        ]  # fmt: skip
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, text=True, **quiet)

    def finish(self, process: subprocess.Popen) -> None:
        _, errors = process.communicate(timeout=PATIENCE)
        if process.returncode != 0:
            raise Failure(f"exit code {process.returncode}: {errors.strip()[-400:]}")


def wait_for_work(process: subprocess.Popen, results: Path) -> float:
    """Wait until imports are done and the store is opened; the moment."""
    runs = results / "runs"
    before = _changed(runs)
    while _changed(runs) == before and process.poll() is None:
        time.sleep(0.002)
    return time.monotonic()


def _changed(folder: Path) -> int:
    try:
        return folder.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


# ---- kills


def kill(process: subprocess.Popen, launch: str, draw: random.Random) -> str:
    """Send SIGKILL to a part of the command or to all of it; what was hit. Returns when all of it
    is gone, which a command that lost a part must bring about by itself."""
    parts = list(_descendants(process.pid))
    workers = [pid for pid in parts if _is_worker(pid, launch)]
    # A launcher of workers that is killed alone leaves them to themselves: only torchrun's end.
    choices = ["everything", *(["one worker"] if workers else [])]
    victim = draw.choice([*choices, "torchrun itself"] if launch == "torchrun" else choices)
    if victim == "one worker":
        os.kill(draw.choice(workers), signal.SIGKILL)
    else:
        _kill_all([process.pid, *(parts if victim == "everything" else [])])
    process.communicate(timeout=PATIENCE)
    if process.returncode == 0 and victim == "one worker":
        raise Failure("a worker was killed and the exit code is 0")
    _await_end(parts)
    return victim


def _is_worker(pid: int, launch: str) -> bool:
    """Whether the process does work: launchers have helpers beside them."""
    mark = {"torchrun": "asap.run", "multirun": "popen_loky"}.get(launch)
    try:
        return mark is not None and mark in Path(f"/proc/{pid}/cmdline").read_text("utf-8")
    except OSError:
        return False


def _descendants(pid: int) -> Iterator[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()
    except OSError:
        return
    for child in map(int, children):
        yield child
        yield from _descendants(child)


def _kill_all(pids: list[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def _await_end(pids: list[int]) -> None:
    """Wait until none of the processes runs; Failure if one goes on alone."""
    deadline = time.monotonic() + 60
    while left := [pid for pid in pids if _runs(pid)]:
        if time.monotonic() > deadline:
            _kill_all(left)
            raise Failure(f"{len(left)} processes went on after the command had ended")
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ---- what a folder holds


def outcome(results: Path) -> dict[str, bytes]:
    """Every file that must be the same whatever happened on the way, by its path."""
    files = [*results.glob("runs/*/predictions.parquet"), *results.glob("tables/*")]
    found = {str(path.relative_to(results)): path.read_bytes() for path in files}
    for path in results.glob("runs/*/accuracy.json"):
        record = json.loads(path.read_bytes())
        lasting = {k: v for k, v in record.items() if k not in VOLATILE}
        found[str(path.relative_to(results))] = json.dumps(lasting, sort_keys=True).encode()
    return found


def compare(results: Path, expected: dict[str, bytes]) -> None:
    """Raise Failure unless a finished run's files are those of the undisturbed one, and no more."""
    found = outcome(results)
    if found.keys() != expected.keys():
        raise Failure(f"other files: {sorted(found.keys() ^ expected.keys())}")
    if differing := [name for name in expected if found[name] != expected[name]]:
        raise Failure(f"other bytes: {differing}")
    patterns = ("*.tmp", "shard-*", "error.json", "*.corrupt", ".probe")
    if left := [path.name for pattern in patterns for path in results.rglob(pattern)]:
        raise Failure(f"left over: {left}")
    if (count := len(Store(results / "runs").cells())) != N_ROWS:
        raise Failure(f"{count} records instead of {N_ROWS}")


def check_sound(results: Path, images: int) -> Counter[str]:
    """What a kill left. Raises Failure if anything under a final name is torn or doubled."""
    seen = Counter[str]()
    for cell in (path for path in results.glob("runs/*") if path.is_dir()):
        bounds = []
        for path in cell.glob("*.parquet"):
            rows = sorted(decode_predictions(path.read_bytes())["index"])
            if path.name == "predictions.parquet":
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
