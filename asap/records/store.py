"""The folder of records: one cell per key, and a file exists only when it is complete.

    <root>/<key>/config.yaml  accuracy.json + predictions.parquet  or  throughput.json
                 shard-<start>-<stop>.parquet    predictions of an unfinished run
                 error.json                      why the last try failed
                 *.corrupt                       set aside, never read again

Every file is written beside its name, flushed to the disk and renamed, and a record comes after
everything it stands for, so a process killed at any moment leaves nothing torn. Writers hold the
cell's `lock()`.
"""

import json
import logging
import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import yaml
from filelock import FileLock, Timeout

from asap.errors import RequestError
from asap.records.disk import guarded, read_bytes, write_bytes, write_through
from asap.records.predictions import DamagedPredictions, decode_predictions, encode_predictions
from asap.records.schema import SCHEMA_VERSION, AccuracyRecord, ThroughputRecord

log = logging.getLogger(__name__)
_PROBE_BYTES = 64 * 1024
_SHARD_NAME = re.compile(r"shard-(\d+)-(\d+)\.parquet")


def _json_bytes(content: Mapping[str, Any]) -> bytes:
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    # Half a surrogate pair, from a file name that is not UTF-8, comes out as JSON's own \udcxx.
    return (text + "\n").encode("utf-8", "backslashreplace")


def _yaml_bytes(config: Mapping[str, Any]) -> bytes:
    plain = json.loads(json.dumps(config))  # tuples become lists; objects are refused
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).encode()


# ---- the store


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

    def cell(self, key: str) -> "Cell":
        return Cell(self.root, key)

    def cells(self) -> list["Cell"]:
        """The cells that hold a complete record, sorted by key."""
        folders = sorted(path.name for path in self.root.iterdir() if path.is_dir())
        found = [Cell(self.root, name) for name in folders]
        return [cell for cell in found if cell.accuracy() or cell.throughput()]


