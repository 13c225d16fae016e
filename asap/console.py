"""What commands print: messages on standard output, errors on standard error, nothing else."""

import logging
import sys

_ASIDE = ("Config search path:", "See https://hydra.cc", "object_type=")


def set_up_logging(rank: int = 0) -> None:
    """Send the project's log to the terminal, plain. Calling it twice changes nothing.

    Of several processes of one run, the first prints; the others (`rank` above 0) only warn.
    """
    log = logging.getLogger("asap")
    if log.handlers:
        return
    log.setLevel(logging.INFO)
    log.propagate = False
    messages = logging.StreamHandler(sys.stdout)
    messages.addFilter(lambda record: record.levelno < logging.WARNING)
    problems = logging.StreamHandler(sys.stderr)
    problems.setLevel(logging.WARNING)
    if rank == 0:
        log.addHandler(messages)
    else:
        problems.setFormatter(logging.Formatter(f"rank {rank}: %(message)s"))
    log.addHandler(problems)


def one_line(error: BaseException) -> str:
    """What an error says, on one line, without what only helps hydra's developers."""
    lines = [line.strip() for line in str(error).splitlines()]
    aside = [i for i, line in enumerate(lines) if line.startswith(_ASIDE)]
    said = [line for line in lines[: aside[0] if aside else None] if line]
    text = " ".join(" ".join(said).split())
    return text or type(error).__name__
