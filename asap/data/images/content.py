"""The hash of every file's bytes: read once, by several threads, and remembered in an index.

SHA-256, which processors compute at the speed of a fast disk. What is remembered is believed while
path, device, inode, size, modification and change time of the file are what they were.
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

log = logging.getLogger("asap")
HASH_BYTES = 32
NOTHING = bytes(HASH_BYTES)  # the hash of what cannot be read; it is never remembered
SETTLED = 2_000_000_000  # ns: a file younger than this may change again in the same clock tick
TRIES = 3  # at a file that changes while it is read, or that fails
THREADS = 8  # the wait for a disk or a server is what they share
CHUNK = 1 << 20  # bytes
FEW = 64  # files that a thread takes at a time

Advance = Callable[[int], object]  # is told of bytes read


def hash_file(path: str, advance: Advance) -> bytes:
    """The hash of a whole file. Raises OSError."""
    said = sha256()
    with Path(path).open("rb", buffering=0) as file:
        while piece := file.read(CHUNK):
            said.update(piece)
            advance(len(piece))
    return said.digest()


class Stored(NamedTuple):
    """A file, how the hashes of its parts are read (32 bytes each, joined), and what the parts
    are, where its bytes alone do not say so.
    """

    path: str  # absolute; a `Path` costs more than asking the disk, 50,000 times
    read: Callable[[str, Advance], bytes] = hash_file
    parts: bytes = b""


def hashes_of(files: Sequence[Stored], index: Path | None = None) -> list[bytes]:
    """The hashes of every file's parts, joined; `NOTHING` for a file that cannot be read.

    `index`: the file that remembers them; without one every file is read. What is read is
    remembered even if reading is interrupted.
    """
    known = Index() if index is None else Index.read(index)
    with ThreadPoolExecutor(THREADS) as pool:
        stamps = [s for part in pool.map(_stamps, _parts(files)) for s in part]
    found = [
        None if stamp is None else known.get(_key(file, stamp))
        for file, stamp in zip(files, stamps, strict=True)
    ]
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
    """What tells that a file is still the same."""

    device: int
    inode: int
    size: int
    modified: int  # ns
    changed: int  # ns

    def settled(self, now: int) -> bool:
        """Whether a change from now on would be seen. Not so for times that are in the future."""
        return max(self.modified, self.changed) + SETTLED <= now


def _stamp(path: str) -> _Stamp:
    """Raises OSError, for what is no file too."""
    s = os.stat(path)  # noqa: PTH116 (no Path, as above)
    if not stat.S_ISREG(s.st_mode):
        raise OSError(f"{path} is no file")
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
    """(number, hashes, what to remember them by or None) of each file in `todo`, as they come."""
    lock = threading.Lock()
    with (
        tqdm(total=size, desc="hashing pictures", unit="B", unit_scale=True, disable=None) as bar,
        ThreadPoolExecutor(THREADS) as pool,
    ):
        if bar.disable:
            log.info("hashing pictures: %d files, %.1f MB", len(todo), size / 1e6)

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
    """The hashes of a file, and what to remember them by: None where they must not be believed.

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
    """Whether every part was read."""
    return not any(part == NOTHING for part in split(hashes))


def split(hashes: bytes) -> list[bytes]:
    """Joined hashes, one by one."""
    return [hashes[i : i + HASH_BYTES] for i in range(0, len(hashes), HASH_BYTES)]
