"""A video data set in memory: clips of drawn frames, several of a source, some unreadable."""

from dataclasses import dataclass
from hashlib import sha256

import torch

from asap.data.base import Sample


@dataclass(frozen=True)
class FakeVideo:
    """`clips` clips of `views` x `frames` frames of `size` pixels; the class is their brightness.

    Two neighbouring clips come from one source. `broken`: clips that cannot be read, by position,
    with the kind of their error.
    """

    clips: int = 6
    frames: int = 3
    views: int = 1
    size: int = 32
    broken: tuple[tuple[int, str], ...] = ()
    seed: int = 0
    classes: tuple[str, ...] = tuple(f"class {i}" for i in range(7))
    name: str = "fake_video"
    task: str = "video"
    scored: tuple[int, ...] | None = None
    has_masks: bool = False
    clustered: bool = True

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @property
    def digest(self) -> str:
        return sha256(repr(self).encode()).hexdigest()

    label_digest = digest

    @property
    def frames_per_view(self) -> int:
        return self.frames

    @property
    def images_per_example(self) -> int:
        return self.views * self.frames

    @property
    def description(self) -> str:
        return f"{self.clips} clips in memory"

    @property
    def reading_order(self) -> range:
        return range(self.clips)

    def __len__(self) -> int:
        return self.clips

    def __getitem__(self, i: int) -> Sample:
        draw = torch.Generator().manual_seed(1000 * self.seed + i)
        label, source, number = i % self.n_classes, f"clip {i}.mp4", self.views * self.frames
        if (kind := dict(self.broken).get(i)) is not None:
            error = f"{kind}: {source} is not to be had"
            return Sample(i, 100 + i, source, i // 2, None, label, error, frames=self.frames)
        moving = torch.randn(number, 3, self.size, self.size, generator=draw)
        still = torch.randn(1, 3, self.size, self.size, generator=draw)
        extras = {
            "frame_difference": torch.rand(self.views * (self.frames - 1), generator=draw),
            "decoder": "pyav",
            "length": "verified",
        }
        clip = still + 0.3 * moving + 0.1 * label
        return Sample(i, 100 + i, source, i // 2, clip, label, None, extras, self.frames)
