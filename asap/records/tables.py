"""Answers and traces as tables: `answers.parquet` and `traces.parquet`.

Answers have one row for every scored example: core columns and those of the task. Traces have one
row for every image that was encoded (of an example: by view and frame), with columns of each stage,
`vision.tokens`, those of the stage's method among them. An example that could not be read has an
answer with an `error`, and no trace.

Tables are Arrow's, so that an image takes no more memory than its numbers. In frames, texts and
lists stay Arrow's; `matrix` and `lists` turn lists into numpy arrays, also from frames of Python
lists.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from asap.errors import one_line
from asap.records.lasting import worth_another_try

GROUP = 8192  # rows that are written together; writing needs memory for these only
_WRITTEN = {"compression": "zstd", "write_page_checksum": True}
_Kind = Literal["int", "float", "double", "text"]
_TRACES = "traces"  # the column of a shard that holds an example's rows of the other table
_KINDS = {"int": pa.int64(), "float": pa.float32(), "double": pa.float64(), "text": pa.string()}


def column(name: str, kind: _Kind, listed: bool = False, nullable: bool = False) -> pa.Field:
    """A declared column. A missing value is -1 in counts and indices, NaN in floats and doubles.

    listed: every row has a list of values, such as one for every block.
    """
    values = _KINDS[kind]
    return pa.field(name, pa.list_(values) if listed else values, nullable=nullable)


ANSWER_COLUMNS = (
    column("index", "int"),  # position in the data set
    column("id", "int"),  # names the example for random draws
    column("path", "text"),
    column("cluster", "int"),  # source shared with other examples
    column("n", "int"),  # images that were encoded for it: rows in the traces
    column("error", "text", nullable=True),  # why it could not be read
)
TRACE_COLUMNS = (
    column("example", "int"),  # `index` of its answer
    column("view", "int"),
    column("frame", "int"),
)


def stage_columns(stage: str, declared: Sequence[pa.Field] = ()) -> tuple[pa.Field, ...]:
    """The columns of a stage: those of every method, then those that its method declares."""
    known = (
        column("tokens", "int", listed=True),  # into each block, then out of the last
        column("stop_block", "int"),  # number from 1 of the first reduction, 0 = never
        column("macs_backbone", "int"),
        column("macs_method", "int"),
    )
    return tuple(field.with_name(f"{stage}.{field.name}") for field in (*known, *declared))


@dataclass(frozen=True)
class Columns:
    """All columns of a row's answers and traces, in their order: those of its task and method."""

    answers: tuple[pa.Field, ...]
    traces: tuple[pa.Field, ...]


class DamagedTable(Exception):
    """A table that is torn or of another version; the message is one line."""


@dataclass(frozen=True)
class Evaluated:
    """Answers of some examples, and the traces of their images, in the order of the examples."""

    answers: pa.Table
    traces: pa.Table

    def __len__(self) -> int:
        return len(self.answers)

    def slice(self, start: int, stop: int) -> "Evaluated":
        """The examples from position `start` to `stop - 1`."""
        ends = np.concatenate([[0], self.answers["n"].to_numpy().cumsum()])
        first, last = int(ends[start]), int(ends[stop])
        return Evaluated(
            self.answers.slice(start, stop - start), self.traces.slice(first, last - first)
        )

    @property
    def first(self) -> int:
        """The position in the data set of the first example."""
        return self.answers["index"][0].as_py()

    @property
    def failed(self) -> list[int]:
        """The examples that may be read by another try, by position in the data set."""
        return worth_another_try(self.answers)

    @property
    def columns(self) -> Columns:
        return Columns(tuple(self.answers.schema), tuple(self.traces.schema))

    def covers(self, start: int, stop: int) -> bool:
        """True if the answers are those of examples `start` to `stop - 1`, each once and in order,
        with the traces of the same examples.
        """
        examples = np.arange(start, stop)
        if not np.array_equal(self.answers["index"].to_numpy(), examples):
            return False
        encoded = np.repeat(examples, self.answers["n"].to_numpy())
        return np.array_equal(self.traces["example"].to_numpy(), encoded)


