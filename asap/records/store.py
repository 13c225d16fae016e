"""The folder of records: one cell per key, and a file exists only when it is complete.

    <root>/<key>/config.yaml  <kind>.json        of a kind in kinds.py, with its files, such as
                 accuracy.json                   with answers.parquet and traces.parquet
                 shard-<start>-<stop>.parquet    both tables of some examples, of an unfinished run
                 error.json                      why the last try failed
                 *.corrupt                       set aside, never read again

Every file is written beside its name, flushed to the disk and renamed, and a record comes after
everything it stands for, so a process killed at any moment leaves nothing torn. Writers hold the
cell's `lock()`.
"""

import json
import logging
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import yaml
from filelock import FileLock

from asap.errors import RequestError
from asap.records.disk import (
    acquired,
    guarded,
    json_bytes,
    read_bytes,
    write_bytes,
    write_through,
    yaml_bytes,
)
from asap.records.kinds import ANSWERS, HEAD, KINDS, TRACES, Kind, kind_named
from asap.records.recent import RECENT
from asap.records.shards import Shard, check_rows, read_shards, shard_files, shard_path, write_shard
from asap.records.tables import (
    ANSWER_COLUMNS,
    TRACE_COLUMNS,
    Columns,
    DamagedTable,
    Evaluated,
    decode,
    encode,
    frame_of,
    outdated,
)

log = logging.getLogger(__name__)
_PROBE_BYTES = 64 * 1024


class Store:
    """All cells under one folder. Raises `RequestError` when the folder cannot be written."""

    def __init__(self, root: Path):
        self.root = Path(root)
        probe = self.root / ".probe"
        with guarded(self.root):
            self.root.mkdir(parents=True, exist_ok=True)
            try:
                write_through(probe, bytes(_PROBE_BYTES))
            finally:
                probe.unlink(missing_ok=True)

    def cell(self, key: str, columns: Columns | None = None) -> "Cell":
        return Cell(self.root, key, columns)

    def cells(self) -> list["Cell"]:
        """The cells that hold a complete record, sorted by key."""
        folders = sorted(path.name for path in self.root.iterdir() if path.is_dir())
        found = [Cell(self.root, name) for name in folders]
        return [cell for cell in found if cell.records()]


