"""Builds a crop cache on all cores, in the fastest reading order; an interrupted build resumes.

A chunk of crops is written to its positions in the file and flushed to the disk, and then listed in
the journal. Crops that the journal lists are not made again.
"""

import json
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from asap.data.crops.file import Entry
from asap.data.crops.transform_split import Split
from asap.data.imagenet.boxes import upright
from asap.data.images.decoding import UnreadableImage
from asap.data.images.image_files import ImageFiles
from asap.data.loading import made_by_processes
from asap.errors import RequestError
from asap.records.disk import guarded, write_through

CHUNK = 128  # crops; when the process is killed, each core loses at most this many
ANOTHER = "folder with data.cache=/path"
Noted = list[tuple[int, Entry]]  # rows of the cache, each with its index entry


class Build:
    """An unfinished cache of crops in a folder. Only one process may use it at a time.

    `positions`: the position in the data set of each row of the cache.
    """

    def __init__(self, folder: Path, data: ImageFiles, parts: Split, positions: Sequence[int]):
        self.file, self.journal = folder / "crops.u8", folder / "journal.jsonl"
        self.data, self.parts, self.positions = data, parts, positions
        self.bytes = len(positions) * parts.size

    @property
    def bytes_left(self) -> int:
        """The disk space that the build will still take, in bytes."""
        try:
            return max(0, self.bytes - 512 * getattr(self.file.stat(), "st_blocks", 0))
        except FileNotFoundError:
            return self.bytes

    def run(self, workers: int, advance: Callable[[int], object]) -> list[Entry]:
        """Make the missing crops and return the entries of all rows.

        `advance` is called with the number of crops finished since the last call. workers: number
        of processes, 0 to work in this one. Raises RequestError if the disk is full or not
        writable, and if the pictures' folder has vanished; finished crops are kept.
        """
        with guarded(self.file, ANOTHER):
            done = self._continue()
        advance(len(done))
        with guarded(self.journal, ANOTHER), self.journal.open("ab") as journal:
            for noted in self._made(self._todo(done), workers):
                journal.write(json.dumps(noted).encode() + b"\n")
                journal.flush()
                os.fsync(journal.fileno())
                done.update(noted)
                advance(len(noted))
        return [done[row] for row in range(len(self.positions))]

    def note(self, done: Noted) -> None:
        """Write a journal that lists finished rows."""
        write_through(self.journal, json.dumps(done).encode() + b"\n")

    def _continue(self) -> dict[int, Entry]:
        """The finished rows. Creates the file for all crops if it does not exist."""
        if self.file.exists() and self.file.stat().st_size == self.bytes:
            return self._noted()
        self.journal.unlink(missing_ok=True)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with self.file.open("wb") as file:
            file.truncate(self.bytes)
        return {}

    def _noted(self) -> dict[int, Entry]:
        """The rows that the journal lists. An incomplete last line is cut off."""
        done: dict[int, Entry] = {}
        if not self.journal.exists():
            return done
        with self.journal.open("r+b") as journal:
            whole = 0
            for line in journal:
                try:
                    done |= {row: Entry(*entry) for row, entry in json.loads(line)}
                except (ValueError, TypeError):
                    break
                whole += len(line)
            journal.truncate(whole)
        return done

    def _todo(self, done: dict[int, Entry]) -> list[list[tuple[int, int]]]:
        """The unfinished rows as chunks of (row, position), in reading order."""
        row_of = {position: row for row, position in enumerate(self.positions)}
        order = ((row_of[p], p) for p in self.data.reading_order if p in row_of)
        todo = [(row, position) for row, position in order if row not in done]
        return [todo[i : i + CHUNK] for i in range(0, len(todo), CHUNK)]

    def _made(self, todo: list[list[tuple[int, int]]], workers: int) -> Iterator[Noted]:
        try:
            chunks = _Chunks(self.file, self.data, self.parts, todo)
            yield from made_by_processes(chunks, workers)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise RequestError(
                "a process that makes the crop cache was killed, maybe for lack of memory: run "
                "the same command again, which continues"
            ) from error


class _Chunks:
    """Item k makes chunk k. DataLoader workers write the crops and send back only the entries."""

    def __init__(
        self, file: Path, data: ImageFiles, parts: Split, todo: list[list[tuple[int, int]]]
    ):
        self.file, self.data, self.parts, self.todo = file, data, parts, todo

    def __len__(self) -> int:
        return len(self.todo)

    def __getitem__(self, k: int) -> Noted:
        with guarded(self.file, ANOTHER), self.file.open("r+b") as file:
            noted = [(row, self._make(file, row, i)) for row, i in self.todo[k]]
            file.flush()
            os.fsync(file.fileno())
        return noted

    def _make(self, file: BinaryIO, row: int, i: int) -> Entry:
        """Decode and write one crop."""
        try:
            picture = self.data.open(i)
        except UnreadableImage as reason:
            return Entry(0, 0, 0, False, str(reason))
        crop = self.parts.crop(picture)
        content = crop.tobytes()
        file.seek(row * self.parts.size)
        file.write(content)
        return Entry(zlib.crc32(content), *picture.size, upright(picture), None)
