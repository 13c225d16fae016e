"""Footnotes for rows whose cost on the evaluated images misses the MACs budget."""

from collections.abc import Sequence
from dataclasses import replace

from asap.report.result import Result

TOLERANCE = 1.5  # percentage points of MACs; a smaller miss gets no footnote


def note_misses(results: Sequence[Result], macs_pct: float) -> list[Result]:
    """The results with a footnote on every row whose MACs miss the budget by more than TOLERANCE.

    macs_pct: the budget, MACs of backbone and method against the first dense row in %. Settings are
    chosen on calibration images, and their cost can differ on the evaluated ones.
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
        f"{macs_pct:+g} % MACs on these {result.things}."
    )
    return replace(result, note=f"{result.note} {said}" if result.note else said)
