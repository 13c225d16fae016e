"""The features of a data set's clips on the disk: a file of numbers, an index, journals.

    <folder>/features.bin      clip after clip: views x frames x width numbers
    <folder>/journal-*.jsonl   of an unfinished file: the clips that are on the disk, by process
    <folder>/index.json        of a finished one: what it is, and an entry for every clip

Clips are written to their places and flushed, then listed in a journal, so whatever a journal lists
is there. Every clip has a checksum.
"""

import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from asap.records.disk import guarded, sync_folder, write_bytes
from asap.records.key import key_of

FORMAT = 1  # of the files; part of their key
TYPES = {"fp16": torch.float16, "fp32": torch.float32}


class Entry(NamedTuple):
    """A clip's label and the CRC-32 of its features; with an `error`, it has no features."""

    label: int
    checksum: int
    error: str | None = None


class Shape(NamedTuple):
    """What a features file holds: numbers of a type for each clip."""

    clips: int
    views: int
    frames: int
    width: int
    type: str  # fp16 | fp32

    @property
    def clip_bytes(self) -> int:
        size = self.views * self.frames * self.width
        return size * torch.empty(0, dtype=TYPES[self.type]).element_size()

    @property
    def bytes(self) -> int:
        return self.clips * self.clip_bytes


@dataclass(frozen=True)
class FeatureFile:
    """A features file that is, or will be, written, by several processes if there are several.

    root: the folder of all features; identity: everything that changes these.
    """

    root: Path
    identity: Mapping[str, Any]
    shape: Shape

    @property
    def folder(self) -> Path:
        return self.root / key_of({"format": FORMAT, **self.identity})

    def begin(self) -> dict[int, Entry]:
        """The clips that are on the disk; makes the file if it is not there, or of another size."""
        file = self.folder / "features.bin"
        with guarded(self.folder):
            if file.exists() and file.stat().st_size == self.shape.bytes:
                return self.done()
            self.folder.mkdir(parents=True, exist_ok=True)
            for stale in (*self.folder.glob("journal-*.jsonl"), self.folder / "index.json"):
                stale.unlink(missing_ok=True)
            with file.open("wb") as made:
                made.truncate(self.shape.bytes)
            sync_folder(self.folder)
        return {}

    def done(self) -> dict[int, Entry]:
        """The clips that journals list. What a killed process has left of a last line is ignored.

        Of several lines about a clip, one with features counts: it was tried again.
        """
        found: dict[int, Entry] = {}
        with guarded(self.folder):
            for journal in sorted(self.folder.glob("journal-*.jsonl")):
                for line in journal.read_bytes().splitlines():
                    try:
                        entries = {clip: Entry(*entry) for clip, *entry in json.loads(line)}
                    except (ValueError, TypeError):
                        continue
                    found |= {
                        clip: entry
                        for clip, entry in entries.items()
                        if entry.error is None or clip not in found
                    }
        return found

    @property
    def bytes_left(self) -> int:
        """The disk space that it will still take, in bytes."""
        try:
            held = 512 * getattr((self.folder / "features.bin").stat(), "st_blocks", 0)
        except FileNotFoundError:
            held = 0
        return max(0, self.shape.bytes - held)

    @contextmanager
    def writer(self, name: str) -> Iterator[Callable[[Mapping[int, "Clip"]], None]]:
        """A function that writes clips by their position; `name`: of this process's journal."""
        path = self.folder / f"journal-{name}.jsonl"
        with guarded(self.folder):
            torn = path.exists() and not path.read_bytes().endswith(b"\n")
        with (
            guarded(self.folder),
            (self.folder / "features.bin").open("r+b") as file,
            path.open("ab") as journal,
        ):

            def write(clips: Mapping[int, Clip]) -> None:
                nonlocal torn
                entries = []
                with guarded(self.folder):
                    for position, clip in clips.items():
                        content = b"" if clip.features is None else _bytes(clip.features)
                        file.seek(position * self.shape.clip_bytes)
                        file.write(content)
                        entries.append((position, clip.label, zlib.crc32(content), clip.error))
                    _flush(file)
                    line = json.dumps(entries).encode() + b"\n"
                    journal.write(b"\n" + line if torn else line)
                    _flush(journal)
                torn = False

            yield write

    def finish(self, entries: Mapping[int, Entry]) -> None:
        """Write the index for entries of all clips, and remove the journals."""
        listed = [list(entries[clip]) for clip in range(self.shape.clips)]
        index = {"identity": dict(self.identity), "shape": list(self.shape), "clips": listed}
        write_bytes(self.folder / "index.json", _index_bytes(index))
        with guarded(self.folder):
            for journal in self.folder.glob("journal-*.jsonl"):
                journal.unlink()

    def reopen(self, found: "Features", clips: Sequence[int]) -> None:
        """Turn a finished file into an unfinished one that lacks these clips."""
        kept = [(i, *entry) for i, entry in enumerate(found.entries) if i not in set(clips)]
        line = json.dumps(kept).encode() + b"\n"
        write_bytes(self.folder / "journal-0.jsonl", line)
        with guarded(self.folder):
            for stale in self.folder.glob("journal-*.jsonl"):  # of a kill while it was finished
                if stale.name != "journal-0.jsonl":
                    stale.unlink()
            (self.folder / "index.json").unlink()

    def finished(self) -> "Features | None":
        """The features if the file is finished; None if it is not, or its index is damaged."""
        file = self.folder / "features.bin"
        try:
            with guarded(self.folder):
                index = (self.folder / "index.json").read_bytes()
                size = file.stat().st_size
        except Exception as error:
            if isinstance(error.__cause__, FileNotFoundError):
                return None
            raise
        try:
            content = json.loads(index)
            entries = [Entry(*entry) for entry in content["clips"]]
            shape = Shape(*content["shape"])
        except (ValueError, TypeError, KeyError):
            return None
        whole = index == _index_bytes(content) and size == self.shape.bytes
        right = shape == self.shape and len(entries) == shape.clips
        return Features(file, self.shape, entries) if whole and right else None


