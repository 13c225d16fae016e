"""Ctrl-C and SIGTERM: both end a command in order, with one line and an exit code of its own."""

import logging
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

log = logging.getLogger("asap")
_default = signal.default_int_handler


class Terminated(KeyboardInterrupt):
    """SIGTERM, raised in the main thread. Code that handles Ctrl-C handles this too."""


def _watch_start() -> None:
    """Let Ctrl-C end a command at once while it still imports, which takes seconds.

    Only where `python -m asap...` imports the package on its way to a command, which then
    calls `begun`.
    """
    ours = threading.current_thread() is threading.main_thread()
    if ours and sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is _default:
        signal.signal(signal.SIGINT, _end_at_once)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    if os.environ.get("RANK", "0") == "0":  # only one of torchrun's processes prints it
        os.write(2, b"interrupted before anything began\n")
    os._exit(128 + number)


def begun() -> None:
    """The imports are done: from now on Ctrl-C raises KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end_at_once:
        signal.signal(signal.SIGINT, _default)


@contextmanager
def terminable() -> Iterator[None]:
    """Let SIGTERM raise `Terminated` in this process, as Ctrl-C raises KeyboardInterrupt.

    Processes that are forked from this one end at once, as without this. Nothing changes outside
    the main thread, or if the process was started with another handler.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    process = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            raise Terminated
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def exit_code(error: KeyboardInterrupt) -> int:
    """128 plus the signal's number, as in shells."""
    return 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)


_watch_start()
