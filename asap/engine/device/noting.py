"""Writes what a method found, and what became of its images, into the trace of a whole batch."""

from collections.abc import Mapping

from jaxtyping import Bool, Int
from torch import Tensor

from asap.engine.kernels import trace_values
from asap.engine.kernels.trace_values import Written, write_values
from asap.engine.trace import Trace
from asap.methods.base import Column


def note(
    trace: Trace,
    block: int,
    macs: int | Int[Tensor, "b"],
    diagnostics: Mapping[str, Tensor],
    chosen: Bool[Tensor, "b"] | None,
    averaged: tuple[Int[Tensor, "b"], int] | None = None,
) -> None:
    """As `Trace.write`, for all images of the batch.

    averaged: rows averaged in each image and the MACs of one. With it, the chosen images are
    reduced in this block, as in `Trace.write_reduced`.
    """
    declared = {column.name: column for column in trace.declared}
    if unknown := diagnostics.keys() - declared.keys():
        raise ValueError(f"{min(unknown)!r} is not among the columns that the method declares")
    columns = []
    for name, value in diagnostics.items():
        held, column = trace.columns[name], declared[name]
        place = held[:, block] if column.per_block else held
        columns.append(Written(place, value, _combine(column)))
    reduced = None if averaged is None else (trace.stop_block, block + 1)
    write_values(trace.macs_method, macs, columns, chosen, reduced, averaged)


def _combine(column: Column) -> int:
    if column.combine == "last":
        return trace_values.LAST
    return trace_values.SMALLEST if column.kind == "float" else trace_values.SMALLEST_COUNT
