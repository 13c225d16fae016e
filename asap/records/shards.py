"""The files of an unfinished run: shards, each with answers and traces of consecutive examples."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

from asap.records.disk import guarded, read_bytes, write_bytes
from asap.records.tables import Columns, DamagedTable, Evaluated, decode_shard, encode_shard

Shard = tuple[int, int, Evaluated]  # first example, one after the last, their answers and traces

log = logging.getLogger(__name__)
_NAME = re.compile(r"shard-(\d+)-(\d+)\.parquet")


def shard_path(folder: Path, start: int, stop: int) -> Path:
    """The file of a shard in a cell's folder."""
    return folder / f"shard-{start}-{stop}.parquet"


def write_shard(folder: Path, start: int, stop: int, part: Evaluated) -> None:
    """Save answers and traces of examples `start` to `stop - 1`; ValueError for any others."""
    check_rows(part, start, stop)
    write_bytes(shard_path(folder, start, stop), encode_shard(part))


def shard_files(folder: Path) -> list[Path]:
    """The files of all shards in a cell's folder."""
    return [path for _, _, path in _named(folder)]


def read_shards(folder: Path, columns: Columns | None = None) -> list[Shard]:
    """The shards in a cell's folder, sorted, no example twice.

    A shard that cannot be read, that has other columns than these, or that overlaps one before it,
    is deleted with a warning.
    """
    found: list[Shard] = []
    for start, stop, path in sorted(_named(folder)):
        part = _read(path, start, stop, columns)
        if part is None or (found and start < found[-1][1]):
            log.warning("%s: %s is damaged or overlaps: deleted", folder.name, path.name)
            with guarded(path):
                path.unlink(missing_ok=True)
        else:
            found.append((start, stop, part))
    return found


def check_rows(part: Evaluated, start: int, stop: int) -> None:
    """ValueError unless the rows are those of examples `start` to `stop - 1`."""
    if not part.covers(start, stop):
        raise ValueError(f"the rows are not those of examples {start} to {stop - 1}, each once")


def _named(folder: Path) -> Iterator[tuple[int, int, Path]]:
    for path in folder.glob("shard-*.parquet"):
        if match := _NAME.fullmatch(path.name):
            yield int(match[1]), int(match[2]), path


def _read(path: Path, start: int, stop: int, columns: Columns | None) -> Evaluated | None:
    try:
        part = decode_shard(read_bytes(path) or b"", columns)
    except DamagedTable:
        return None
    return part if part.covers(start, stop) else None
