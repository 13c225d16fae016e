"""Hashes of the files' bytes: each file is read once, by several threads, and an index keeps them.

The hash is SHA-256, which processors compute as fast as a fast disk delivers. A hash in the index
is used as long as the file's path, device, inode, size, modification time and change time have not
changed.
"""

import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from asap.data.images.content_index import Index, Key
from asap.errors import counted

log = logging.getLogger("asap")
HASH_BYTES = 32
NOTHING = bytes(HASH_BYTES)  # stands for content that cannot be read; never put into the index
SETTLED = 2_000_000_000  # ns; a younger file may change again without a new time stamp
TRIES = 3  # attempts at a file that changes while it is read, or that cannot be read
THREADS = 8  # they mostly wait for a disk or a server
CHUNK = 1 << 20  # bytes
FEW = 64  # files per task of a thread

Advance = Callable[[int], object]  # called with the number of bytes read since the last call


def hash_file(path: str, advance: Advance) -> bytes:
    """The hash of a whole file. Raises OSError."""
    sha = sha256()
    with Path(path).open("rb", buffering=0) as file:
        while piece := file.read(CHUNK):
            sha.update(piece)
            advance(len(piece))
    return sha.digest()


class Stored(NamedTuple):
    """A file and the function that hashes its parts.

    `read` returns the hashes of the parts, 32 bytes each, joined. `parts` identifies the parts if
    the file's bytes alone do not define them.
    """

    path: str  # absolute; for 50,000 files, `Path` objects cost more time than the disk
    read: Callable[[str, Advance], bytes] = hash_file
    parts: bytes = b""


def hashes_of(files: Sequence[Stored], index: Path | None = None) -> list[bytes]:
    """The joined hashes of each file's parts; `NOTHING` for a file that cannot be read.

    `index`: the index file; if None, every file is read. New hashes are put into the index even if
    reading is interrupted.
    """
    known = Index() if index is None else Index.read(index)
    with ThreadPoolExecutor(THREADS) as pool:
        stamps = [s for part in pool.map(_stamps, _parts(files)) for s in part]
    found = [
        None if stamp is None else known.get(_key(file, stamp))
        for file, stamp in zip(files, stamps, strict=True)
    ]
    # Read what the index does not know, and store it even after an interruption.
    todo = [i for i, hashes in enumerate(found) if hashes is None]
    if todo:
        size = sum(stamp.size for i in todo if (stamp := stamps[i]))
        fresh: dict[Key, bytes] = {}
        try:
            for i, hashes, key in _read_all(files, todo, size):
                found[i] = hashes
                if key is not None:
                    fresh[key] = hashes
        finally:
            if index is not None and fresh:
                Index.remember(index, fresh)
    return [NOTHING if hashes is None else hashes for hashes in found]


class _Stamp(NamedTuple):
    """The properties that show whether a file is still the same."""

    device: int
    inode: int
    size: int
    modified: int  # ns
    changed: int  # ns

    def settled(self, now: int) -> bool:
        """True if any change after `now` would change the stamp. False for times in the future."""
        return max(self.modified, self.changed) + SETTLED <= now


def _stamp(path: str) -> _Stamp:
    """The stamp of a file. Raises OSError, also for a path that is not a regular file."""
    s = os.stat(path)  # noqa: PTH116 (no Path, as above)
    if not stat.S_ISREG(s.st_mode):
        raise OSError(f"{path} is not a file")
    return _Stamp(s.st_dev, s.st_ino, s.st_size, s.st_mtime_ns, s.st_ctime_ns)


def _stamps(files: Sequence[Stored]) -> list[_Stamp | None]:
    return [_stamp_or_none(file.path) for file in files]


def _stamp_or_none(path: str) -> _Stamp | None:
    try:
        return _stamp(path)
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None


def _key(file: Stored, stamp: _Stamp) -> Key:
    d, i, s, m, c = stamp  # faster than a join
    return os.fsencode(file.path), b"%d %d %d %d %d" % (d, i, s, m, c), file.parts


def _parts(files: Sequence[Stored]) -> Iterator[Sequence[Stored]]:
    return (files[i : i + 1000] for i in range(0, len(files), 1000))


def _read_all(
    files: Sequence[Stored], todo: list[int], size: int
) -> Iterator[tuple[int, bytes, Key | None]]:
    """(number, hashes, index key or None) of each file in `todo`, in the order of completion."""
    lock = threading.Lock()
    with (
        tqdm(total=size, desc="hashing files", unit="B", unit_scale=True, disable=None) as bar,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        if bar.disable:
            log.info("hashing %s, %.1f MB", counted(len(todo), "file"), size / 1e6)

        def advance(count: int) -> None:
            with lock:
                bar.update(count)

        def some(chosen: list[int]) -> list[tuple[int, bytes, Key | None]]:
            return [(i, *_read(files[i], advance)) for i in chosen]

        chunks = [todo[i : i + FEW] for i in range(0, len(todo), FEW)]
        try:
            for done in as_completed([pool.submit(some, chunk) for chunk in chunks]):
                yield from done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _read(file: Stored, advance: Advance) -> tuple[bytes, Key | None]:
    """The hashes of a file, and their key in the index: None if they must not be stored there.

    A file that changes while it is read, or of which a part cannot be read, is read again.
    """
    hashes = NOTHING
    for _ in range(TRIES):
        began = time.time_ns()
        before = _stamp_or_none(file.path)
        try:
            hashes = NOTHING if before is None else file.read(file.path, advance)
        except OSError:
            hashes = NOTHING
            continue
        unchanged = before is not None and before == _stamp_or_none(file.path)
        if before is not None and unchanged and _complete(hashes):
            sure = before.settled(began) and began <= time.time_ns()
            return hashes, _key(file, before) if sure else None
    return hashes, None


def _complete(hashes: bytes) -> bool:
    """True if every part was read."""
    return not any(part == NOTHING for part in split(hashes))


def split(hashes: bytes) -> list[bytes]:
    """Split joined hashes into single ones."""
    return [hashes[i : i + HASH_BYTES] for i in range(0, len(hashes), HASH_BYTES)]
