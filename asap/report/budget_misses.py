"""Rows that were brought to a MACs budget, and what they cost on the images of the table."""

from collections.abc import Sequence
from dataclasses import replace

from asap.report.result import Result

TOLERANCE = 1.5  # points between a row's cost and the budget before the table says so


def note_misses(results: Sequence[Result], macs_pct: float) -> list[Result]:
    """The results with a footnote on every row whose MACs miss the budget by more than TOLERANCE.

    `macs_pct`: MACs of backbone and method against the first dense row, in %. A setting is chosen
    on calibration images, and where images differ in cost so do sets of images.
    """
    dense = next((r for r in results if r.is_dense and r.accuracy is not None), None)
    return [_noted(result, dense, macs_pct) for result in results]


def _noted(result: Result, dense: Result | None, macs_pct: float) -> Result:
    if dense is None or result.accuracy is None or result.is_dense:
        return result
    missed = 100 * (result.gmacs / dense.gmacs - 1) - macs_pct
    if abs(missed) <= TOLERANCE:
        return result
    said = (
        f"Misses the budget: {abs(missed):.2f} points {'above' if missed > 0 else 'below'} "
        f"{macs_pct:+g} % MACs on these images."
    )
    return replace(result, note=f"{result.note} {said}" if result.note else said)
