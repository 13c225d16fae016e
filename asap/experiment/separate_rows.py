"""What is run apart from the rows of a run: methods with trained weights of their own, and the
baseline on the images that calibration took.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from asap.errors import RequestError
from asap.report.result import Result, unmeasured
from asap.spec.run_spec import MethodSpec, RunSpec

Measure = Callable[[RunSpec], list[Result]]


def without_apart(spec: RunSpec) -> RunSpec:
    """The run without the rows that need a checkpoint of their own. RequestError if one is to have
    a file that does not exist: that must not show after all other rows.
    """
    for row in spec.rows:
        if row.needs is not None and row.file is not None and not Path(row.file).is_file():
            raise RequestError(
                f"{row.label}: the checkpoint file {row.file} does not exist: give {row.needs}"
            )
    return replace(spec, rows=tuple(row for row in spec.rows if row.needs is None))


def insert_rows(
    spec: RunSpec,
    ready: RunSpec,
    missing: Mapping[int, str],
    results: list[Result],
    measure: Measure,
) -> list[Result]:
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


def _apart(spec: RunSpec, row: MethodSpec, measure: Measure) -> Result:
    """The row with its checkpoint for method and backbone. RequestError if the file is bad."""
    if row.file is None:
        return unmeasured(spec, row, f"it needs {row.needs}")
    # What is said of the file of the other rows, its digest and its averages too, is not of this.
    backbone = replace(spec.backbone, weights=row.file, sha256=None, ema=None)
    backbone = replace(backbone, top1=None, source=None)
    own = replace(row, options={**row.options, "weights": row.file})
    (result,) = measure(replace(spec, backbone=backbone, rows=(own,)))
    return replace(result, own_weights=True)


def with_left_out(ready: RunSpec, results: list[Result], measure: Measure) -> list[Result]:
    """The results, the baseline with its record on the images that calibration left out, without
    which nobody could say whether it is the published one. No setting depends on it.
    """
    published = ready.backbone.top1 is not None and ready.backbone.weights != "random"
    dense = [i for i, result in enumerate(results) if result.is_dense and result.accuracy]
    if not dense or not published or ready.data.part != "rest" or ready.limit is not None:
        return results
    own = replace(ready, rows=(ready.rows[dense[0]],), data=replace(ready.data, part="slice"))
    own = replace(own, measure=replace(ready.measure, throughput=False))
    (left_out,) = measure(own)
    shown = list(results)
    shown[dense[0]] = replace(results[dense[0]], left_out=left_out.accuracy)
    return shown
