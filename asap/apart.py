"""Rows whose method comes with trained weights for its backbone: run apart, shown in place."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from asap.report.result import CellResult, unmeasured
from asap.runs.spec import MethodSpec, RunSpec

Measure = Callable[[RunSpec], list[CellResult]]


def without_apart(spec: RunSpec) -> RunSpec:
    """The run without the rows that need a checkpoint of their own."""
    return replace(spec, rows=tuple(row for row in spec.rows if row.needs is None))


def insert_rows(
    spec: RunSpec,
    ready: RunSpec,
    missing: Mapping[int, str],
    results: list[CellResult],
    measure: Measure,
) -> list[CellResult]:
    """The results of all rows of `spec`, in its order.

    `results`: of the rows of `ready`, which are those of `without_apart(spec)` but for the
    `missing` ones, by position there, with the reason. Rows apart are measured here, each with
    its checkpoint, on the images of `ready`; one without its checkpoint says what it needs.
    """
    there, shown, position = iter(results), [], 0
    for row in spec.rows:
        if row.needs is not None:
            shown.append(_apart(ready, row, measure))
            continue
        reason = missing.get(position)
        shown.append(next(there) if reason is None else unmeasured(spec, row, reason))
        position += 1
    return shown


def _apart(spec: RunSpec, row: MethodSpec, measure: Measure) -> CellResult:
    """The row with its checkpoint for method and backbone. RequestError if the file is bad."""
    if row.file is None:
        return unmeasured(spec, row, f"it needs {row.needs}")
    backbone = replace(spec.backbone, weights=row.file, sha256=None, top1=None, source=None)
    own = replace(row, options={**row.options, "weights": row.file})
    (result,) = measure(replace(spec, backbone=backbone, rows=(own,)))
    return result
