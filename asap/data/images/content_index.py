"""The index that stores hashes of files: small, written as a whole, and ignored when in doubt.

    MAGIC, SHA-256 of the rest, time of writing (ns), Parquet table of keys and hashes

An index that is damaged, of another version, or dated in the future is ignored: the files are read
again, and a new index is written.
"""

import logging
import struct
import time
from collections import Counter
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from asap.errors import RequestError, one_line
from asap.records.disk import write_bytes

log = logging.getLogger("asap")
MAGIC = b"asap content index 1\n"
MOST = 2_000_000  # entries; the oldest ones are dropped
PER_PATH = 4  # entries per path: machines that share a results folder may have different disks

Key: TypeAlias = tuple[bytes, bytes, bytes]  # path; device, inode, size and times; parts
_SCHEMA = pa.schema([(name, pa.binary()) for name in ("path", "stamp", "parts", "hashes")])


class Index(dict[Key, bytes]):
    """The joined hashes of files' parts, by path, stamp and parts; the newest come last."""

    @classmethod
    def read(cls, file: Path) -> "Index":
        """Read an index file; the result is empty if the file is missing or invalid."""
        try:
            return cls.decode(file.read_bytes())
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, struct.error, pa.ArrowException) as error:
            log.info("%s is not used (%s): files are read again", file, one_line(error))
            return cls()

    @classmethod
    def decode(cls, content: bytes) -> "Index":
        """Decode an index. Raises ValueError, struct.error or ArrowException on an invalid one."""
        if not content.startswith(MAGIC):
            raise ValueError("it is of another kind or version")
        start = len(MAGIC) + sha256().digest_size
        body = memoryview(content)[start:]
        if sha256(body).digest() != content[len(MAGIC) : start]:
            raise ValueError("it is damaged")
        (written,) = struct.unpack_from("<q", body)
        if written > time.time_ns():
            raise ValueError("it is from the future")
        table = pq.read_table(pa.BufferReader(body[8:]), schema=_SCHEMA, use_threads=False)
        *keys, hashes = (column.to_pylist() for column in table.columns)
        return cls(zip(zip(*keys, strict=True), hashes, strict=True))

    def encode(self) -> bytes:
        columns = [*zip(*self, strict=True)] or [()] * 3
        table = pa.table([pa.array(c, pa.binary()) for c in (*columns, self.values())], _SCHEMA)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", use_dictionary=False)
        body = struct.pack("<q", time.time_ns()) + sink.getvalue().to_pybytes()
        return MAGIC + sha256(body).digest() + body

    @classmethod
    def remember(cls, file: Path, fresh: Mapping[Key, bytes]) -> None:
        """Add hashes to an index file. If it cannot be written, a warning is logged."""
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(file.with_name(f"{file.name}.lock")):
                index = cls.read(file)
                for key in fresh:
                    index.pop(key, None)
                index.update(fresh)
                write_bytes(file, index._newest().encode())
        except (OSError, RequestError, NotImplementedError) as error:  # no disk, or no locks
            said = one_line(error)
            log.warning("%s cannot be written (%s): the next run reads the files again", file, said)

    def _newest(self) -> "Index":
        states: Counter[bytes] = Counter()
        kept = []
        for key in reversed(self):
            states[key[0]] += 1
            if states[key[0]] <= PER_PATH:
                kept.append(key)
        return Index((key, self[key]) for key in reversed(kept[:MOST]))
