"""What a finished run must leave, whatever happened on the way."""

from pathlib import Path

import stress_run

FINISHED = {"answers.parquet", "traces.parquet", "accuracy.json", "config.yaml", ".lock"}


def outcome(results: Path) -> dict[str, bytes]:
    """Every file that must be the same, by its path; no other may be in a cell."""
    cells = (path for path in results.rglob("*") if path.parent.parent.name == "runs")
    left = {path.name for path in cells if path.is_file()}
    assert left <= FINISHED, left
    return stress_run.outcome(results)
