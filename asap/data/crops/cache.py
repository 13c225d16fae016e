"""The crop cache: pictures are decoded, resized and cropped once, and then read as bytes.

    <data.cache>/<key>/            complete crops, see file.py
    <data.cache>/<key>.building/   unfinished; the same command resumes
    <data.cache>/<key>.damaged/    moved away; may be deleted
    <data.cache>/<key>.lock

The key covers the files and their order, resize, crop and interpolation, and the versions of the
libraries that decode and resize. It does not cover how the bytes are normalised, so backbones that
differ only in normalisation share crops. A sample has the same bits with and without the cache.
"""

import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from filelock import AcquireReturnProxy, FileLock
from PIL import features
from tqdm import tqdm

from asap.data.base import DataSet, Sample, Subset, take
from asap.data.crops.build import ANOTHER, Build
from asap.data.crops.file import FORMAT, Crops, Damaged, any_of, index_of, manifest_of
from asap.data.crops.transform_split import Split, split
from asap.data.images.image_files import ImageFiles
from asap.records.disk import (
    acquired,
    check_space,
    guarded,
    size_text,
    sync_folder,
    write_bytes,
    write_through,
)
from asap.records.key import key_of

log = logging.getLogger("asap")


def cached(data: ImageFiles, folder: Path, limit: int | None) -> DataSet:
    """At most `limit` images of a data set, read from its crop cache, which is built if needed.

    With a limit, only the crops of these images are made, unless a cache of all images exists.
    Raises RequestError if the transform cannot be split into cached and uncached steps, if the disk
    is full or not writable, and if the pictures' folder has vanished.
    """
    parts = split(data.transform)
    part = take(cast(DataSet, data), limit)
    some = part.positions if isinstance(part, Subset) else None
    if some is None:
        crops = CropCache(folder, data, parts, None).made()
        return _as_data_set(CachedCrops(data, parts, crops))
    # Only if some cache has the right number of crops: its key needs the hash of every picture.
    whole = CropCache(folder, data, parts, None) if any_of(folder, len(data)) else None
    if whole is not None and (crops := whole.found()) is not None:
        return take(_as_data_set(CachedCrops(data, parts, crops)), limit)
    crops = CropCache(folder, data, parts, some).made()
    return take(_as_data_set(CachedCrops(data, parts, crops, some)), limit)


def _as_data_set(crops: "CachedCrops") -> DataSet:
    return cast(DataSet, crops)


class CachedCrops:
    """A data set whose crops are read from the cache.

    `some`: the positions that have a crop, None for all. Everything else, digests included, comes
    from the data set itself, so records are the same with and without a cache.
    """

    def __init__(
        self, whole: ImageFiles, parts: Split, crops: Crops, some: Sequence[int] | None = None
    ):
        self.whole, self.parts, self.crops = whole, parts, crops
        self._row_of = None if some is None else {p: row for row, p in enumerate(some)}
        self._warned = False

    source = property(lambda self: self.whole.source)
    name = property(lambda self: self.whole.name)
    task = property(lambda self: self.whole.task)
    classes = property(lambda self: self.whole.classes)
    n_classes = property(lambda self: self.whole.n_classes)
    digest = property(lambda self: self.whole.digest)
    label_digest = property(lambda self: self.whole.label_digest)
    scored = property(lambda self: self.whole.scored)
    has_masks = property(lambda self: self.whole.has_masks)
    clustered = property(lambda self: self.whole.clustered)
    description = property(lambda self: self.whole.description)
    files_left_out = property(lambda self: self.whole.files_left_out)
    differs = property(lambda self: self.whole.differs)

    def digest_of(self, positions: Sequence[int]) -> str:
        return self.whole.digest_of(positions)

    @property
    def reading_order(self) -> range:
        return range(len(self))

    def __len__(self) -> int:
        return len(self.whole)

    def __getitem__(self, i: int) -> Sample:
        row = range(len(self))[i] if self._row_of is None else self._row_of.get(i)
        if row is None:
            return self.whole[i]
        entry = self.crops.entry(row)
        if entry.error is not None:
            return self._again(i, entry.error)
        try:
            crop = self.crops.read(row)
        except Damaged as reason:
            self._warn(reason)
            return self.whole[i]
        mask = self.whole.mask(i, (entry.width, entry.height), entry.upright)
        return self.whole.sample(i, self.parts.image(crop), mask)

    def _again(self, i: int, noted: str) -> Sample:
        """Try again to read a picture that could not be read when the cache was built."""
        try:
            return self.whole[i]
        except Exception as error:  # the disk is gone; the other pictures are in the cache
            log.debug("picture %d of the crop cache", i, exc_info=error)
            return self.whole.sample(i, error=noted)

    def _warn(self, reason: Damaged) -> None:
        """Log once that the cache is damaged, and mark it so that the next run builds it again."""
        if not self._warned:
            self._warned = True
            log.warning(
                "crop cache %s: %s: its picture is decoded again, and the next run makes the cache "
                "anew", self.crops.path.parent, reason,
            )  # fmt: skip
            with suppress(OSError):  # the cache may belong to another user
                self.crops.mark()