class Cell:
    """The files of one key, and the columns of its tables if known. Reading makes no folder."""

    def __init__(self, root: Path, key: str, columns: Columns | None = None):
        self.key, self.columns = key, columns
        self.path = Path(root) / key

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the cell for this process; logs a warning while it waits for another process."""
        with guarded(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            said = f"{self.key}: another process is working on this cell: waiting"
            lock = acquired(FileLock(self.path / ".lock"), lambda: log.warning("%s", said))
        with lock:
            self._tidy()
            yield

    # -- reading

    def record(self, kind: str) -> dict[str, Any] | None:
        """The record of a kind by its name, or None unless it is complete, with its files.

        ValueError if no kind has this name.
        """
        known = kind_named(kind)
        record = self._read(known)
        return record if all([self._has(name) for name in known.files]) else None

    def records(self) -> dict[str, dict[str, Any]]:
        """All complete records, by kind."""
        kinds = (path.stem for path in sorted(self.path.glob("*.json")) if path.stem in KINDS)
        found = {kind: self.record(kind) for kind in kinds}
        return {kind: record for kind, record in found.items() if record is not None}

    def answers(self) -> pd.DataFrame:
        """One row per scored example, see tables.py: core columns, then the task's.

        Raises `RequestError` if they are missing or damaged. Damaged ones are set aside, so that
        the cell counts as not yet measured. The frame is cached, see recent.py: it must not be
        changed.
        """
        path = self._file(ANSWERS)
        return RECENT.get(path, lambda: frame_of(self._table(path, ANSWER_COLUMNS)))

    def traces(self) -> pd.DataFrame:
        """One row per encoded image, its columns by stage. Raises and is cached as `answers`."""
        path = self._file(TRACES)
        return RECENT.get(path, lambda: frame_of(self._table(path, TRACE_COLUMNS)))

    def evaluated(self) -> Evaluated:
        """Answers and traces as they are on the disk. Raises as `answers`."""
        return Evaluated(
            self._table(self._file(ANSWERS), ANSWER_COLUMNS),
            self._table(self._file(TRACES), TRACE_COLUMNS),
        )

    def config(self) -> dict[str, Any] | None:
        """The settings beside the record; None if the file is missing or damaged."""
        content = read_bytes(self._file("config.yaml"))
        try:
            found = yaml.safe_load(content) if content is not None else None
        except (yaml.YAMLError, UnicodeDecodeError):
            found = None
        return found if isinstance(found, dict) else None

    def shards(self) -> list[Shard]:
        """The shards of an interrupted run: (start, stop, rows), sorted, no example twice."""
        return read_shards(self.path, self.columns)

    def failed(self) -> list[int]:
        """Positions of the record's examples that another try may read. Raises as `answers`."""
        return self.evaluated().failed

    # -- writing

    def write_shard(self, start: int, stop: int, part: Evaluated) -> None:
        """Save answers and traces of examples `start` to `stop - 1`; ValueError for any others."""
        write_shard(self.path, start, stop, part)

    def drop_failed(self) -> None:
        """Remove examples that could not be read from the shards: the next run reads them again."""
        for start, stop, part in self.shards():
            if failed := part.failed:
                self._write_without(failed, part)
                self._remove(shard_path(self.path, start, stop))

    def reopen(self, positions: Sequence[int]) -> None:
        """Turn the accuracy record into an unfinished run that lacks only these examples."""
        self._write_without(positions, self.evaluated())
        self._remove(self._file("accuracy.json"))

    def discard_shards(self) -> None:
        """Delete the shards of an unfinished run."""
        self._remove(*shard_files(self.path))

    def finish(
        self,
        kind: str,
        config: Mapping[str, Any],
        record: Mapping[str, Any],
        evaluated: Evaluated | None = None,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        """Write answers and traces, and other files by name, then the record of a kind.

        At the end files that only a resume needs are removed. Raises ValueError, before anything is
        written, if the record lacks a field or a file of its kind, if it is of another cell or
        version, and if the rows are not those of its examples.
        """
        known, contents = kind_named(kind), dict(files or {})
        if evaluated is not None:
            check_rows(evaluated, 0, record["n"] + record["n_failed"])
            contents |= {ANSWERS: encode(evaluated.answers), TRACES: encode(evaluated.traces)}
        self._check(record, known, contents)
        # Encoded before anything is written, so that a value without a JSON form damages nothing.
        settings, entry = yaml_bytes(config), json_bytes(record)
        self._remove(self._file(f"{kind}.json"))  # an old record must not describe new rows
        for name, content in contents.items():
            write_bytes(self._file(name), content)
        write_bytes(self._file("config.yaml"), settings)
        write_bytes(self._file(f"{kind}.json"), entry)
        self._tidy()

    def fail(self, error: BaseException) -> None:
        """Write error.json with the reason why the run failed; the next run tries again."""
        report = {
            "type": type(error).__name__,
            "message": str(error),
            "traceback": "".join(traceback.format_exception(error)),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_bytes(self._file("error.json"), json_bytes(report))

    # -- parts

    def _file(self, name: str) -> Path:
        return self.path / name

    def _has(self, name: str) -> bool:
        """Whether a file is there; a table that lacks one of the known columns is set aside."""
        path = self._file(name)
        expected = {} if self.columns is None else vars(self.columns)
        if reason := outdated(path, expected.get(path.stem, ())):
            self._set_aside(path, reason)
        return path.exists()

    def _write_without(self, positions: Sequence[int], part: Evaluated) -> None:
        """Write shards of a part without some examples; each has consecutive examples."""
        begin = start = part.first
        for left_out in [*sorted(positions), begin + len(part)]:
            if start < left_out:
                self.write_shard(start, left_out, part.slice(start - begin, left_out - begin))
            start = left_out + 1

    def _table(self, path: Path, expected: Sequence[pa.Field]) -> pa.Table:
        content = read_bytes(path)
        if content is None:
            raise RequestError(f"{path} is missing: run the command again")
        try:
            return decode(content, expected)
        except DamagedTable as error:
            self._set_aside(path, error)
            raise RequestError(f"{path} was damaged: run the command again") from error

    def _read(self, kind: Kind) -> dict[str, Any] | None:
        path = self._file(f"{kind.name}.json")
        content = read_bytes(path)
        if content is None:
            return None
        try:
            record = json.loads(content)
        except ValueError as error:
            self._set_aside(path, error)
            return None
        return record if self._usable(path, record, kind) else None

    def _usable(self, path: Path, record: Any, kind: Kind) -> bool:
        """True if a parsed record has this version and every field, and belongs to this cell."""
        if not isinstance(record, dict):
            self._set_aside(path, "no record in it")
        elif record.get("schema_version") != kind.version:
            version = record.get("schema_version")
            log.warning("%s: %s has schema version %s: ignored", self.key, path.name, version)
        elif record.get("key") != self.key:  # a folder copied or renamed by hand
            log.warning("%s: %s belongs to %s: ignored", self.key, path.name, record.get("key"))
        elif missing := sorted((HEAD | kind.fields) - record.keys()):
            self._set_aside(path, f"it lacks {', '.join(missing)}")
        else:
            return True
        return False

    def _check(self, record: Mapping[str, Any], kind: Kind, files: Mapping[str, bytes]) -> None:
        missing = [*sorted((HEAD | kind.fields) - record.keys()), *sorted({*kind.files} - {*files})]
        if missing:
            raise ValueError(f"the record lacks {', '.join(missing)}")
        if (record["key"], record["schema_version"]) != (self.key, kind.version):
            raise ValueError(f"the record is not one of cell {self.key}, version {kind.version}")

    def _set_aside(self, path: Path, reason: object) -> None:
        log.warning("%s: %s is damaged (%s): set aside", self.key, path.name, reason)
        with suppress(OSError):  # on a read-only disk it stays, and is not read
            path.replace(path.with_name(path.name + ".corrupt"))

    def _tidy(self) -> None:
        """Remove files left by killed processes and earlier attempts. Needs the lock."""
        self._remove(*self.path.glob(".*.tmp"))
        if self.records():
            self._remove(self._file("error.json"), *shard_files(self.path))

    def _remove(self, *paths: Path) -> None:
        for path in paths:
            with guarded(path):
                path.unlink(missing_ok=True)
