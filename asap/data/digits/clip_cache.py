"""The clips of moving digits as files in a cache folder, made when they are first wanted.

    <data.cache>/digits-clips-<key>/<split>-<seed>/000017.mp4
                                                   journal.jsonl     the finished clips
                                                   making.lock

The key covers the renderer, the encoder and their versions. The folder may be deleted at any time.
"""

import json
import logging
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import version
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from filelock import FileLock
from jaxtyping import UInt8
from tqdm import tqdm

from asap.data.crops.build import ANOTHER
from asap.data.crops.cache import cores
from asap.data.digits import clips
from asap.data.images.source import size_of
from asap.data.loading import made_by_processes
from asap.records.disk import guarded
from asap.records.key import key_of

log = logging.getLogger("asap")
# libx264 with its usual settings writes other bytes on every run, even on one thread. With these,
# equal frames give equal bytes (tested).
_SETTINGS: dict[str, Any] = {
    "codec": "libx264", "container": "mp4", "pixels": "yuv420p", "rate": 16, "threads": 1,
    "options": {"preset": "ultrafast", "qp": "18"},
}  # fmt: skip
_CHUNK = 16  # clips; when the process is killed, each core loses at most this many


class Note(NamedTuple):
    """A finished clip: its number, and the SHA-256 of its rendered frames and of its file."""

    clip: int
    frames: str
    file: str


class DigitClipFiles:
    """A `Source`: the first `count` clips of a split, below the folder `cache`.

    Clips are made as they are asked for by hash or by content, on all cores; what is there is used
    again, and a file that is damaged or gone is made again. Several processes may work on a folder.
    RequestError if the disk is full or not writable.
    """

    def __init__(self, cache: Path, split: str, seed: int, count: int):
        self.split, self.seed = split, seed
        self.folder = cache / f"digits-clips-{key_of(identity())}" / f"{split}-{seed}"
        self.paths = [f"{split}/{i:06d}.mp4" for i in range(count)]
        self.labels = [clips.label_of(split, seed, i) for i in range(count)]

    @property
    def reading_order(self) -> range:
        return range(len(self.paths))

    def sizes(self) -> list[int]:
        return [size_of(self.file(i)) for i in self.reading_order]

    def hashes(self, positions: Sequence[int], index: Path | None) -> list[bytes]:
        """Of the rendered frames with the encoder's settings and version: not of the files, whose
        bytes may differ between processors.
        """
        made, by = self._made(positions), key_of(encoder())
        return [sha256(f"{made[i].frames} {by}".encode()).digest() for i in positions]

    def read(self, i: int) -> Path:
        if not self.file(i).is_file():
            self._made([i])
        return self.file(i)

    def store(self, i: int) -> Path:
        return self.folder

    def file(self, i: int) -> Path:
        """The place of a clip's file."""
        return self.folder / f"{i:06d}.mp4"

    def make(self, i: int) -> Note:
        """Render, encode and write one clip."""
        frames = clips.clip(self.split, self.seed, i).frames
        content = encoded(frames)
        beside = self.file(i).with_suffix(".tmp")  # its writer has the lock
        beside.write_bytes(content)
        beside.replace(self.file(i))
        return Note(i, sha256(frames.tobytes()).hexdigest(), sha256(content).hexdigest())

    def _made(self, positions: Sequence[int]) -> dict[int, Note]:
        """The notes of some clips, each of which is then there, and intact."""
        with guarded(self.folder, ANOTHER):
            found = self._intact(positions)
            if len(found) == len(positions):
                return found  # no lock: the folder may be read-only
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "making.lock"):
                found = self._intact(positions)
                missing = [i for i in positions if i not in found]
                if missing:
                    self._make(missing)
            return self._intact(positions)

    def _intact(self, positions: Sequence[int]) -> dict[int, Note]:
        """The notes of those clips whose files are as they were written."""
        noted = self._noted()
        return {
            i: noted[i]
            for i in positions
            if i in noted
            and self.file(i).is_file()
            and sha256(self.file(i).read_bytes()).hexdigest() == noted[i].file
        }

    def _noted(self) -> dict[int, Note]:
        """The last note of each clip in the journal. A line that is cut off is passed over."""
        noted: dict[int, Note] = {}
        journal = self.folder / "journal.jsonl"
        for line in journal.read_text("utf-8").splitlines() if journal.exists() else ():
            try:
                note = Note(*json.loads(line))
            except (ValueError, TypeError):
                continue
            noted[note.clip] = note
        return noted

    def _make(self, missing: Sequence[int]) -> None:
        log.debug("making %d clips in %s", len(missing), self.folder)
        chunks = [missing[i : i + _CHUNK] for i in range(0, len(missing), _CHUNK)]
        with (
            (self.folder / "journal.jsonl").open("a", encoding="utf-8") as journal,
            tqdm(total=len(missing), desc="clips", unit="clip", disable=None) as bar,
        ):
            journal.write("\n")  # ends a line that a kill has cut off
            for notes in made_by_processes(_Chunks(self, chunks), cores()):
                journal.writelines(json.dumps(note) + "\n" for note in notes)
                journal.flush()
                bar.update(len(notes))


class _Chunks:
    """Item k makes chunk k."""

    def __init__(self, files: DigitClipFiles, chunks: Sequence[Sequence[int]]):
        self.files, self.chunks = files, chunks

    def __len__(self) -> int:
        return len(self.chunks)

    def __getitem__(self, k: int) -> list[Note]:
        with guarded(self.files.folder, ANOTHER):
            return [self.files.make(i) for i in self.chunks[k]]


def identity() -> dict:
    """Everything that the files depend on, beside split, seed and number."""
    return {
        "generator": clips.GENERATOR_VERSION,
        "encoder": encoder(),
        "numpy": version("numpy"),
        "pillow": version("pillow"),
    }


def encoder() -> dict[str, Any]:
    """The settings and the version of what encodes, as plain data."""
    import av  # takes a moment, and few runs need it

    return {**_SETTINGS, "av": av.__version__, "libavcodec": av.library_versions["libavcodec"]}


def encoded(frames: UInt8[np.ndarray, "frames height width 3"]) -> bytes:
    """The content of an MP4 file with these RGB frames. Height and width are even."""
    import av

    file = BytesIO()
    with av.open(file, "w", format=_SETTINGS["container"]) as container:
        stream = container.add_stream(_SETTINGS["codec"], rate=_SETTINGS["rate"])
        _, stream.height, stream.width, _ = frames.shape
        stream.pix_fmt = _SETTINGS["pixels"]
        stream.options = _SETTINGS["options"]
        stream.thread_count = _SETTINGS["threads"]
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()
