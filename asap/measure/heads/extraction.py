"""Computes the features of a data set's clips with the unreduced backbone, into their file."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from filelock import AcquireReturnProxy, FileLock

from asap.data.base import DataSet, Sample, frames_per_view, images_per_example
from asap.data.loading import loader
from asap.engine.executor import ReducedViT
from asap.errors import RequestError
from asap.measure.accuracy import Ranges, count_of
from asap.measure.heads.features import TYPES, Clip, FeatureFile, Features, Shape
from asap.measure.joint_evaluation import Evaluation, halving, missing
from asap.measure.processes import rank
from asap.measure.progress import progress
from asap.records.disk import acquired, check_space, guarded, size_text

log = logging.getLogger("asap")
MOST_CLIPS = 128  # in memory before they are written, even before their time
NOT_FINITE = "nonfinite"  # the kind of error of a clip whose features are not finite


@dataclass(frozen=True)
class Extraction:
    """The clips of a data set and the encoder of their frames, as one process has them.

    encoder: gives a feature for each frame, see `frame_encoder`. file: where the features go.
    """

    encoder: ReducedViT
    data: DataSet
    how: Evaluation
    file: FeatureFile

    def write(self, clips: Ranges, advance: Callable[[int], object] = lambda clips: None) -> None:
        """Compute and write these clips; a kill costs about `how.shard_seconds` of work."""
        waiting: dict[int, Clip] = {}
        with self.file.writer(str(rank())) as write:
            since = time.monotonic()
            for start, stop in clips:
                batches = loader(
                    self.data, range(start, stop), self.how.batch_size, self.how.workers
                )
                for samples in batches:
                    waiting |= self._of(samples)
                    late = time.monotonic() - since > self.how.shard_seconds
                    if late or len(waiting) >= MOST_CLIPS:
                        write(waiting)
                        advance(len(waiting))
                        waiting, since = {}, time.monotonic()
            write(waiting)
            advance(len(waiting))

    def _of(self, samples: Sequence[Sample]) -> dict[int, Clip]:
        """The clips of a batch by their position."""
        found = {s.index: Clip(s.target, None, s.error) for s in samples if s.inputs is None}
        readable = [s for s in samples if s.inputs is not None]
        shape = self.file.shape
        for part, outputs in halving(self.encoder, readable, self.how):
            kept = outputs.cpu().to(TYPES[shape.type])
            parts = kept.view(len(part), shape.views, shape.frames, shape.width)
            for sample, features in zip(part, parts, strict=True):
                fine = bool(torch.isfinite(features).all())
                error = None if fine else f"{NOT_FINITE}: its features are not finite"
                found[sample.index] = Clip(sample.target, features if fine else None, error)
        return found


Spread = Callable[[Extraction, Ranges, Callable[[int], object]], None]


def features_of(
    file: FeatureFile,
    make: Callable[[], Extraction],
    spread: Spread = Extraction.write,
) -> Features:
    """The features in a file: read if it is finished, else computed.

    Clips that could not be read are tried again, and damaged ones are computed again. make: builds
    what computes them, only if some are missing. spread: computes clips with all processes. Raises
    RequestError if the disk is too small or not writable; finished clips are kept.
    """
    with _lock(file.folder):
        found = file.finished()
        if found is not None and (again := [*found.damaged(), *_failed(found)]):
            if damaged := len(again) - len(_failed(found)):
                log.warning("%s: %d clips are damaged: computed again", file.folder, damaged)
            file.reopen(found, again)
            found = None
        if found is None:
            _compute(file, make, spread)
            found = file.finished()
    if found is None:
        raise RequestError(f"{file.folder} was changed by another program: run the command again")
    return found


def _compute(file: FeatureFile, make: Callable[[], Extraction], spread: Spread) -> None:
    """Compute the clips that the file lacks, and finish it."""
    shape, done = file.shape, file.begin()
    done = {clip: entry for clip, entry in done.items() if entry.error is None}
    lacking = list(missing([(clip, clip + 1) for clip in sorted(done)], shape.clips))
    with guarded(file.folder):
        check_space(
            file.folder, file.bytes_left, "features need",
            "choose another results folder, or take fewer clips with head.train_clips",
        )  # fmt: skip
    log.info(
        "features: %s of %s clips are left; each has %d x %d x %d numbers in %s, all need %s in %s",
        f"{count_of(lacking):,}", f"{shape.clips:,}", shape.views, shape.frames, shape.width,
        shape.type, size_text(shape.bytes), file.folder,
    )  # fmt: skip
    with progress("features", shape.clips, "clips") as bar:
        bar.update(len(done))
        if count_of(lacking):
            spread(make(), lacking, bar.update)
    entries = file.done()
    if len(entries) < shape.clips:
        raise RuntimeError("computed clips are missing: is another process removing them?")
    file.finish(entries)


def _failed(found: Features) -> list[int]:
    """Clips without features."""
    readable = set(found.readable)
    return [i for i in range(found.shape.clips) if i not in readable]


def _lock(folder: Path) -> AcquireReturnProxy:
    """Exclusive lock on a features file; logs a line while another process computes it."""
    with guarded(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        file = folder.with_name(f"{folder.name}.lock")
        said = f"{folder}: another process is computing these features: waiting"
        return acquired(FileLock(file), lambda: log.warning("%s", said))


def shape_of(data: DataSet, width: int, type: str) -> Shape:
    """The shape of the features of a data set's clips."""
    frames = frames_per_view(data)
    return Shape(len(data), images_per_example(data) // frames, frames, width, type)