class Cell:
    """The files of one key. Reading makes no folder."""

    def __init__(self, root: Path, key: str):
        self.key = key
        self.path = Path(root) / key

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the cell against other processes; waits, saying so, while one of them holds it."""
        with guarded(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / ".lock")
            try:
                lock.acquire(timeout=0)
            except Timeout:
                log.warning("%s: another process is working on this cell: waiting", self.key)
                lock.acquire()
        try:
            self._tidy()
            yield
        finally:
            lock.release()

    # -- reading

    def accuracy(self) -> AccuracyRecord | None:
        """The accuracy record, or None unless it and its predictions are there."""
        if not self._file("predictions.parquet").exists():
            return None
        record = self._record("accuracy.json", AccuracyRecord.__required_keys__)
        return cast(AccuracyRecord | None, record)

    def throughput(self) -> ThroughputRecord | None:
        """The throughput record, or None unless it is complete."""
        record = self._record("throughput.json", ThroughputRecord.__required_keys__)
        return cast(ThroughputRecord | None, record)

    def predictions(self) -> pd.DataFrame:
        """One row per image, in the columns of `PREDICTION_SCHEMA`.

        Raises `RequestError` when they are missing, and when they are damaged: then they are set
        aside, so the cell counts as not yet measured.
        """
        path = self._file("predictions.parquet")
        content = read_bytes(path)
        if content is None:
            raise RequestError(f"{path} is missing: run the command again")
        try:
            return decode_predictions(content)
        except DamagedPredictions as error:
            self._set_aside(path, error)
            raise RequestError(f"{path} was damaged: run the command again") from error

    def config(self) -> dict[str, Any] | None:
        """The settings beside the record, None where they are missing or no settings."""
        content = read_bytes(self._file("config.yaml"))
        try:
            found = yaml.safe_load(content) if content is not None else None
        except (yaml.YAMLError, UnicodeDecodeError):
            found = None
        return found if isinstance(found, dict) else None

    def shards(self) -> list[tuple[int, int, pd.DataFrame]]:
        """What an interrupted run left: (start, stop, rows), sorted, no image twice.

        A shard that cannot be read, or that overlaps one before it, is deleted with a warning.
        """
        found: list[tuple[int, int, pd.DataFrame]] = []
        for start, stop, path in sorted(self._shard_files()):
            frame = self._read_shard(path, start, stop)
            if frame is None or (found and start < found[-1][1]):
                log.warning("%s: %s is damaged or overlaps: deleted", self.key, path.name)
                with guarded(path):
                    path.unlink(missing_ok=True)
            else:
                found.append((start, stop, frame))
        return found

    def failed(self) -> list[int]:
        """The images of the record that could not be read, by position. Raises as `predictions`."""
        return _failed(self.predictions())

    # -- writing

    def write_shard(self, start: int, stop: int, frame: pd.DataFrame) -> None:
        """Keep the predictions of images `start` to `stop - 1`, each once (else ValueError)."""
        _check_rows(frame, start, stop)
        write_bytes(self._file(f"shard-{start}-{stop}.parquet"), encode_predictions(frame))

    def drop_failed(self) -> None:
        """Take images that could not be read out of the shards: the next run reads them again."""
        for start, stop, frame in self.shards():
            if failed := _failed(frame):
                self._write_without(failed, frame)
                self._remove(self._file(f"shard-{start}-{stop}.parquet"))

    def reopen(self, positions: Sequence[int]) -> None:
        """Make the record an unfinished run, which lacks these images alone."""
        self._write_without(positions, self.predictions())
        self._remove(self._file("accuracy.json"))

    def discard_shards(self) -> None:
        """Forget an unfinished run."""
        self._remove(*(path for *_, path in self._shard_files()))

    def finish_accuracy(
        self, config: Mapping[str, Any], record: AccuracyRecord, predictions: pd.DataFrame
    ) -> None:
        """Write the run's results, the record last, then remove what only a resume needs."""
        self._check(record, AccuracyRecord.__required_keys__)
        _check_rows(predictions, 0, record["n"] + record["n_failed"])
        # Encoded before anything is written: a value with no JSON form must not cost a cell.
        rows = encode_predictions(predictions)
        settings, entry = _yaml_bytes(config), _json_bytes(record)
        self._remove(self._file("accuracy.json"))  # an old record must not describe new rows
        write_bytes(self._file("predictions.parquet"), rows)
        write_bytes(self._file("config.yaml"), settings)
        write_bytes(self._file("accuracy.json"), entry)
        self._tidy()

    def finish_throughput(self, config: Mapping[str, Any], record: ThroughputRecord) -> None:
        """Write the run's settings, then its record."""
        self._check(record, ThroughputRecord.__required_keys__)
        settings, entry = _yaml_bytes(config), _json_bytes(record)
        write_bytes(self._file("config.yaml"), settings)
        write_bytes(self._file("throughput.json"), entry)
        self._tidy()

    def fail(self, error: BaseException) -> None:
        """Write down why the run failed; the next run tries again."""
        report = {
            "type": type(error).__name__,
            "message": str(error),
            "traceback": "".join(traceback.format_exception(error)),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        write_bytes(self._file("error.json"), _json_bytes(report))

    # -- parts

    def _file(self, name: str) -> Path:
        return self.path / name

    def _shard_files(self) -> Iterator[tuple[int, int, Path]]:
        for path in self.path.glob("shard-*.parquet"):
            if match := _SHARD_NAME.fullmatch(path.name):
                yield int(match[1]), int(match[2]), path

    def _write_without(self, positions: Sequence[int], frame: pd.DataFrame) -> None:
        """The rows of a frame but for some images, as shards; they lie in the images' order."""
        begin = start = int(frame["index"].iloc[0])
        for left_out in [*sorted(positions), begin + len(frame)]:
            if start < left_out:
                self.write_shard(start, left_out, frame.iloc[start - begin : left_out - begin])
            start = left_out + 1

    def _read_shard(self, path: Path, start: int, stop: int) -> pd.DataFrame | None:
        try:
            frame = decode_predictions(read_bytes(path) or b"")
        except DamagedPredictions:
            return None
        return frame if _covers(frame, start, stop) else None

    def _record(self, name: str, fields: frozenset[str]) -> dict[str, Any] | None:
        path = self._file(name)
        content = read_bytes(path)
        if content is None:
            return None
        try:
            record = json.loads(content)
        except ValueError as error:
            self._set_aside(path, error)
            return None
        return record if self._usable(path, record, fields) else None

    def _usable(self, path: Path, record: Any, fields: frozenset[str]) -> bool:
        """Whether a parsed record is one of this version, of this cell and has every field."""
        if not isinstance(record, dict):
            self._set_aside(path, "no record in it")
        elif record.get("schema_version") != SCHEMA_VERSION:
            version = record.get("schema_version")
            log.warning("%s: %s has schema version %s: ignored", self.key, path.name, version)
        elif record.get("key") != self.key:  # a folder copied or renamed by hand
            log.warning("%s: %s belongs to %s: ignored", self.key, path.name, record.get("key"))
        elif missing := sorted(fields - record.keys()):
            self._set_aside(path, f"it lacks {', '.join(missing)}")
        else:
            return True
        return False

    def _check(self, record: Mapping[str, Any], fields: frozenset[str]) -> None:
        if missing := sorted(fields - record.keys()):
            raise ValueError(f"the record lacks {', '.join(missing)}")
        if (record["key"], record["schema_version"]) != (self.key, SCHEMA_VERSION):
            raise ValueError(f"the record is not one of cell {self.key}, version {SCHEMA_VERSION}")

    def _set_aside(self, path: Path, reason: object) -> None:
        log.warning("%s: %s is damaged (%s): set aside", self.key, path.name, reason)
        with suppress(OSError):  # records on a read-only disk can still be left unread
            path.replace(path.with_name(path.name + ".corrupt"))

    def _tidy(self) -> None:
        """Remove what killed processes and earlier tries left. Needs the lock."""
        self._remove(*self.path.glob(".*.tmp"))
        if self.accuracy() or self.throughput():
            self._remove(self._file("error.json"), *(path for *_, path in self._shard_files()))

    def _remove(self, *paths: Path) -> None:
        for path in paths:
            with guarded(path):
                path.unlink(missing_ok=True)


def _failed(frame: pd.DataFrame) -> list[int]:
    """The images that could not be read."""
    return frame["index"][frame["error"].notna()].tolist()


def _check_rows(frame: pd.DataFrame, start: int, stop: int) -> None:
    if not _covers(frame, start, stop):
        raise ValueError(f"the rows are not those of images {start} to {stop - 1}, each once")


def _covers(frame: pd.DataFrame, start: int, stop: int) -> bool:
    return np.array_equal(np.sort(frame["index"]), np.arange(start, stop))
