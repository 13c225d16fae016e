"""What commands print: messages on standard output, errors on standard error, nothing else."""

import logging
import sys


def set_up_logging() -> None:
    """Send the project's log to the terminal, plain. Calling it twice changes nothing."""
    log = logging.getLogger("asap")
    if log.handlers:
        return
    log.setLevel(logging.INFO)
    log.propagate = False
    messages = logging.StreamHandler(sys.stdout)
    messages.addFilter(lambda record: record.levelno < logging.WARNING)
    problems = logging.StreamHandler(sys.stderr)
    problems.setLevel(logging.WARNING)
    log.addHandler(messages)
    log.addHandler(problems)
