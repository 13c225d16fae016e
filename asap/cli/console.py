"""What commands print: messages on standard output, errors on standard error, nothing else."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn


def set_up_logging(rank: int = 0) -> None:
    """Send the project's log to the terminal, plain. Calling it twice changes nothing.

    Of several processes of one run, only the first prints; the others (`rank` above 0) only warn.
    """
    log = logging.getLogger("asap")
    if log.handlers:
        return
    log.setLevel(logging.INFO)
    log.propagate = False
    if isinstance(sys.stdout, TextIOWrapper):  # a terminal may lack some characters
        sys.stdout.reconfigure(errors="backslashreplace")
    messages = _Messages(sys.stdout)
    messages.addFilter(lambda record: record.levelno < logging.WARNING)
    problems = _Messages(sys.stderr)
    problems.setLevel(logging.WARNING)
    if rank == 0:
        log.addHandler(messages)
    else:
        problems.setFormatter(logging.Formatter(f"rank {rank}: %(message)s"))
    log.addHandler(problems)


class _Messages(logging.StreamHandler):
    """A handler for a stream that may fail, as with `| head` or a full disk: the work goes on."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            send_nowhere(self.stream, error)
        else:
            super().handleError(record)


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like those of all commands."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; {self.prog} --help says what there is\n")


def as_flags(given: Sequence[str] | None, *names: str) -> list[str]:
    """The words, by default those of the command line, with name=value turned into --name=value.

    So options can be given in the same way as for the commands that use Hydra.
    """
    words = sys.argv[1:] if given is None else given
    return [
        f"--{word}" if word.startswith(tuple(f"{n}=" for n in names)) else word for word in words
    ]


def let_go(stream: Any) -> None:
    """Flush a stream; if that fails, discard what is still written to it.

    None: the process was started without this stream (`>&-`).
    """
    if stream is None:
        return
    try:
        stream.flush()
    except OSError as error:
        send_nowhere(stream, error)


def send_nowhere(stream: Any, error: OSError) -> None:
    """Discard what is written to the stream from now on; warns once, but not after `| head`."""
    if not isinstance(error, BrokenPipeError):
        name = str(getattr(stream, "name", "output")).strip("<>")
        with suppress(OSError):  # straight to the descriptor, as the stream may be standard error
            os.write(2, f"{name} takes no more ({error.strerror}): the work goes on\n".encode())
    with suppress(OSError, ValueError), Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())
