"""Sends signals as users, schedulers or the kernel do, and checks how a command ends."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from stress_run import Failure, Started

WORKERS = {"torchrun": "asap.run", "joblib": "popen_loky", "submitit": "submitit.core._submit"}
PROMISED = {"INT": 130, "TERM": 143}
GRACE = 60  # seconds that processes may outlive their command


def send(name: str, started: Started, launch: str, draw: random.Random) -> tuple[str, bool]:
    """Send a signal and wait until the command has ended all of its processes.

    Returns a description of the receiver, and whether the exit code was 0, which means that the
    work was done already. Raises Failure if the command ends with another exit code than
    documented, or leaves processes running.
    """
    pid = started.process.pid
    parts = sorted({*_descendants(pid), *_session(pid)} - {pid})
    victim = _send(name, pid, parts, launch, draw)
    code, said = started.end()
    _await_end(pid, parts)
    if code == 0:
        return victim, True
    promised = name in PROMISED and launch != "torchrun"  # torchrun itself gives 1 or a traceback
    if promised and code != PROMISED[name]:
        raise Failure(f"exit code {code} after SIG{name} to {victim}: {said.strip()[-600:]}")
    if promised and (trace := _tracebacks(said)):
        raise Failure(f"a traceback after SIG{name} to {victim}: {trace[:2500]}")
    return victim, False


def _send(name: str, pid: int, parts: list[int], launch: str, draw: random.Random) -> str:
    if name == "INT":
        os.killpg(pid, signal.SIGINT)
        return "all, as Ctrl-C does"
    if name == "TERM":
        return _hit(draw.choice(["everything", "the command alone"]), signal.SIGTERM, pid, parts)
    workers = [part for part in parts if _is_worker(part, launch)]
    choices = ["everything", *(["one worker"] if workers else [])]
    # If a launcher is killed alone, its workers go on; only those of torchrun end.
    victim = draw.choice([*choices, "torchrun itself"] if launch == "torchrun" else choices)
    if victim == "one worker":
        return _hit(victim, signal.SIGKILL, draw.choice(workers), [])
    return _hit(victim, signal.SIGKILL, pid, parts)


def _hit(victim: str, number: signal.Signals, pid: int, parts: list[int]) -> str:
    for target in [pid, *(parts if victim == "everything" else [])]:
        try:
            os.kill(target, number)
        except ProcessLookupError:
            continue
    return victim


def _tracebacks(said: str) -> str:
    """The output from the first traceback on."""
    return said[said.index("Traceback") :] if "Traceback" in said else ""


# ---- processes


def _is_worker(pid: int, launch: str) -> bool:
    """True if the process is a worker and not a helper process of the launcher."""
    mark = WORKERS.get(launch)
    return mark is not None and mark in _read(pid, "cmdline")


def _descendants(pid: int) -> Iterator[int]:
    for child in map(int, _read(pid, f"task/{pid}/children").split()):
        yield child
        yield from _descendants(child)


def _session(leader: int) -> Iterator[int]:
    """The running processes of a session, whatever their parent is now."""
    for pid in (int(path.name) for path in Path("/proc").glob("[0-9]*")):
        fields = _read(pid, "stat").rpartition(")")[2].split()
        if fields and fields[0] != "Z" and int(fields[3]) == leader:
            yield pid


def _await_end(leader: int, parts: list[int]) -> None:
    """Wait until none of the processes runs. Failure if one is still running after `GRACE`."""
    deadline = time.monotonic() + GRACE
    while left := {*(pid for pid in parts if _runs(pid)), *_session(leader)}:
        if time.monotonic() > deadline:
            _hit("everything", signal.SIGKILL, left.pop(), list(left))
            raise Failure(f"{len(left) + 1} processes went on after the command had ended")
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    fields = _read(pid, "stat").rpartition(")")[2].split()
    return bool(fields) and fields[0] != "Z"


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text("utf-8", "replace")
    except OSError:
        return ""
