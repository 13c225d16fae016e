"""Answers that are not finite: how many a row may have, and what it says of them.

They are wrong answers, so a reduction of a broken run loses little against its broken baseline: a
row with more than `MOST` of them compares with nothing that others published.
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
    """Why a record does not count as comparable, None if at most `MOST` of its answers are so."""
    if nonfinite(record) <= MOST * record["n"]:
        return None
    return f"{_count(record)} are not finite, more than {float(100 * MOST):g} %"


def nonfinite_note(record: Mapping[str, Any]) -> str | None:
    """The footnote of a row with such answers: how many, and the remedy."""
    if not nonfinite(record):
        return None
    precision = record["precision"]
    remedy = _REMEDIES.get(precision, "look for the reason in the weights and the method")
    said = f"{_count(record)} in {precision} are not finite (NaN or infinity) and count as wrong"
    if too_many(record):
        said += f"; above {float(100 * MOST):g} % the row does not count as comparable"
    return f"{said}: {remedy}."


def counts(record: Mapping[str, Any]) -> str:
    """n, and what is not as it should be, in words."""
    parts = [f"n = {record['n']:,}"]
    parts += [f"{record['n_failed']:,} unreadable"] if record["n_failed"] else []
    parts += [f"{nonfinite(record):,} not finite"] if nonfinite(record) else []
    return ", ".join(parts)


def _count(record: Mapping[str, Any]) -> str:
    return f"{nonfinite(record):,} of {record['n']:,} answers"
