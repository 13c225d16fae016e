"""Crops on the disk: a file of bytes, an index and a manifest.

    <folder>/manifest.json   identity, number and shape of the crops; the checksum of the index
    <folder>/index.parquet   a row per crop: its checksum and its picture's size, or its error
    <folder>/crops.u8        the crops one after another, each h x w x 3 bytes

Crops are read one by one. A memory map would count every page that was read as memory of the
process.
"""

import json
import zlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import UInt8

FORMAT = 1  # version of the three files; part of a cache's key
_INDEX = pa.schema(
    [
        ("checksum", pa.uint32()),  # CRC-32 of the crop
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("upright", pa.bool_()),
        ("error", pa.string()),
    ]
)
_MARK = "damaged"  # a file of this name marks a cache in which a damaged crop was found


class Entry(NamedTuple):
    """The facts about a crop besides its pixels. If there is an `error`, everything else is 0."""

    checksum: int
    width: int  # of the picture as it is stored, as is the height
    height: int
    upright: bool  # its EXIF data does not rotate it
    error: str | None


class Damaged(Exception):
    """The crops differ from what was written. The message gives the reason without the path."""


class Crops:
    """The crops of a complete cache, for reading. Safe in forked and spawned workers."""

    def __init__(self, folder: Path, identity: Mapping[str, Any], shape: Sequence[int], n: int):
        """Open the `n` crops of an identity.

        Raises `Damaged`, and FileNotFoundError if the folder has no manifest.
        """
        manifest = (folder / "manifest.json").read_bytes()
        index = _read_or_damaged(folder / "index.parquet")
        if manifest != manifest_of(identity, shape, n, index):
            raise Damaged("the manifest does not match")
        self.path, self.shape = folder / "crops.u8", tuple(shape)
        self.size = int(np.prod(self.shape))
        if not self.path.exists() or self.path.stat().st_size != n * self.size:
            raise Damaged(f"crops.u8 is not there or does not have {n * self.size:,} bytes")
        if (folder / _MARK).exists():
            raise Damaged("the checksum of a crop did not match")
        table = pq.read_table(pa.BufferReader(index), schema=_INDEX, use_threads=False)
        self._columns = [table[name].to_numpy() for name in _INDEX.names[:-1]]
        errors = enumerate(table["error"].to_pylist())
        self._errors = {i: error for i, error in errors if error is not None}

    def entries(self) -> list[Entry]:
        return [self.entry(row) for row in range(len(self._columns[0]))]

    def entry(self, row: int) -> Entry:
        checksum, width, height, upright = (column[row].item() for column in self._columns)
        return Entry(checksum, width, height, upright, self._errors.get(row))

    @property
    def failed(self) -> list[int]:
        """The rows with an error."""
        return list(self._errors)

    def read(self, row: int) -> UInt8[np.ndarray, "h w 3"]:
        """A crop whose entry has no error. Raises `Damaged` if its checksum does not match."""
        try:  # opening takes microseconds, and no open file is shared between worker processes
            crop = np.fromfile(self.path, np.uint8, self.size, offset=row * self.size)
        except OSError as error:
            raise Damaged(f"crop {row} cannot be read ({error.strerror})") from error
        if zlib.crc32(crop.data) != self._columns[0][row]:
            raise Damaged(f"the checksum of crop {row} does not match")
        return crop.reshape(self.shape)

    def mark(self) -> None:
        """Mark the crops as damaged, so that the next run builds them again.

        Raises OSError if the folder is not writable.
        """
        (self.path.parent / _MARK).touch()


def any_of(folder: Path, n: int) -> bool:
    """True if a cache in the folder holds exactly `n` crops."""
    for file in folder.glob("*/manifest.json"):
        with suppress(OSError, ValueError, AttributeError):
            if json.loads(file.read_bytes()).get("crops") == n:
                return True
    return False


def _read_or_damaged(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise Damaged(f"{file.name} is not there") from None


def manifest_of(identity: Mapping[str, Any], shape: Sequence[int], n: int, index: bytes) -> bytes:
    """The manifest. A reader builds it too and compares it with the file."""
    manifest = {
        "crops": n,
        "shape": list(shape),
        "bytes": n * int(np.prod(shape)),
        "identity": dict(identity),
        "index_sha256": sha256(index).hexdigest(),
    }
    return (json.dumps(manifest, indent=1) + "\n").encode()


def index_of(entries: Sequence[Entry]) -> bytes:
    """The index file's content for crops in their order."""
    columns = [list(column) for column in zip(*entries, strict=True)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, schema=_INDEX), sink)
    return sink.getvalue().to_pybytes()
