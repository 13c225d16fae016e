"""The cumulative transition matrix P of many images, kept up to date block by block.

`P <- (1 - alpha) P + alpha P A` (paper, Eq. 2). Beside float16 maps P is the sum of two float16
matrices, `2^14 P = high + low`: 22 bits, and every step is two products of half precision summed in
float32. Distances between its rows are within 4e-7 of those in float64 for the same maps. Beside
other maps P is one matrix in their precision.
"""

from dataclasses import dataclass
from typing import no_type_check

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.core.transition import first_walk, walk_on
from asap.engine.kernels.launch import jit, pitch_of, runs, tl, upcasts
from asap.engine.kernels.walk import keep, width_of

SCALE = 16384.0  # the largest entry, 1, becomes 2^14, far from both ends of float16
WHOLE = 256  # columns that one program can own, and so write over the old ones


@dataclass(frozen=True)
class SplitMatrix:
    """P of some images, (images, pitch, pitch), 0 from row and column n on.

    high, low: float16 parts of `scale` times P; or P itself in another precision, low None and
    scale 1.
    """

    high: Float[Tensor, "images pitch pitch"]
    low: Float[Tensor, "images pitch pitch"] | None
    n: int
    scale: float

    @staticmethod
    def empty(images: int, n: int, like: Tensor) -> "SplitMatrix":
        """Room for P beside maps `like` these (dtype and device)."""
        pitch, half = pitch_of(n), like.dtype in (torch.float16, torch.bfloat16)
        kind = torch.float16 if half else like.dtype
        size = 2 if half else 1, images, pitch, pitch
        parts = torch.zeros(size, dtype=kind, device=like.device)
        low = parts[1] if len(parts) == 2 else None
        return SplitMatrix(parts[0], low, n, SCALE if half else 1.0)

    def dense(self, images: Int[Tensor, "k"] | None = None) -> Float[Tensor, "k n n"]:
        """P in at least float32, of all images or some of them."""
        kind = torch.promote_types(self.high.dtype, torch.float32)
        parts = (self.high,) if self.low is None else (self.high, self.low)
        taken = (part if images is None else part[images] for part in parts)
        whole = sum(part[:, : self.n, : self.n].to(kind) for part in taken)
        assert isinstance(whole, Tensor)
        return whole if self.scale == 1 else whole / self.scale

    def write(
        self,
        values: Float[Tensor, "k n n"],
        images: Int[Tensor, "k"] | None = None,
        watched: Bool[Tensor, "k"] | None = None,
    ) -> None:
        """Put P of the watched ones of some images in the place of the old one."""
        scaled = values if self.scale == 1 else values * self.scale
        high = scaled.to(self.high.dtype)
        keep(self.high[:, : self.n, : self.n], high, images, watched)
        if self.low is not None:
            low = (scaled - high.to(scaled.dtype)).to(self.low.dtype)
            keep(self.low[:, : self.n, : self.n], low, images, watched)


