"""Small archives that are read whole: annotations and the development kit."""

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

_PIECE = 1 << 20  # bytes


def contents(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """(file name without folders, content) of the files whose names are wanted.

    Raises OSError, EOFError, zlib.error or TarError on a damaged archive, at its end at the latest.
    """
    with tarfile.open(archive) as opened:
        for member in opened:
            name = Path(member.name).name
            file = opened.extractfile(member) if wanted(name) else None
            if file is not None:
                yield name, file.read()
        # gzip's checksum stands behind the mark where tarfile stops to read.
        while opened.fileobj is not None and opened.fileobj.read(_PIECE):
            pass