@dataclass(frozen=True)
class Clip:
    """A clip to be written: its features in the file's type, or why it has none."""

    label: int
    features: Float[Tensor, "views frames width"] | None
    error: str | None = None


class Features:
    """The features of all clips, memory-mapped. Reading needs no memory but the system's cache."""

    def __init__(self, file: Path, shape: Shape, entries: Sequence[Entry]):
        self.file, self.shape, self.entries = file, shape, entries
        kind = {"fp16": np.float16, "fp32": np.float32}[shape.type]
        with guarded(file):
            size = (shape.clips, shape.views, shape.frames, shape.width)
            self._numbers = np.memmap(file, kind, "r", shape=size)
        self.readable = [i for i, entry in enumerate(entries) if entry.error is None]

    @property
    def digest(self) -> str:
        """SHA-256 of the labels and checksums of all clips, and of the errors of some."""
        return sha256(json.dumps([self.shape, self.entries]).encode()).hexdigest()

    def __len__(self) -> int:
        """Views of readable clips, which training takes one by one."""
        return len(self.readable) * self.shape.views

    @property
    def labels(self) -> Int[Tensor, "views"]:
        """The label of every view."""
        labels = torch.tensor([self.entries[i].label for i in self.readable], dtype=torch.int64)
        return labels.repeat_interleave(self.shape.views)

    def clip(self, position: int) -> Float[Tensor, "views frames width"]:
        """The features of a clip, in the file's type."""
        return torch.from_numpy(self._numbers[position].copy())

    def views(self, numbers: Sequence[int]) -> Float[Tensor, "b frames width"]:
        """Views by their numbers among all, in float32."""
        places = [divmod(number, self.shape.views) for number in numbers]
        clips = np.array([self.readable[clip] for clip, _ in places], dtype=np.int64)
        within = np.array([view for _, view in places], dtype=np.int64)
        return torch.from_numpy(self._numbers[clips, within].astype(np.float32))

    def damaged(self) -> list[int]:
        """The readable clips whose checksum does not match; reads all of the file."""

        def wrong(i: int) -> bool:
            return zlib.crc32(self._numbers[i].tobytes()) != self.entries[i].checksum

        return [i for i in self.readable if wrong(i)]


def _flush(file: BinaryIO) -> None:
    """Wait until all that was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def _bytes(features: Tensor) -> bytes:
    return features.contiguous().numpy().tobytes()


def _index_bytes(index: Mapping[str, Any]) -> bytes:
    """The index with its own digest in front of it."""
    plain = {key: value for key, value in index.items() if key != "sha256"}
    digest = sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    return json.dumps({"sha256": digest, **plain}).encode() + b"\n"
