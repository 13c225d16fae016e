"""A command with a time limit, whose output is shown and kept as it comes."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TextIO


def run_part(words: Sequence[str], seconds: float, log: Path) -> str:
    """Run the command; how it ended, and after how long, such as "exit code 1, 12 s".

    It is a process group of its own: whatever it started ends with it, also when time is up. What
    it prints goes to this process's output and to the end of `log`.
    """
    began = time.monotonic()
    with log.open("a", encoding="utf-8", buffering=1) as file:
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            start_new_session=True,
        )  # fmt: skip
        copying = threading.Thread(target=_copy, args=(process, file), daemon=True)
        copying.start()
        try:
            code = process.wait(seconds)
            how = "done" if code == 0 else f"exit code {code}"
        except subprocess.TimeoutExpired:
            how = f"stopped after {seconds:.0f} s"
        finally:
            _end(process)
            copying.join(5)
    return f"{how}, {time.monotonic() - began:.0f} s"


def _copy(process: "subprocess.Popen[str]", file: TextIO) -> None:
    assert process.stdout is not None
    with process.stdout as lines:
        for line in lines:
            sys.stdout.write(line)
            sys.stdout.flush()
            file.write(line)


def _end(process: "subprocess.Popen[str]") -> None:
    with suppress(ProcessLookupError):  # all of them have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
