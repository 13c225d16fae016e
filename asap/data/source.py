"""Where the files of a data set are: canonical names, labels, sizes, and the bytes on request."""

import os
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Protocol, runtime_checkable

from asap.data.images import UnreadableImage
from asap.errors import RequestError


@runtime_checkable
class Source(Protocol):
    """Labelled files in a fixed order, however they are stored. Holds names, never contents.

    Safe to use in forked and spawned workers. Two stores of the same files have the same `paths`,
    `labels` and `sizes`, and so the same digests, ids and records.
    """

    @property
    def paths(self) -> Sequence[str]: ...  # canonical, relative, "<class>/<file>"
    @property
    def labels(self) -> Sequence[int]: ...
    @property
    def reading_order(self) -> Sequence[int]: ...  # all positions, as they are read fastest
    def sizes(self) -> Sequence[int]: ...  # bytes, -1 for a file that is not there; may take a pass
    def read(self, i: int) -> Path | BytesIO: ...  # the file or its content; `UnreadableImage`


class FileSource:
    """Files below a folder. `files` are relative, None for one that is listed and not there."""

    def __init__(
        self, root: Path, files: Sequence[str | None], paths: Sequence[str], labels: Sequence[int]
    ):
        self.root, self.files, self.paths, self.labels = root, files, paths, labels

    @property
    def reading_order(self) -> range:
        return range(len(self.paths))

    def sizes(self) -> list[int]:
        return [-1 if file is None else size_of(self.root / file) for file in self.files]

    def check_present(self, i: int) -> None:
        """RequestError if the folder of image `i` is gone or empty: it was not when it was listed.

        A place where a disk was mounted stays there, empty.
        """
        file = self.files[i]
        if file is None:
            return
        folder = (self.root / file).parent
        try:
            there = next(os.scandir(folder), None) is not None
        except OSError:
            there = False
        if not there:
            raise RequestError(
                f"{folder} has vanished while its images were read: make it available again, then "
                "run the same command, which continues"
            )

    def read(self, i: int) -> Path:
        file = self.files[i]
        if file is None:
            raise missing()
        return self.root / file


def missing() -> UnreadableImage:
    """What reading a listed file says that is not there."""
    return UnreadableImage("missing: it is listed and not there")


def size_of(path: Path) -> int:
    """Bytes, -1 for a dangling link, which stays listed and becomes an unreadable image."""
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

    @property
    def reading_order(self) -> Sequence[int]:
        own = {position: i for i, position in enumerate(self.positions)}
        return [own[i] for i in self.whole.reading_order if i in own]

    def sizes(self) -> list[int]:
        sizes = self.whole.sizes()
        return [sizes[i] for i in self.positions]

    def read(self, i: int) -> Path | BytesIO:
        return self.whole.read(self.positions[i])
