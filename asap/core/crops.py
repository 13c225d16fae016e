"""The rows of a picture that was cut into crops, in the order in which a language model reads them.

LLaVA-NeXT (Liu et al., 2024) encodes the whole picture and a grid of crops of it, each as an image
of its own. The whole picture comes first; the crops' rows follow by their place in the common grid
of patches, line by line, as the model was trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import isqrt

import torch
from jaxtyping import Float, Int
from torch import Tensor

NEWLINE = -1  # in an order: the row that ends a line of patches
ORDERS = ("grid", "crop")


@dataclass(frozen=True)
class CropGrid:
    """How the crops of a picture lie: `down` lines of `across` crops, behind the whole picture.

    window: (top, bottom, left, right), the part of the common grid of patches, with bottom and
    right one behind the last, that is no padding. A picture that no method reduced is read without
    its padding then, with a newline row behind every line of patches. None: all patches are read,
    without newline rows.
    """

    down: int
    across: int
    window: tuple[int, int, int, int] | None = None


@dataclass(frozen=True)
class PictureRows:
    """The visual rows of a picture, before the projector.

    rows: of its images, one image after the other. order: for each place before the language model
    one of these rows, or `NEWLINE`; None: the rows as they are. held: the place, counted from 0, of
    the row that each patch ended in, image after image; -1: in none that is read.
    """

    rows: Float[Tensor, "n dim"]
    order: Int[Tensor, "m"] | None
    held: Int[Tensor, "patches"]

    def __len__(self) -> int:
        return len(self.rows if self.order is None else self.order)


def in_reading_order(
    rows: Sequence[Float[Tensor, "_ dim"]],
    held: Int[Tensor, "images patches"],
    grid: CropGrid,
    order: str = "grid",
    by_patch: bool = False,
    placeless: int = 0,
) -> PictureRows:
    """The rows of a picture's images as the language model reads them.

    rows: of each image in its own order, the whole picture first. held: of each image, the row that
    each of its patches ended in, -1: none.

    order: "grid": behind the whole picture the crops' rows by their place in the common grid, then
    those that have no place there, crop by crop: first class tokens, which stand for no patch, then
    the `placeless` last ones of each image and all that stand for several patches; `by_patch`:
    averages have the place of their first patch. "crop": one image after the other.
    """
    lengths = [len(one) for one in rows]
    starts = torch.tensor([0, *accumulate(lengths)])
    row_of = torch.where(held >= 0, held + starts[:-1, None], -1)
    if grid.window is not None and _unreduced(held, lengths):
        found = _with_newlines(row_of, grid, grid.window)
    elif order == "crop":
        found = torch.arange(sum(lengths))
    else:
        found = _by_place(row_of, lengths, grid, by_patch, placeless)
    place = torch.full((sum(lengths),), -1)
    read = found != NEWLINE
    place[found[read]] = read.nonzero()[:, 0]
    flat = row_of.flatten()
    at = torch.where(flat >= 0, place[flat.clamp(min=0)], -1)
    return PictureRows(torch.cat(list(rows)), found, at)


def _unreduced(held: Int[Tensor, "images patches"], lengths: Sequence[int]) -> bool:
    """Whether every image has a row for each patch, in their order, and no other row."""
    patches = held.shape[1]
    every = bool((held == torch.arange(patches)).all())
    return every and all(length == patches for length in lengths)


def _places(patches: int, grid: CropGrid) -> Int[Tensor, "crops patches"]:
    """The place of each patch of each crop in the common grid, line by line."""
    side = isqrt(patches)
    down, across = grid.down, grid.across
    every = torch.arange(down * side * across * side).view(down, side, across, side)
    return every.transpose(1, 2).reshape(down * across, patches)


def _with_newlines(
    row_of: Int[Tensor, "images patches"], grid: CropGrid, window: tuple[int, int, int, int]
) -> Int[Tensor, "m"]:
    """The whole picture, then the lines of the window, each with its newline row."""
    patches = row_of.shape[1]
    side = isqrt(patches)
    common = torch.empty(grid.down * side * grid.across * side, dtype=torch.int64)
    common[_places(patches, grid).flatten()] = row_of[1:].flatten()
    top, bottom, left, right = window
    lines = common.view(grid.down * side, -1)[top:bottom, left:right]
    ends = lines.new_full((len(lines), 1), NEWLINE)
    return torch.cat([row_of[0], torch.cat([lines, ends], 1).flatten()])


def _by_place(
    row_of: Int[Tensor, "images patches"], lengths: Sequence[int], grid: CropGrid, by_patch: bool,
    placeless: int,
) -> Int[Tensor, "n"]:  # fmt: skip
    """The whole picture, then rows with a place in the common grid, then the others."""
    total, patches = sum(lengths), row_of.shape[1]
    places = _places(patches, grid)
    there = row_of >= 0
    holds = torch.bincount(row_of[there], minlength=total)
    first = torch.full((total,), places.numel())
    in_crops = there[1:]
    first.scatter_reduce_(0, row_of[1:][in_crops], places[in_crops], "amin")
    whole = torch.arange(total) < lengths[0]
    last = torch.cat([torch.arange(n) >= n - placeless for n in lengths])
    placed = ~whole & ((holds > 0) if by_patch else (holds == 1) & ~last)
    key = torch.where(placed, first, places.numel() + (holds > 0)).masked_fill(whole, -1)
    return key.argsort(stable=True)
