"""Rows that fail and leave the others alone, and images that fail where none may."""

import logging

import pandas as pd

from asap.errors import RequestError, one_line
from asap.records.store import Cell

log = logging.getLogger("asap")


def note_failure(cell: Cell, label: str, error: Exception) -> str:
    """Write error.json, print one line; the reason as tables and lists say it."""
    cell.fail(error)
    log.debug("failure of %s", label, exc_info=error)
    reason = one_line(error, kind=True)
    log.error("%s failed: %s (details: %s/error.json)", label, reason, cell.path)
    return f"failed: {reason}"


def refuse_unreadable(answers: pd.DataFrame) -> None:
    """RequestError with the first images that could not be evaluated and why, if there are any."""
    failed = answers[answers["error"].notna()]
    if failed.empty:
        return
    pairs = zip(failed["path"], failed["error"], strict=True)
    some = "; ".join(f"{path}: {error}" for path, error in list(pairs)[:3])
    raise RequestError(
        f"data.strict=true: {len(failed):,} of {len(answers):,} images could not be evaluated "
        f"({some}): repair them or set it false"
    )
