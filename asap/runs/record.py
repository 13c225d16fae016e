"""What a run writes down: the schemas, predictions as bytes, and the environment.

A change of a field's meaning raises `SCHEMA_VERSION`, which is part of every key: records of two
versions never meet in one cell or one table.
"""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, NotRequired, TypedDict, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA_VERSION = 2  # 2: predictions have `other_labels`

_RECORDED_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow")

# One row per image. -1 stands for "none" in counts and indices, NaN in floats, and an image that
# could not be read has an `error`, its label, and nothing else.
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


class MethodRecord(TypedDict):
    """The method as it was built: module name and every option."""

    name: str
    options: dict[str, Any]


class WeightsRecord(TypedDict):
    """The file that the weights came from, None in the record for random ones."""

    origin: str  # "hub, owner/name", "bundled" or "file"
    file: str  # its name, without the folder
    sha256: str  # of the file; the digest in the key is of the tensors


class Quartiles(TypedDict):
    """Median and quartiles over the timed rounds."""

    median: float
    q1: float
    q3: float


class Ratio(Quartiles):
    """A ratio paired per round, with the bootstrap 95 % interval [lo, hi] of its median."""

    lo: float
    hi: float


class AccuracyRecord(TypedDict):
    """`accuracy.json`. Shares are in [0, 1]; `top1`, `top5` and their interval are percentages.

    GMACs are means per image of exact integers, in 1e9 multiply-accumulates; intervals are 95 %.
    """

    schema_version: int
    key: str
    identity: dict[str, Any]  # exactly what was hashed to the key
    label: str  # the method's name in tables
    method: MethodRecord
    backbone: str
    weights: NotRequired[WeightsRecord | None]
    parameters: NotRequired[int]  # of the backbone
    data: str  # the data set's description
    n: int  # images evaluated, without the unreadable ones
    n_failed: int  # images that could not be read
    correct1: int
    correct5: int
    top1: float
    top5: float
    top1_interval: list[float]  # [lo, hi]
    clustered: bool  # the interval treats images of one source as one draw
    gmacs_backbone: float
    gmacs_method: float
    gmacs_sd: float
    gmacs_no_attention: float | None  # the convention that leaves out the attention products
    tokens_mean: list[float]  # per block, L+1
    final_tokens_mean: float
    stop_histogram: dict[str, int]  # block number from 1 -> images; "0" = never
    missed_share: float | None  # images that never stopped; None for dense
    object_recall: float | None
    sink_on_object: float | None  # images whose sink is an object patch
    object_share: float | None  # object patches among patches: the chance level of the above
    precision: str
    device: str
    seed: int
    environment: dict[str, Any]
    seconds: float
    batch_size: int
    batch_halved: int  # times the batch was halved for lack of memory
    created: str  # ISO 8601


class ThroughputRecord(TypedDict):
    """`throughput.json`. Speeds are images per second; ratios are method over dense, paired."""

    schema_version: int
    key: str
    identity: dict[str, Any]
    label: str
    backbone: str
    data: str
    device: str
    device_name: str
    precision: str
    batch_size: int
    n_images: int
    threads: int
    rounds: int
    seconds_per_round: float
    short: bool  # the demo's version: too short for a published number
    images_per_s: Quartiles
    fused_dense: Quartiles
    eager_dense: Quartiles
    ratio_fused: Ratio | None
    ratio_eager: Ratio | None
    refused: str | None  # why no ratio is given
    tokens_mean: float
    stop_histogram: dict[str, int]
    environment: dict[str, Any]
    created: str


class DamagedPredictions(Exception):
    """A predictions file that is torn or of another version; the message is one line."""


def encode_predictions(predictions: pd.DataFrame) -> bytes:
    """The same rows give the same bytes, in whatever order and from whatever shards they come.

    Raises ValueError on missing or unknown columns and on missing values.
    """
    names = set(PREDICTION_SCHEMA.names)
    if wrong := names.symmetric_difference(predictions.columns):
        raise ValueError(f"predictions have missing or unknown columns: {sorted(wrong)}")
    rows = predictions.sort_values("index")
    columns = [_column(cast(pd.Series, rows[field.name]), field) for field in PREDICTION_SCHEMA]
    table = pa.Table.from_arrays(columns, schema=PREDICTION_SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=max(1, len(rows)),
        compression="zstd",
        write_page_checksum=True,
    )
    return sink.getvalue().to_pybytes()


def _column(values: pd.Series, field: pa.Field) -> pa.Array:
    build = _list_array if pa.types.is_list(field.type) else _array
    column = build(values, field.type)
    if column.null_count and not field.nullable:
        raise ValueError(f"predictions have a missing value in column {field.name}")
    return column


def _list_array(values: pd.Series, kind: pa.ListType) -> pa.Array:
    dtype = kind.value_type.to_pandas_dtype()
    rows = [np.asarray(row, dtype=dtype) for row in values]
    ends = np.cumsum([0, *(len(row) for row in rows)], dtype=np.int32)
    flat = np.concatenate([np.empty(0, dtype), *rows])
    return pa.ListArray.from_arrays(pa.array(ends), _array(flat, kind.value_type))


def _array(values: pd.Series | np.ndarray, kind: pa.DataType) -> pa.Array:
    if not pa.types.is_floating(kind):
        return pa.array(np.asarray(values), kind, from_pandas=True)
    numbers = np.array(values, dtype=kind.to_pandas_dtype())
    numbers[np.isnan(numbers)] = np.nan  # one NaN: its sign and payload depend on the hardware
    return pa.array(numbers, kind)


def decode_predictions(content: bytes) -> pd.DataFrame:
    """The rows of a predictions file; lists come as arrays, a missing error as None.

    Raises `DamagedPredictions` on content that is not complete or of another schema.
    """
    try:
        table = pq.read_table(pa.BufferReader(content), page_checksum_verification=True)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DamagedPredictions(" ".join(str(error).split())) from error
    if not table.schema.equals(PREDICTION_SCHEMA):
        raise DamagedPredictions("the columns are not those of this version")
    frame = table.to_pandas()
    frame["error"] = pd.Series(table["error"].to_pylist(), dtype=object)
    return frame


def environment() -> dict[str, str]:
    """Versions of what touches the numbers, the platform, and the package's git commit if any."""
    snapshot = {"python": platform.python_version()}
    snapshot |= {name: version for name in _RECORDED_PACKAGES if (version := _version(name))}
    snapshot |= {"platform": platform.platform(), "machine": platform.machine()}
    if commit := _commit():
        snapshot["commit"] = commit
    return snapshot


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the repository that tracks this file, "-dirty" when it has changes.

    A package installed inside somebody else's repository is not tracked there, and that
    repository's commit would say nothing about this code.
    """
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints, or None where git is missing, too slow or has nothing to say."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
