"""A batch of images of different lengths: their tokens packed without padding."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from asap.core.constants import on_device


@dataclass(frozen=True)
class Segment:
    """Neighbouring images of equal length: `rows` of the packed buffer are (images, length)."""

    images: tuple[int, ...]  # their indices in the batch
    first: int  # place of the first one among the packed images
    first_row: int
    length: int
    active: bool  # still shown to the method

    @property
    def rows(self) -> slice:
        return slice(self.first_row, self.first_row + len(self.images) * self.length)

    @property
    def places(self) -> slice:
        return slice(self.first, self.first + len(self.images))


@dataclass(frozen=True)
class PackedTokens:
    """Tokens of a batch, packed image after image without padding, with a column for each fact.

    `lengths[i]` rows belong to image `images[i]` of the batch; both are known to the host. The
    first `active` images are still shown to the method. Columns: `sizes`, the patches that a token
    stands for; `positions`, its place in the image's first sequence (of an average, the lowest of
    its members); `source`, by image of the batch, the token that holds each patch now (-1 =
    dropped). `merged`: whether any size may differ from 1. Images shorter than `alone_below` make
    segments of their own.
    """

    rows: Float[Tensor, "total dim"]
    sizes: Float[Tensor, "total"]
    positions: Int[Tensor, "total"]
    source: Int[Tensor, "all_images patches"]
    lengths: tuple[int, ...]
    images: tuple[int, ...]
    active: int
    merged: bool = False
    alone_below: int = 0

    def with_rows(self, rows: Float[Tensor, "total dim"]) -> "PackedTokens":
        """The same tokens with other values; what is known of their layout stays known."""
        after = replace(self, rows=rows)
        known = ("segments", "counts", "offsets", "index")
        vars(after).update((name, vars(self)[name]) for name in known if name in vars(self))
        return after

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The batch as segments of equal length, in packed order."""
        if not self.lengths:
            return ()
        lengths = np.array(self.lengths)
        active = np.arange(len(lengths)) < self.active
        new = (np.diff(lengths) != 0) | np.diff(active) | (lengths[1:] < self.alone_below)
        starts = [0, *(np.flatnonzero(new) + 1).tolist(), len(lengths)]
        rows = [0, *lengths.cumsum().tolist()]
        return tuple(
            Segment(self.images[a:b], a, rows[a], self.lengths[a], a < self.active)
            for a, b in pairwise(starts)
        )

    @cached_property
    def counts(self) -> Int[Tensor, "images"]:
        """`lengths` on the device."""
        return on_device(self.lengths, self.rows.device)

    @cached_property
    def offsets(self) -> Int[Tensor, "images"]:
        """The first row of every image, on the device."""
        return self.counts.cumsum(0) - self.counts

    @cached_property
    def index(self) -> Int[Tensor, "images"]:
        """`images` on the device."""
        return on_device(self.images, self.rows.device)

    def per_row(self, values: Int[Tensor, "images"]) -> Int[Tensor, "total"]:
        """Every row has its image's value."""
        return values.repeat_interleave(self.counts, output_size=len(self.rows))

    def places(self) -> Int[Tensor, "total"]:
        """Every row's place within its image."""
        return torch.arange(len(self.rows), device=self.rows.device) - self.per_row(self.offsets)

    def starts(self) -> Int[Tensor, "images"]:
        """The first row of every image, in the order of the batch."""
        return self.offsets.new_zeros(len(self.source)).index_put((self.index,), self.offsets)

    def of(self, places: Sequence[int], renumbered: bool = False) -> "PackedTokens":
        """Copies of the images at some places of a batch of one length, all of them active.

        Their indices stay, or are those of a batch of their own if `renumbered`.
        """
        length, images = self.lengths[0], tuple(self.images[i] for i in places)
        index = on_device(tuple(places), self.rows.device)
        source = self.source[list(images)] if renumbered else self.source
        return replace(
            self,
            rows=self.rows.view(-1, length, self.rows.shape[1])[index].flatten(0, 1),
            sizes=self.sizes.view(-1, length)[index].flatten(),
            positions=self.positions.view(-1, length)[index].flatten(),
            source=source,
            lengths=(length,) * len(places),
            images=tuple(range(len(places))) if renumbered else images,
            active=len(places),
        )


def pack(tokens: Float[Tensor, "b n dim"], prefix: int = 0, alone_below: int = 0) -> PackedTokens:
    """A batch of equal length, packed; every image active, every size 1; `prefix` tokens are no
    patches."""
    b, n, dim = tokens.shape
    # a single image can come transposed in memory, which changes the bits of later sums
    rows = tokens.reshape(b * n, dim).contiguous()
    kind = torch.float64 if rows.dtype == torch.float64 else torch.float32
    order = torch.arange(n, device=rows.device)
    return PackedTokens(
        rows=rows,
        sizes=torch.ones(b * n, dtype=kind, device=rows.device),
        positions=order.repeat(b),
        source=order[prefix:].repeat(b, 1),
        lengths=(n,) * b,
        images=tuple(range(b)),
        active=b,
        alone_below=alone_below,
    )
