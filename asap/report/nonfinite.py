"""Answers that are not finite (NaN or infinity): their footnote, and how many a row may have.

They count as wrong in every row, the baseline too, so a numerically broken run can look as if
reduction cost nothing. A row with more than `MOST` of them cannot be compared with published rows.
"""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

MOST = Fraction(1, 1000)  # of the images evaluated
_REMEDIES = {"fp16": "use precision=bf16 or fp32", "bf16": "use precision=fp32"}


def nonfinite(record: Mapping[str, Any]) -> int:
    """Images of an accuracy record whose answer holds a NaN or an infinity."""
    return record.get("n_nonfinite", 0)


def too_many(record: Mapping[str, Any]) -> str | None:
    """Why a record does not count as comparable; None if at most `MOST` answers are not finite."""
    if nonfinite(record) <= MOST * record["n"]:
        return None
    return f"{_count(record)} are not finite, more than {float(100 * MOST):g} %"


def nonfinite_note(record: Mapping[str, Any]) -> str | None:
    """The footnote of a row with such answers: their number and a remedy; None without any."""
    if not nonfinite(record):
        return None
    precision = record["precision"]
    remedy = _REMEDIES.get(precision, "look for the reason in the weights and the method")
    said = f"{_count(record)} in {precision} are not finite (NaN or infinity) and count as wrong"
    if too_many(record):
        said += f"; above {float(100 * MOST):g} % the row does not count as comparable"
    return f"{said}: {remedy}."


def counts(record: Mapping[str, Any]) -> str:
    """The number of images, and of unreadable ones and answers that are not finite, if any."""
    parts = [f"n = {record['n']:,}"]
    parts += [f"{record['n_failed']:,} unreadable"] if record["n_failed"] else []
    parts += [f"{nonfinite(record):,} not finite"] if nonfinite(record) else []
    return ", ".join(parts)


def _count(record: Mapping[str, Any]) -> str:
    return f"{nonfinite(record):,} of {record['n']:,} answers"