def joined(parts: Sequence[Evaluated]) -> Evaluated:
    """Parts one after the other."""
    return Evaluated(
        pa.concat_tables([part.answers for part in parts]),
        pa.concat_tables([part.traces for part in parts]),
    )


def table_of(columns: Mapping[str, Any], fields: Sequence[pa.Field]) -> pa.Table:
    """A table from sequences, or arrays of numpy (rows,) or (rows, length), by column.

    Raises ValueError on missing or unknown columns and on missing values.
    """
    names = {field.name for field in fields}
    if wrong := names.symmetric_difference(columns.keys()):
        raise ValueError(f"the table has missing or unknown columns: {sorted(wrong)}")
    arrays = [_column(columns[field.name], field) for field in fields]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


# ---- files


def encode(table: pa.Table) -> bytes:
    """The bytes of a table's file; the same rows give the same bytes, however they were sharded."""
    sink = BytesIO()
    with pq.ParquetWriter(sink, table.schema, **_WRITTEN) as writer:
        for start in range(0, max(1, len(table)), GROUP):
            rows = table.slice(start, GROUP)
            # In one piece, from its beginning, as the bytes depend on where pieces begin and end.
            writer.write_table(rows.take(pa.array(range(len(rows)))).combine_chunks())
    return sink.getvalue()


def decode(content: bytes, expected: Sequence[pa.Field]) -> pa.Table:
    """The table of a file. Raises `DamagedTable` if it is torn or lacks what is expected."""
    try:
        table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DamagedTable(one_line(error)) from error
    table = table.cast(pa.schema([_as_written(field, expected) for field in table.schema]))
    if reason := _lacks(table.schema, expected):
        raise DamagedTable(reason)
    return table


def outdated(path: Path, expected: Sequence[pa.Field]) -> str | None:
    """What a table's file lacks of the expected columns, without reading the rows.

    None also for a file that is missing or torn: `decode` finds that.
    """
    try:
        return _lacks(pq.read_schema(path), expected) if expected else None
    except (OSError, ValueError, pa.ArrowException):
        return None


def _lacks(schema: pa.Schema, expected: Sequence[pa.Field]) -> str | None:
    found = [_as_written(field, expected) for field in schema]
    name = next((field.name for field in expected if field not in found), None)
    return None if name is None else f"it has no column {name} as of this version"


def _as_written(field: pa.Field, expected: Sequence[pa.Field] = ()) -> pa.Field:
    """The field as `column` makes it, as a double where one is expected: scores were floats once.

    Parquet gives the values of lists another name, which would change the bytes of the next file.
    """
    kind = field.type
    if kind == pa.float32() and field.with_type(pa.float64()) in expected:
        kind = pa.float64()
    if pa.types.is_list(kind):
        kind = pa.list_(_as_written(kind.value_field).type)
    elif pa.types.is_struct(kind):
        kind = pa.struct([_as_written(kind.field(i)) for i in range(kind.num_fields)])
    return pa.field(field.name, kind, nullable=field.nullable)


def encode_shard(part: Evaluated) -> bytes:
    """Answers and traces as one file, so that neither can exist without the other."""
    ends = np.concatenate([[0], part.answers["n"].to_numpy().cumsum()]).astype(np.int32)
    rows = part.traces.combine_chunks()
    columns = [column.combine_chunks() for column in rows.columns]
    traces = pa.StructArray.from_arrays(columns, fields=list(rows.schema))
    held = pa.ListArray.from_arrays(pa.array(ends), traces)
    field = pa.field(_TRACES, held.type, nullable=False)
    return encode(part.answers.append_column(field, held))


