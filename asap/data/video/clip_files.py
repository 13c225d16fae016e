"""The one data set of clip files: a source, the views that are taken, and timm's transform."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from asap.data.base import Sample, Transform, files_left_out
from asap.data.images.decoding import UnreadableImage
from asap.data.images.image_files import image_id
from asap.data.images.source import Source, digest_of, refuse_vanished
from asap.data.video.frame_crops import FrameCrops, frame_difference
from asap.data.video.sampling import Views
from asap.data.video.unreadable import MISSING, UNDECODABLE, UnreadableClip
from asap.data.video.watchdog import Clip, read_clip


class ClipFiles:
    """Labelled clips of a source, in its order.

    clusters: for each clip the number of the video that it was cut from. decoder, seconds_per_clip:
    see `read_clip`; they do not change what is read. differs, `title`, `index`: as of `ImageFiles`.

    A sample's inputs are its views' frames, (views * frames, 3, h, w): first by clip, then by crop,
    then by frame. Its extras: "frame_difference" (see there), "decoder": decord | pyav, "length":
    verified | unverified, and "missing_frames" if some of the promised frames are. Its error begins
    with its kind: missing, undecodable, short, timeout, no video stream.
    """

    task = "video"
    clustered = True
    has_masks = False
    scored = None
    index: Path | None = None

    def __init__(
        self,
        source: Source,
        transform: Transform,
        views: Views,
        *,
        name: str,
        classes: Sequence[str],
        clusters: Sequence[int],
        about: str,
        decoder: str = "auto",
        seconds_per_clip: float = 60.0,
        differs: tuple[str, ...] = (),
    ):
        self.source, self.transform, self.views = source, transform, views
        self.name, self.classes, self.differs = name, tuple(classes), differs
        self.labels, self.clusters = source.labels, clusters
        self.decoder, self.seconds_per_clip = decoder, seconds_per_clip
        self.title: str | None = None
        self._about, self._crops = about, FrameCrops(transform, views.crops)

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @property
    def frames_per_view(self) -> int:
        return self.views.frames

    @property
    def images_per_example(self) -> int:
        """Images of every readable clip: the frames of all its views."""
        return self.views.count * self.views.frames

    @property
    def files_left_out(self) -> Mapping[str, int]:
        return files_left_out(self.source)

    @property
    def description(self) -> str:
        about = self._about if self.title is None else f"{self.title}: {self._about}"
        return f"{about}, {self.views.description}"

    @property
    def reading_order(self) -> Sequence[int]:
        return self.source.reading_order

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical relative paths, the files' bytes and the views."""
        return self.digest_of(range(len(self)))

    def digest_of(self, positions: Sequence[int]) -> str:
        """The digest of some clips. If each has its own file, no other file is read."""
        files = digest_of(self.source, positions, self.index)
        return sha256(f"{files} {self.views.identity}".encode()).hexdigest()

    @cached_property
    def label_digest(self) -> str:
        """SHA-256 of the labels."""
        return sha256(" ".join(map(str, self.labels)).encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Sample:
        try:
            clip = self.read(i)
            crops = self._views(clip)
        except (UnreadableClip, UnreadableImage) as reason:
            refuse_vanished(self.source, i)
            return self._sample(i, inputs=None, error=_with_kind(reason))
        extras: dict[str, Any] = {
            "frame_difference": frame_difference(crops),
            "decoder": clip.decoder,
            "length": clip.length,
        }
        if clip.missing_frames:
            extras["missing_frames"] = clip.missing_frames
        images = {id(one): self._crops.image(one) for view in crops for one in view}
        inputs = torch.stack([images[id(one)] for view in crops for one in view])
        return self._sample(i, inputs=inputs, extras=extras)

    def read(self, i: int) -> Clip:
        """The decoded frames of a clip. Raises `UnreadableClip`, and what the source raises."""
        return read_clip(self.source.read(i), self.views, self.decoder, self.seconds_per_clip)

    def _views(self, clip: Clip) -> list[list[Any]]:
        """For each view, its frames' crops; frames that several views share are cut once."""
        cut = [self._crops.pictures(frame) for frame in clip.frames]
        return [
            [cut[at][crop] for at in places]
            for places in clip.clips
            for crop in range(self.views.crops)
        ]

    def _sample(self, i: int, **found: Any) -> Sample:
        path = self.source.paths[i]
        return Sample(
            index=i, id=image_id(path), source=path, cluster=self.clusters[i],
            target=self.labels[i], frames=self.views.frames, **found,
        )  # fmt: skip


def _with_kind(reason: Exception) -> str:
    """The error of a sample. What a source raises is a missing file, or one that it cannot read."""
    text = str(reason)
    if isinstance(reason, UnreadableClip) or text.startswith(f"{MISSING}: "):
        return text
    return f"{UNDECODABLE}: {text}"