@jit(do_not_specialize=["n"])
@no_type_check
def _matrix_kernel(
    high,
    low,
    new_high,
    new_low,
    maps,
    images,
    watched,
    alpha,
    n,
    pitch,
    width,
    map_image,
    map_row,
    new_image,
    SCALE: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    FIRST: tl.constexpr,
    HAS_IMAGES: tl.constexpr,
    HAS_WATCHED: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """A tile of one image's next P. FIRST: the old one is I."""
    place = tl.program_id(1)
    image = place.to(tl.int64)
    if HAS_IMAGES:
        image = tl.load(images + place).to(tl.int64)
    shown = 1
    if HAS_WATCHED:
        shown = tl.load(watched + place).to(tl.int32)
    if shown == 0:
        return
    tiles = tl.cdiv(pitch, COLUMNS)
    rows = (tl.program_id(0) // tiles) * ROWS + tl.arange(0, ROWS)
    columns = (tl.program_id(0) % tiles) * COLUMNS + tl.arange(0, COLUMNS)
    maps += place.to(tl.int64) * map_image
    high += image * pitch * pitch
    low += image * pitch * pitch
    at = rows[:, None] * pitch + columns[None, :]
    inside = (rows < pitch)[:, None] & (columns < pitch)[None, :]
    if FIRST:
        shares = tl.load(
            maps + rows[:, None] * map_row + columns[None, :],
            mask=(rows < n)[:, None] & (columns < width)[None, :],
            other=0.0,
        ).to(tl.float32)
        stay = (rows[:, None] == columns[None, :]) & (rows < n)[:, None]
        new = shares * (alpha * SCALE) + tl.where(stay, (1 - alpha) * SCALE, 0.0)
    else:
        old = tl.load(high + at, mask=inside, other=0.0).to(tl.float32)
        old += tl.load(low + at, mask=inside, other=0.0).to(tl.float32)
        moved = old * ((1 - alpha) / alpha)
        for start in range(0, n, DEPTH):
            steps = start + tl.arange(0, DEPTH)
            shares = tl.load(
                maps + steps[:, None] * map_row + columns[None, :],
                mask=(steps < n)[:, None] & (columns < width)[None, :],
                other=0.0,
            )
            if UPCAST:
                shares = shares.to(tl.float32)
            left = rows[:, None] * pitch + steps[None, :]
            known = (rows < pitch)[:, None] & (steps < pitch)[None, :]
            part = tl.load(high + left, mask=known, other=0.0)
            moved = tl.dot(part.to(shares.dtype), shares, moved)
            part = tl.load(low + left, mask=known, other=0.0)
            moved = tl.dot(part.to(shares.dtype), shares, moved)
        new = alpha * moved
    tl.debug_barrier()  # the new P may be in the place of the old one: all have read it by now
    first = new.to(tl.float16)
    tl.store(new_high + image * new_image + at, first, mask=inside)
    rest = (new - first.to(tl.float32)).to(tl.float16)
    tl.store(new_low + image * new_image + at, rest, mask=inside)


def step_matrix(
    matrix: SplitMatrix,
    maps: Float[Tensor, "b n n"],
    alpha: float,
    images: Int[Tensor, "b"] | None = None,
    watched: Bool[Tensor, "b"] | None = None,
    first: bool = False,
) -> None:
    """Take P one block further, in place; the arguments are those of `step_vectors`."""
    if not (runs(maps) and matrix.low is not None and maps.dtype == torch.float16):
        return _plain(matrix, maps, alpha, images, watched, first)
    pitch, n = matrix.high.shape[1], matrix.n
    whole = pitch <= WHOLE
    parts = matrix if whole or first else SplitMatrix.empty(len(matrix.high), n, maps)
    how = {"ROWS": 64, "COLUMNS": 256 if whole else 128, "DEPTH": 32}
    tiles = -(-pitch // how["ROWS"]) * -(-pitch // how["COLUMNS"])
    _matrix_kernel[(tiles, len(maps))](
        matrix.high,
        matrix.low,
        parts.high,
        parts.low,
        maps,
        maps if images is None else images,
        maps if watched is None else watched,
        alpha,
        n,
        pitch,
        width_of(maps),
        *maps.stride()[:2],
        parts.high.stride(0),
        SCALE=SCALE,
        **how,
        FIRST=first,
        HAS_IMAGES=images is not None,
        HAS_WATCHED=watched is not None,
        UPCAST=upcasts(maps),
        num_warps=8 if whole else 4,
        num_stages=3,
    )
    if parts is matrix:
        return None
    for held, new in ((matrix.high, parts.high), (matrix.low, parts.low)):
        if held is not None and new is not None:
            keep(held, new if images is None else new[images], images, watched)
    return None


def _plain(
    matrix: SplitMatrix,
    maps: Float[Tensor, "b n n"],
    alpha: float,
    images: Int[Tensor, "b"] | None,
    watched: Bool[Tensor, "b"] | None,
    first: bool,
) -> None:
    """The same by one batched product in at least float32."""
    shares = maps.to(torch.promote_types(matrix.high.dtype, torch.float32))
    new = first_walk(shares, alpha) if first else walk_on(matrix.dense(images), shares, alpha)
    matrix.write(new, images, watched)
