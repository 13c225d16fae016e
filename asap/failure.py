"""One row that fails: written down, told in one line, and the other rows go on."""

import logging

from asap.runs.store import Cell

log = logging.getLogger("asap")


def note_failure(cell: Cell, label: str, error: Exception) -> str:
    """Write error.json, print one line; the reason as tables and lists say it."""
    cell.fail(error)
    log.debug("failure of %s", label, exc_info=error)
    reason = " ".join(f"{type(error).__name__}: {error}".split())
    log.error("%s failed: %s (details: %s/error.json)", label, reason, cell.path)
    return f"failed: {reason}"
