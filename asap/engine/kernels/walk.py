"""One step of the lazy walk's two vectors, the column mass and the class row, for every image.

`v <- (1 - alpha) v + alpha v A` (paper, Appendix B, Eq. 9), in float32. One program goes over the
rows of one image's map, so the sums have a fixed order.
"""

from typing import no_type_check

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.core.transition import start_vectors
from asap.engine.kernels.launch import jit, next_power_of_2, runs, tl

WHOLE = 1024  # columns that one program can own; more are split, and written beside the old ones
COLUMNS = 256  # of a program where they are split


@jit(do_not_specialize=["n"])
@no_type_check
def _vectors_kernel(
    old,
    new,
    maps,
    images,
    watched,
    alpha,
    n,
    width,
    old_image,
    old_row,
    new_image,
    new_row,
    map_image,
    map_row,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    FIRST: tl.constexpr,
    HAS_IMAGES: tl.constexpr,
    HAS_WATCHED: tl.constexpr,
):
    """Some columns of one image's two vectors. FIRST: the old ones are those of P = I."""
    place = tl.program_id(1)
    image = place.to(tl.int64)
    if HAS_IMAGES:
        image = tl.load(images + place).to(tl.int64)
    shown = 1
    if HAS_WATCHED:
        shown = tl.load(watched + place).to(tl.int32)
    if shown == 0:
        return
    old += image * old_image
    new += image * new_image
    maps += place.to(tl.int64) * map_image
    columns = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    mass = tl.zeros((COLUMNS,), tl.float32)
    row = tl.zeros((COLUMNS,), tl.float32)
    for start in range(0, n, ROWS):
        rows = start + tl.arange(0, ROWS)
        shares = tl.load(
            maps + rows[:, None] * map_row + columns[None, :],
            mask=(rows < n)[:, None] & (columns < width)[None, :],
            other=0.0,
        ).to(tl.float32)
        if FIRST:
            mass += tl.sum(shares, 0)
            row += tl.sum(tl.where((rows == 0)[:, None], shares, 0.0), 0)
        else:
            mass += tl.sum(tl.load(old + rows, mask=rows < n, other=0.0)[:, None] * shares, 0)
            weight = tl.load(old + old_row + rows, mask=rows < n, other=0.0)
            row += tl.sum(weight[:, None] * shares, 0)
    inside = columns < n
    if FIRST:
        old_mass = tl.full((COLUMNS,), 1.0, tl.float32)
        old_class = tl.where(columns == 0, 1.0, 0.0)
    else:
        old_mass = tl.load(old + columns, mask=inside, other=0.0)
        old_class = tl.load(old + old_row + columns, mask=inside, other=0.0)
    tl.debug_barrier()  # `new` may be `old`: nobody writes before all have read
    tl.store(new + columns, (1 - alpha) * old_mass + alpha * mass, mask=inside)
    tl.store(new + new_row + columns, (1 - alpha) * old_class + alpha * row, mask=inside)


def step_vectors(
    vectors: Float[Tensor, "images 2 n"],
    maps: Float[Tensor, "b n n"],
    alpha: float,
    images: Int[Tensor, "b"] | None = None,
    watched: Bool[Tensor, "b"] | None = None,
    first: bool = False,
) -> None:
    """Take `vectors` (mass, class row) one block further, in place.

    Map i belongs to image `images[i]` (None: to image i). Where `watched` is False nothing is done.
    `first`: the step starts at P = I, and what `vectors` held does not matter. The maps may be a
    view of a wider buffer whose columns from n up to the next multiple of 16 are 0.
    """
    if not (runs(vectors) and vectors.dtype == torch.float32):
        return _plain(vectors, maps, alpha, images, watched, first)
    b, n, _ = maps.shape
    whole = n <= WHOLE
    columns = next_power_of_2(n, 16) if whole else COLUMNS
    new = vectors if whole else torch.empty_like(vectors)
    _vectors_kernel[(1 if whole else -(-n // columns), b)](
        vectors,
        new,
        maps,
        maps if images is None else images,
        maps if watched is None else watched,
        alpha,
        n,
        width_of(maps),
        *vectors.stride()[:2],
        *new.stride()[:2],
        *maps.stride()[:2],
        ROWS=max(1, 8192 // columns),
        COLUMNS=columns,
        FIRST=first,
        HAS_IMAGES=images is not None,
        HAS_WATCHED=watched is not None,
        num_warps=8,
    )
    if not whole:
        keep(vectors, new if images is None else new[images], images, watched)
    return None


def width_of(maps: Float[Tensor, "b n n"]) -> int:
    """Columns that a kernel reads of a map: up to its padding, if it has the usual one.

    A number of columns that is a multiple of 16 lets a kernel load 16 bytes at once.
    """
    n, pitch = maps.shape[2], -(-maps.shape[2] // 16) * 16
    return pitch if maps.stride(1) == pitch and maps.stride(2) == 1 else n


def keep(
    held: Tensor, new: Tensor, images: Int[Tensor, "b"] | None, watched: Bool[Tensor, "b"] | None
) -> None:
    """Put the `new` values (b, ...) of the watched images where the old ones were."""
    if watched is not None:
        old = held if images is None else held[images]
        new = torch.where(watched.view(-1, *[1] * (new.dim() - 1)), new, old)
    if images is None:
        held.copy_(new)
    else:
        held[images] = new


def _plain(
    vectors: Float[Tensor, "images 2 n"],
    maps: Float[Tensor, "b n n"],
    alpha: float,
    images: Int[Tensor, "b"] | None,
    watched: Bool[Tensor, "b"] | None,
    first: bool,
) -> None:
    """The same in at least float32."""
    if first:
        old = start_vectors(len(maps), maps.shape[1], vectors)
    else:
        old = vectors if images is None else vectors[images]
    new = alpha * (old @ maps.to(vectors.dtype)) + (1 - alpha) * old
    keep(vectors, new, images, watched)
