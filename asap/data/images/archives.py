"""Reading small archives as a whole: annotations and the development kit."""

import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

_PIECE = 1 << 20  # bytes


def contents(archive: Path, wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """(file name without folders, content) of the files whose names are `wanted`.

    On a damaged archive raises OSError, EOFError, zlib.error or TarError, at the latest after the
    last file.
    """
    with tarfile.open(archive) as opened:
        for member in opened:
            name = Path(member.name).name
            file = opened.extractfile(member) if wanted(name) else None
            if file is not None:
                yield name, file.read()
        # tarfile stops at the end-of-archive mark; gzip checks its checksum only when all is read.
        while opened.fileobj is not None and opened.fileobj.read(_PIECE):
            pass
