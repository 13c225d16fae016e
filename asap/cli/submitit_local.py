"""Jobs that submitit's local executor started on this machine.

With submitit they outlive the command that waits for them. Here they end with the command, and if
one of them dies the others are waited for, as under the other launchers. This needs Linux.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CONTROLLER = b"submitit.local._local"  # submitit's process for each job, a child of the command


def end_jobs() -> None:
    """Kill all jobs; their files are complete at any moment."""
    for controller in _running():
        jobs = list(_children(controller))
        for pid in [controller, *jobs]:  # the controller first: it goes on when its job ends
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def await_jobs() -> None:
    """Wait until no job is running."""
    while _running():
        time.sleep(0.1)


def _running() -> list[int]:
    """The controllers that have not ended."""
    return [pid for pid in _children(os.getpid()) if _CONTROLLER in _read(pid, "cmdline")]


def _children(pid: int) -> Iterator[int]:
    return map(int, _read(pid, f"task/{pid}/children").split())


def _read(pid: int, name: str) -> bytes:
    """The content of a file of a process under /proc; empty if the process has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""
