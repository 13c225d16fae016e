"""Predictions, one row per image: as a frame, and as the bytes of a file.

Paths and lists are columns of Arrow, in a frame as in the file: an image costs the size of its
numbers, where an array of numpy for every list would cost several times that. `matrix` and `lists`
give them to numpy. Frames with Python lists, as an evaluation makes them for a few images, are
taken too.
"""

from io import BytesIO
from typing import cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from asap.errors import one_line

GROUP = 8192  # rows that are written together, so that writing takes as much memory as they do

# One row per image. -1 stands for "none" in counts and indices, NaN in floats. An image that could
# not be read has an `error`, its label, and nothing else. An answer that is not finite has all but
# a class: its `top5` and `top5_logits` are empty.
PREDICTION_SCHEMA = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),  # position in the data set
        pa.field("id", pa.int64(), nullable=False),  # names the image for random draws
        pa.field("path", pa.string(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
        pa.field("other_labels", pa.list_(pa.int64()), nullable=False),  # right besides `label`
        pa.field("cluster", pa.int64(), nullable=False),  # source shared with other images
        pa.field("top5", pa.list_(pa.int64()), nullable=False),  # classes, best first
        pa.field("top5_logits", pa.list_(pa.float32()), nullable=False),
        pa.field("stop_block", pa.int64(), nullable=False),  # block number from 1, 0 = never
        pa.field("sink", pa.int64(), nullable=False),  # patch index
        pa.field("tokens", pa.list_(pa.int64()), nullable=False),  # into each block, then out
        pa.field("mass", pa.list_(pa.float32()), nullable=False),  # NaN after the stop
        pa.field("margin_mass", pa.float32(), nullable=False),
        pa.field("margin_sink", pa.float32(), nullable=False),
        pa.field("margin_bin", pa.float32(), nullable=False),
        pa.field("object_share", pa.float32(), nullable=False),  # object patches among patches
        pa.field("object_recall", pa.float32(), nullable=False),
        pa.field("sink_on_object", pa.float32(), nullable=False),  # 1 or 0
        pa.field("macs_backbone", pa.int64(), nullable=False),
        pa.field("macs_method", pa.int64(), nullable=False),
        pa.field("error", pa.string()),
    ]
)


class DamagedPredictions(Exception):
    """A predictions file that is torn or of another version; the message is one line."""


def encode_predictions(predictions: pd.DataFrame) -> bytes:
    """The same rows give the same bytes, in whatever order and from whatever shards they come.

    Raises ValueError on missing or unknown columns and on missing values.
    """
    names = set(PREDICTION_SCHEMA.names)
    if wrong := names.symmetric_difference(predictions.columns):
        raise ValueError(f"predictions have missing or unknown columns: {sorted(wrong)}")
    in_order = predictions["index"].is_monotonic_increasing  # a sorted copy is as large again
    rows = predictions if in_order else predictions.sort_values("index")
    sink = BytesIO()
    options = {"compression": "zstd", "write_page_checksum": True}
    with pq.ParquetWriter(sink, PREDICTION_SCHEMA, **options) as writer:
        for start in range(0, max(1, len(rows)), GROUP):
            writer.write_table(_table(rows.iloc[start : start + GROUP]))
    return sink.getvalue()


def _table(rows: pd.DataFrame) -> pa.Table:
    columns = [_column(cast(pd.Series, rows[field.name]), field) for field in PREDICTION_SCHEMA]
    return pa.Table.from_arrays(columns, schema=PREDICTION_SCHEMA)


def decode_predictions(content: bytes) -> pd.DataFrame:
    """The rows of a predictions file; a missing error is None.

    Raises `DamagedPredictions` on content that is not complete or of another schema.
    """
    try:
        table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DamagedPredictions(one_line(error)) from error
    if not table.schema.equals(PREDICTION_SCHEMA):
        raise DamagedPredictions("the columns are not those of this version")
    frame = table.to_pandas(types_mapper=_kept)
    frame["error"] = pd.Series(table["error"].to_pylist(), dtype=object)
    return frame


def _kept(kind: pa.DataType) -> pd.ArrowDtype | None:
    """The column type in a frame of what numpy would hold as one object for each image."""
    return None if pa.types.is_primitive(kind) else pd.ArrowDtype(kind)


def matrix(predictions: pd.DataFrame, name: str) -> np.ndarray:
    """(images, length): a column whose lists are equally long, as those of evaluated images are.

    Raises ValueError if they are not.
    """
    values, lengths = lists(predictions, name)
    length = lengths[0] if len(lengths) else 0
    if (lengths != length).any():
        raise ValueError(f"{name} differs in length between images: leave out those without one")
    return values.reshape(len(lengths), length)


def lists(predictions: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
    """A column of lists as all values, one list after the other, and lengths (images,)."""
    return _flat(predictions[name], PREDICTION_SCHEMA.field(name).type)


def _column(values: pd.Series, field: pa.Field) -> pa.Array:
    if pa.types.is_list(field.type):
        flat, lengths = _flat(values, field.type)
        ends = np.concatenate([[0], lengths.cumsum()]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(ends), _array(flat, field.type.value_type))
    column = _array(values, field.type)
    if column.null_count and not field.nullable:
        raise ValueError(f"predictions have a missing value in column {field.name}")
    return column


def _flat(values: pd.Series, kind: pa.ListType) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(values.dtype, pd.ArrowDtype):
        column = _in_one_piece(pa.array(values, kind))
        return column.flatten().to_numpy(), np.diff(column.offsets.to_numpy())
    dtype = kind.value_type.to_pandas_dtype()
    rows = [np.asarray(row, dtype=dtype) for row in values]
    lengths = np.array([len(row) for row in rows], dtype=np.int32)
    return np.concatenate([np.empty(0, dtype), *rows]), lengths


def _array(values: pd.Series | np.ndarray, kind: pa.DataType) -> pa.Array:
    if not pa.types.is_floating(kind):
        return _in_one_piece(pa.array(values, kind, from_pandas=True))
    numbers = np.array(values, dtype=kind.to_pandas_dtype())
    numbers[np.isnan(numbers)] = np.nan  # one NaN: its sign and payload depend on the hardware
    return pa.array(numbers, kind)


def _in_one_piece(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The bytes of a file depend on where the pieces end."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
