"""The files of a data set: canonical names, labels, hashes, and the bytes on request."""

import os
from collections.abc import Mapping, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Protocol, runtime_checkable

from asap.data.base import files_left_out
from asap.data.images.content import NOTHING, Stored, hashes_of
from asap.data.images.decoding import UnreadableImage
from asap.errors import RequestError


@runtime_checkable
class Source(Protocol):
    """Labelled files in a fixed order, however they are stored. Holds names, never contents.

    Safe to use in forked and spawned workers. Two sources of the same files have the same `paths`,
    `labels` and `hashes`, and so the same digests, ids and records.
    """

    @property
    def paths(self) -> Sequence[str]: ...  # canonical, relative, "<class>/<file>"
    @property
    def labels(self) -> Sequence[int]: ...
    @property
    def reading_order(self) -> Sequence[int]: ...  # all positions, in the fastest order to read
    def sizes(self) -> Sequence[int]: ...  # bytes, -1 for a missing file; may read all files
    def hashes(self, positions: Sequence[int], index: Path | None) -> Sequence[bytes]:
        """The hash of each file's bytes, `NOTHING` if it cannot be read; see `hashes_of`."""
        ...

    def read(self, i: int) -> Path | BytesIO: ...  # the file or its content; `UnreadableImage`
    def store(self, i: int) -> Path: ...  # the folder or archive that holds the file


class FileSource:
    """Files below a folder, or elsewhere by absolute paths.

    files: the paths; None for a file that is listed but missing.
    """

    def __init__(
        self,
        root: Path,
        files: Sequence[str | None],
        paths: Sequence[str],
        labels: Sequence[int],
        left_out: Mapping[str, int] | None = None,
    ):
        self.root, self.files, self.paths, self.labels = root, files, paths, labels
        self.files_left_out = left_out or {}

    @property
    def reading_order(self) -> range:
        return range(len(self.paths))

    def sizes(self) -> list[int]:
        return [-1 if file is None else size_of(self.root / file) for file in self.files]

    def hashes(self, positions: Sequence[int], index: Path | None) -> list[bytes]:
        root = str(self.root.absolute())
        files = [self.files[i] for i in positions]
        stored = [Stored(os.path.join(root, file)) for file in files if file is not None]  # noqa: PTH118
        there = iter(hashes_of(stored, index))
        return [NOTHING if file is None else next(there) for file in files]

    def read(self, i: int) -> Path:
        file = self.files[i]
        if file is None:
            raise missing()
        return self.root / file

    def store(self, i: int) -> Path:
        file = self.files[i]
        return self.root if file is None else (self.root / file).parent


def missing() -> UnreadableImage:
    """The error for a file that is listed but missing."""
    return UnreadableImage("missing: it is listed and not there")


def digest_of(source: Source, positions: Sequence[int], index: Path | None) -> str:
    """SHA-256 of the canonical relative paths and the hashes of the files' bytes, in order."""
    sha = sha256()
    for i, content in zip(positions, source.hashes(positions, index), strict=True):
        sha.update(source.paths[i].encode() + b"\0" + content)
    return sha.hexdigest()


def refuse_vanished(source: Source, i: int) -> None:
    """RequestError if the folder or archive of a file has vanished: its files are not damaged."""
    if vanished(store := source.store(i)):
        raise RequestError(
            f"{store} has vanished: bring it back and run the same command again, which "
            "continues where it stopped"
        )


def vanished(store: Path) -> bool:
    """True if a folder is gone or empty, or an archive gone: the disk was probably unmounted."""
    try:
        return next(store.iterdir(), None) is None if store.is_dir() else not store.exists()
    except OSError:
        return True


def size_of(path: Path) -> int:
    """Size in bytes; -1 for a dangling link, which is listed and becomes an unreadable image."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


class Picked:
    """Some files of a source, in its order."""

    def __init__(self, whole: Source, positions: Sequence[int]):
        self.whole, self.positions = whole, positions
        self.paths = [whole.paths[i] for i in positions]
        self.labels = [whole.labels[i] for i in positions]
        self.files_left_out = files_left_out(whole)

    @property
    def reading_order(self) -> Sequence[int]:
        own = {position: i for i, position in enumerate(self.positions)}
        return [own[i] for i in self.whole.reading_order if i in own]

    def sizes(self) -> list[int]:
        sizes = self.whole.sizes()
        return [sizes[i] for i in self.positions]

    def hashes(self, positions: Sequence[int], index: Path | None) -> Sequence[bytes]:
        return self.whole.hashes([self.positions[i] for i in positions], index)

    def read(self, i: int) -> Path | BytesIO:
        return self.whole.read(self.positions[i])

    def store(self, i: int) -> Path:
        return self.whole.store(self.positions[i])
