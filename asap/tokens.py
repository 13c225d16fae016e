"""The ragged batch, and the trace of what happened to it."""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import groupby

import torch
from jaxtyping import Float, Int
from torch import Tensor

SHORT = 16  # tokens: on CPU, images are batched from this length on


@dataclass(frozen=True)
class Anatomy:
    """The layout of a backbone's tokens: what a method may know of it."""

    name: str
    depth: int  # blocks
    prefix: int  # tokens before the patches: class, distillation, register tokens
    patches: int
    class_token: bool
    width: int = 0  # channels of a token; 0 = not stated

    @property
    def tokens(self) -> int:
        return self.prefix + self.patches


@dataclass(frozen=True)
class Run:
    """Neighbouring images of equal length: `rows` of the packed buffer are (images, length)."""

    images: tuple[int, ...]  # their indices in the batch
    first_row: int
    length: int
    watched: bool  # still shown to the method

    @property
    def rows(self) -> slice:
        return slice(self.first_row, self.first_row + len(self.images) * self.length)


@dataclass(frozen=True)
class Ragged:
    """Tokens of a batch, packed image after image without padding.

    `lengths[i]` rows belong to image `images[i]` of the batch; the first `watched` images are still
    shown to the method. `sizes` counts the patches that a token stands for; `merged` says whether
    any size differs from 1.
    """

    rows: Float[Tensor, "total dim"]
    sizes: Float[Tensor, "total"]
    lengths: tuple[int, ...]
    images: tuple[int, ...]
    watched: int
    merged: bool = False

    def runs(self) -> Iterator[Run]:
        """The batch as runs of equal length, in packed order.

        On CPU, short images come one by one, which keeps their bits independent of each other.
        """
        alone = self.rows.device.type == "cpu"
        segments = list(enumerate(self.lengths))
        first_row = 0
        for (length, watched, _), members in groupby(
            segments,
            key=lambda s: (s[1], s[0] < self.watched, s[0] if alone and s[1] < SHORT else -1),
        ):
            index = [i for i, _ in members]
            yield Run(tuple(self.images[i] for i in index), first_row, length, watched)
            first_row += length * len(index)


def pack(tokens: Float[Tensor, "b n dim"]) -> Ragged:
    """A batch of equal length, packed; every image watched, every size 1."""
    b, n, dim = tokens.shape
    # a single image can come transposed in memory, which changes the bits of later sums
    rows = tokens.reshape(b * n, dim).contiguous()
    kind = torch.float64 if rows.dtype == torch.float64 else torch.float32
    sizes = torch.ones(b * n, dtype=kind, device=rows.device)
    return Ragged(rows, sizes, (n,) * b, tuple(range(b)), b)


@dataclass
class Trace:
    """What happened to each image of a batch (B images, L blocks, n patches).

    All tensors are on the CPU. `stop_block` counts from 1 and 0 means never; `sink` is a patch
    index, -1 if there is none; `assignment` is the final token that each patch ended in, -1 if it
    was dropped. `mass` is NaN after the stop. A margin says how far a decision was from falling
    otherwise: `margin_mass` min |largest column mass - tau| over the blocks tested, `margin_sink`
    the lead of the sink over the next patch, `margin_bin` the distance of the nearest patch to the
    edge of the background; NaN where there was no such decision.
    """

    tokens: Int[Tensor, "b l_and_1"]
    stop_block: Int[Tensor, "b"]
    sink: Int[Tensor, "b"]
    mass: Float[Tensor, "b l"]
    assignment: Int[Tensor, "b patches"]
    macs_backbone: Int[Tensor, "b"]
    macs_method: Int[Tensor, "b"]
    margin_mass: Float[Tensor, "b"]
    margin_sink: Float[Tensor, "b"]
    margin_bin: Float[Tensor, "b"]

    @classmethod
    def empty(cls, images: int, blocks: int, patches: int, prefix: int) -> "Trace":
        """The trace before the first block."""
        zero = torch.zeros(images, dtype=torch.int64)
        nan = torch.full((images,), float("nan"))
        return cls(
            tokens=torch.zeros(images, blocks + 1, dtype=torch.int64),
            stop_block=zero.clone(),
            sink=zero - 1,
            mass=torch.full((images, blocks), float("nan")),
            assignment=(torch.arange(patches) + prefix).repeat(images, 1),
            macs_backbone=zero.clone(),
            macs_method=zero.clone(),
            margin_mass=nan.clone(),
            margin_sink=nan.clone(),
            margin_bin=nan.clone(),
        )

    def take(self, images: Int[Tensor, "k"]) -> "Trace":
        """The trace of some images of the batch."""
        return Trace(**{f.name: getattr(self, f.name)[images] for f in fields(self)})