class CropCache:
    """The folder that holds, or will hold, the crops of a data set or of some of its positions."""

    def __init__(
        self, folder: Path, data: ImageFiles, parts: Split, positions: Sequence[int] | None
    ):
        self.folder, self.data, self.parts = folder, data, parts
        self.identity = identity_of(data, parts, positions)
        self.positions = range(len(data)) if positions is None else positions
        self.place = folder / key_of(self.identity)

    def found(self) -> Crops | None:
        """The crops if the cache exists.

        A damaged cache is moved away. Crops of pictures that can be read by now are added.
        """
        with guarded(self.place, ANOTHER):
            if not self.place.exists():
                return None
            with suppress(Damaged, FileNotFoundError):
                return self._completed(self._open())  # no lock: the folder may be read-only
            with self._lock():
                return self._sound()

    def made(self) -> Crops:
        """The crops; the cache is built if it does not exist."""
        if (found := self.found()) is not None:
            return found
        with guarded(self.place, ANOTHER), self._lock():
            if (found := self._sound()) is not None:
                return found
            self._make()
            return self._open()

    def _completed(self, crops: Crops) -> Crops:
        """The same crops, after another try at the pictures that could not be read before."""
        if not any(self._readable(row) for row in crops.failed):
            return crops
        try:
            with self._lock():
                if (crops := self._open()).failed:  # another process may have been here
                    self._reopen(crops)
                    self._make()
        except OSError as error:
            log.info(
                "crop cache %s cannot be completed (%s): some pictures are decoded every time",
                self.place, error.strerror,
            )  # fmt: skip
            return crops
        return self._open()

    def _readable(self, row: int) -> bool:
        try:
            self.data.open(self.positions[row])
        except Exception:  # the noted error is kept, whatever fails this time
            return False
        return True

    def _reopen(self, crops: Crops) -> None:
        """Turn a complete cache back into an unfinished one that lacks the crops with an error."""
        unfinished = self.place.with_name(f"{self.place.name}.building")
        Build(self.place, self.data, self.parts, self.positions).note(
            [(row, entry) for row, entry in enumerate(crops.entries()) if entry.error is None]
        )
        shutil.rmtree(unfinished, ignore_errors=True)
        self.place.replace(unfinished)

    def _open(self) -> Crops:
        return Crops(self.place, self.identity, self.parts.shape, len(self.positions))

    def _sound(self) -> Crops | None:
        """The crops if the cache exists and is intact; a damaged one is moved away."""
        try:
            return self._open()
        except (Damaged, FileNotFoundError) as reason:
            if self.place.exists():
                problem = reason if isinstance(reason, Damaged) else "the manifest is not there"
                aside = self.place.with_name(f"{self.place.name}.damaged")
                log.warning(
                    "crop cache %s is damaged (%s): set aside as %s, which may be deleted",
                    self.place, problem, aside.name,
                )  # fmt: skip
                shutil.rmtree(aside, ignore_errors=True)
                self.place.replace(aside)
            return None

    def _make(self) -> None:
        """Make the missing crops, then give the folder its final name."""
        unfinished = self.place.with_name(f"{self.place.name}.building")
        build = Build(unfinished, self.data, self.parts, self.positions)
        check_space(
            self.folder, build.bytes_left, "the crop cache needs",
            f"choose another {ANOTHER}, or decode every time with data.cache=null",
        )  # fmt: skip
        n, (h, w, _) = len(self.positions), self.parts.shape
        size = size_text(build.bytes)
        log.info("making the crop cache %s: %d crops of %d x %d, %s", self.place, n, h, w, size)
        with tqdm(total=n, desc="crop cache", unit="img", disable=None, smoothing=0.1) as bar:
            index = index_of(build.run(cores(), bar.update))
        write_through(unfinished / "index.parquet", index)
        write_bytes(
            unfinished / "manifest.json", manifest_of(self.identity, self.parts.shape, n, index)
        )
        unfinished.replace(self.place)
        sync_folder(self.folder)
        (self.place / build.journal.name).unlink()

    def _lock(self) -> AcquireReturnProxy:
        """Exclusive lock on the cache; logs a line while another process builds it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        file = self.place.with_name(f"{self.place.name}.lock")
        said = f"crop cache {self.place}: another process is making it: waiting"
        return acquired(FileLock(file), lambda: log.info("%s", said))


def identity_of(data: ImageFiles, parts: Split, positions: Sequence[int] | None) -> dict[str, Any]:
    """Everything that the crops depend on. `positions`: None for the whole data set."""
    return {
        "format": FORMAT,
        "files": data.digest if positions is None else data.digest_of(positions),
        "positions": positions and sha256(str(list(positions)).encode()).hexdigest(),
        "pixels": parts.identity,
        "versions": versions(),
    }


def versions() -> dict[str, str | None]:
    """The versions of the libraries that decode, resize and crop."""
    return {
        "pillow": version("pillow"),
        "libjpeg": features.version("jpg"),
        "libjpeg_turbo": features.version("libjpeg_turbo"),
        "torchvision": version("torchvision"),
        "timm": version("timm"),
    }


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
