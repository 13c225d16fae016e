"""What a finished run must leave, whatever happened on the way."""

import json
from pathlib import Path

VOLATILE = ("created", "seconds", "environment", "batch_halved")  # when and where, not what
TABLES = ("answers.parquet", "traces.parquet")
FINISHED = {*TABLES, "accuracy.json", "config.yaml", ".lock"}


def outcome(results: Path) -> dict[str, bytes]:
    """Every file that must be the same, by its path; no other may be in a cell."""
    cells = (path for path in results.rglob("*") if path.parent.parent.name == "runs")
    left = {path.name for path in cells if path.is_file()}
    assert left <= FINISHED, left
    paths = [*results.glob("runs/*/*.parquet"), *results.glob("tables/*")]
    found = {str(path.relative_to(results)): path.read_bytes() for path in paths}
    for path in results.glob("runs/*/accuracy.json"):
        record = json.loads(path.read_bytes())
        lasting = {k: v for k, v in record.items() if k not in VOLATILE}
        found[str(path.relative_to(results))] = json.dumps(lasting, sort_keys=True).encode()
    return found