def decode_shard(content: bytes, columns: Columns | None = None) -> Evaluated:
    """Undo `encode_shard`; raises as `decode` does, and if the columns are not those expected.

    Shards of a cell are joined, so they must have the same columns, none more.
    """
    table = decode(content, ANSWER_COLUMNS if columns is None else columns.answers)
    if _TRACES not in table.column_names:
        raise DamagedTable("it has no traces")
    held = _in_one_piece(table[_TRACES]).flatten()
    fields = [held.type.field(i) for i in range(held.type.num_fields)]
    traces = pa.Table.from_arrays(held.flatten(), schema=pa.schema(fields))
    part = Evaluated(table.drop_columns([_TRACES]), traces)
    if columns is not None and columns != part.columns:
        raise DamagedTable("it has other columns than this version")
    return part


# ---- frames


def frame_of(table: pa.Table) -> pd.DataFrame:
    """The table as a frame; a missing error is None."""
    frame = table.to_pandas(types_mapper=_kept)
    if "error" in frame:
        frame["error"] = pd.Series(table["error"].to_pylist(), dtype=object)
    return frame


def _kept(kind: pa.DataType) -> pd.ArrowDtype | None:
    """The column type in a frame for values that numpy would hold as one object for each row."""
    return None if pa.types.is_primitive(kind) else pd.ArrowDtype(kind)


def matrix(frame: pd.DataFrame, name: str) -> np.ndarray:
    """(rows, length): a column whose lists are equally long. Raises ValueError if they are not."""
    values, lengths = lists(frame, name)
    length = lengths[0] if len(lengths) else 0
    if (lengths != length).any():
        raise ValueError(f"{name} differs in length between rows: leave out those without one")
    return values.reshape(len(lengths), length)


def lists(frame: pd.DataFrame, name: str) -> tuple[np.ndarray, np.ndarray]:
    """All values of a column of lists, one list after the other, and the lengths (rows,)."""
    values = frame[name]
    if isinstance(values.dtype, pd.ArrowDtype):
        found = _in_one_piece(pa.array(values))
        return found.flatten().to_numpy(), np.diff(found.offsets.to_numpy())
    rows = [np.asarray(row) for row in values]
    lengths = np.array([len(row) for row in rows], dtype=np.int32)
    filled = [row for row in rows if len(row)]
    return np.concatenate(filled) if filled else np.empty(0, np.int64), lengths


def _column(values: Any, field: pa.Field) -> pa.Array:
    if pa.types.is_list(field.type):
        flat, lengths = _flat(values, field.type)
        ends = np.concatenate([[0], lengths.cumsum()]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(ends), _array(flat, field.type.value_type))
    found = _array(values, field.type)
    if found.null_count and not field.nullable:
        raise ValueError(f"a value is missing in column {field.name}")
    return found


def _flat(values: Any, kind: pa.ListType) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(values, np.ndarray) and values.ndim == 2:
        return values.reshape(-1), np.full(len(values), values.shape[1], dtype=np.int32)
    if isinstance(values, pd.Series) and isinstance(values.dtype, pd.ArrowDtype):
        found = _in_one_piece(pa.array(values, kind))
        return found.flatten().to_numpy(), np.diff(found.offsets.to_numpy())
    dtype = kind.value_type.to_pandas_dtype()
    rows = [np.asarray(row, dtype=dtype) for row in values]
    lengths = np.array([len(row) for row in rows], dtype=np.int32)
    return np.concatenate([np.empty(0, dtype), *rows]), lengths


def _array(values: Any, kind: pa.DataType) -> pa.Array:
    if not pa.types.is_floating(kind):
        return _in_one_piece(pa.array(values, kind, from_pandas=True))
    numbers = np.array(values, dtype=kind.to_pandas_dtype())
    numbers[np.isnan(numbers)] = np.nan  # one NaN: its sign and payload depend on the hardware
    return pa.array(numbers, kind)


def _in_one_piece(found: pa.Array | pa.ChunkedArray) -> Any:
    """The table in one piece: the bytes of a file depend on where pieces end."""
    return found.combine_chunks() if isinstance(found, pa.ChunkedArray) else cast(Any, found)
