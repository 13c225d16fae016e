"""The ragged batch: tokens of images of different lengths, packed without padding."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import torch
from jaxtyping import Float
from torch import Tensor

SHORT = 16  # tokens: on CPU, images are batched from this length on


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
