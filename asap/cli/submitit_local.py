"""Jobs that submitit's local executor started on this machine.

submitit lets them outlive the command that waits for them. Here they end with it, and where one of
them dies they are waited for, as under the other launchers. Linux; elsewhere submitit's way stays.
"""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

_CONTROLLER = b"submitit.local._local"  # the process beside each job, a child of the command


def end_jobs() -> None:
    """Kill them; what they have saved is whole at any moment."""
    for controller in _running():
        for pid in [*_children(controller), controller]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def await_jobs() -> None:
    """Wait until none of them runs."""
    while _running():
        time.sleep(0.1)


def _running() -> list[int]:
    """The controllers that have not ended."""
    return [pid for pid in _children(os.getpid()) if _CONTROLLER in _read(pid, "cmdline")]


def _children(pid: int) -> Iterator[int]:
    return map(int, _read(pid, f"task/{pid}/children").split())


def _read(pid: int, name: str) -> bytes:
    """What the kernel says of a process: nothing of one that has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/{name}").read_bytes()
    return b""
