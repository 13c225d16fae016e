"""The index that remembers hashes of files: small, written whole, and never believed when in doubt.

    MAGIC, SHA-256 of all that follows, when it was written (ns), a Parquet table of KEYS and hashes

An index that is damaged, of another version, or written in the future is as good as none: files are
read again, and it is written anew.
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
MOST = 2_000_000  # files remembered; those looked at longest ago are forgotten
PER_PATH = 4  # states of one path: machines that share a results folder may see different disks

Key: TypeAlias = tuple[bytes, bytes, bytes]  # path; device, inode, size and times; parts
_SCHEMA = pa.schema([(name, pa.binary()) for name in ("path", "stamp", "parts", "hashes")])


class Index(dict[Key, bytes]):
    """The hashes of files' parts, joined, by what must be as it was; the newest come last."""

    @classmethod
    def read(cls, file: Path) -> "Index":
        """What an index holds, nothing if it cannot be believed."""
        try:
            return cls.decode(file.read_bytes())
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, struct.error, pa.ArrowException) as error:
            log.info("%s is not used (%s): files are read again", file, one_line(error))
            return cls()

    @classmethod
    def decode(cls, content: bytes) -> "Index":
        """Raises ValueError, struct.error or ArrowException on anything but a sound index."""
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
        """Add hashes to what is remembered. A folder that denies costs reading them again."""
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(file.with_name(f"{file.name}.lock")):
                index = cls.read(file)
                for key in fresh:
                    index.pop(key, None)
                index.update(fresh)
                write_bytes(file, index._newest().encode())
        except (OSError, RequestError, NotImplementedError) as error:
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
