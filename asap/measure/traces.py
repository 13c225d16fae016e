"""Traces of images as a table, and the costs in a record that follow from them."""

import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from torch import Tensor

from asap.engine.trace import Trace
from asap.methods import Method
from asap.records.identity import VISION
from asap.records.tables import TRACE_COLUMNS, column, matrix, stage_columns, table_of
from asap.report.scalars import taken_names

log = logging.getLogger("asap")
_KNOWN = ("tokens", "stop_block", "macs_backbone", "macs_method")


def declared(method: Method) -> tuple[pa.Field, ...]:
    """The columns that a method declares, with names and types as in the table."""
    return tuple(column(own.name, own.kind, listed=own.per_block) for own in method.trace_columns)


def fields_of(method: Method) -> tuple[pa.Field, ...]:
    """All columns of the traces of a method."""
    return (*TRACE_COLUMNS, *stage_columns(VISION, declared(method)))


def columns_of(method: Method, trace: Trace) -> dict[str, Tensor]:
    """The values of a trace by column, without the stage in its name, (b, ...) each."""
    known = {name: getattr(trace, name) for name in _KNOWN}
    return {**known, **{own.name: trace.columns[own.name] for own in method.trace_columns}}


def table_of_traces(
    method: Method, columns: Mapping[str, Tensor], places: Sequence[tuple[int, int, int]]
) -> pa.Table:
    """The table of traces from `columns_of`; `places`: example, view and frame of each image."""
    names = [field.name for field in TRACE_COLUMNS]
    found: dict[str, Any] = {name: [one[i] for one in places] for i, name in enumerate(names)}
    found |= {f"{VISION}.{name}": value.numpy() for name, value in columns.items()}
    return table_of(found, fields_of(method))


def costs(traces: pd.DataFrame, reduces: bool) -> dict[str, Any]:
    """The fields of an accuracy record that come from the traces: MACs in 1e9 per example, tokens
    and stops per encoded image.

    `reduces` is false for the dense baseline, which cannot miss its stop (`missed_share` None).
    """
    n = len(traces)
    stops = Counter(traces[f"{VISION}.stop_block"].tolist())
    tokens = matrix(traces, f"{VISION}.tokens").sum(axis=0)
    return {
        **_macs(traces),
        "tokens_mean": [int(total) / n for total in tokens],
        "final_tokens_mean": int(tokens[-1]) / n,
        "stop_histogram": {str(block): stops[block] for block in sorted(stops)},
        "missed_share": stops[0] / n if reduces else None,
    }


def metrics_of(method: Method, traces: pd.DataFrame, label: str) -> dict[str, float]:
    """The method's own metrics, computed from its columns: finite numbers by name.

    A NaN or an infinity is left out, with a warning that names the row by its `label`. ValueError
    for a name that a field of a record or a column of the tables has.
    """
    own = [str(name) for name in traces if str(name).startswith(f"{VISION}.")]
    arrays = {name.removeprefix(f"{VISION}."): _array(traces, name) for name in own}
    found = {name: float(value) for name, value in method.metrics(arrays).items()}
    if clash := sorted(found.keys() & taken_names()):
        raise ValueError(
            f"{type(method).__name__}.metrics gives {', '.join(clash)}, which records or tables "
            "have already: give it another name"
        )
    for name, value in found.items():
        if not math.isfinite(value):
            log.warning("%s: its metric %s is %s, so the record is without it", label, name, value)
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _array(traces: pd.DataFrame, name: str) -> np.ndarray:
    """(images,), or (images, blocks) of a column of lists."""
    listed = isinstance(traces[name].dtype, pd.ArrowDtype)
    return matrix(traces, name) if listed else traces[name].to_numpy()


def _macs(traces: pd.DataFrame) -> dict[str, float]:
    """Exact means of the integer MACs over the examples, and the sample deviation of their sum.

    All in 1e9.
    """
    columns = [f"{VISION}.macs_backbone", f"{VISION}.macs_method"]
    sums = traces.groupby("example", sort=False)[columns].sum()
    n = len(sums)
    backbone, method = (sums[name].tolist() for name in sums)
    total = np.array([b + m for b, m in zip(backbone, method, strict=True)], dtype=np.float64)
    return {
        "gmacs_backbone": sum(backbone) / n / 1e9,
        "gmacs_method": sum(method) / n / 1e9,
        "gmacs_sd": float(total.std(ddof=1)) / 1e9 if n > 1 else 0.0,
    }
