"""While a command is imported, which takes seconds: Ctrl-C ends it at once, garbage stays."""

import gc
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_default = signal.default_int_handler


def _of_a_command() -> bool:
    """Whether `python -m asap...` imports the package on its way to a command.

    The command then calls `begun`.
    """
    return sys.argv[:1] == ["-m"]


def _watch_start() -> None:
    """Let Ctrl-C end a command at once while it still imports."""
    ours = threading.current_thread() is threading.main_thread()
    if ours and _of_a_command() and signal.getsignal(signal.SIGINT) is _default:
        signal.signal(signal.SIGINT, _end_at_once)


def _end_at_once(number: int, frame: FrameType | None) -> None:
    if os.environ.get("RANK", "0") == "0":  # only one of torchrun's processes prints it
        os.write(2, b"interrupted before anything began\n")
    os._exit(128 + number)


@contextmanager
def without_collections() -> Iterator[None]:
    """Import without garbage collections: they find next to nothing, in a quarter of the time.

    A command goes on without them until it has `begun`, as it has more to import.
    """
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects and not _of_a_command():
            gc.enable()


def begun() -> None:
    """The imports are done: Ctrl-C raises KeyboardInterrupt again, and garbage is collected.

    What was imported stays to the end, so later collections need not look at it.
    """
    if signal.getsignal(signal.SIGINT) is _end_at_once:
        signal.signal(signal.SIGINT, _default)
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


_watch_start()
