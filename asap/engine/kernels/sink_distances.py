"""An image's anchor, and the distances of P's rows to the anchor's row: parts of `sink`.

Largest column mass or class row, and `||P(i, :) - P(s, :)||_2` (paper, Eq. 3, 4), in float32 and in
a fixed order.
"""

from typing import no_type_check

from asap.engine.kernels.launch import jit, tl


@jit
@no_type_check
def anchor_of(vectors, row, n, PREFIX: tl.constexpr, WIDTH: tl.constexpr, ANCHOR: tl.constexpr):
    """The token with the largest score, the first of equal ones, and its lead over the next."""
    token = tl.arange(0, WIDTH)
    patch = (token >= PREFIX) & (token < n)
    if ANCHOR == 0:
        scores = tl.load(vectors + row + token, mask=patch, other=0.0)
    else:
        scores = tl.load(vectors + token, mask=patch, other=0.0)
    if ANCHOR == 2:
        scores = -scores
    scores = tl.where(patch, scores, float("-inf"))
    best = tl.max(scores, 0)
    anchor = tl.min(tl.where(patch & (scores == best), token, WIDTH), 0)
    anchor = tl.where(anchor < n, anchor, PREFIX)  # no number is the largest
    return anchor, best - tl.max(tl.where(token == anchor, float("-inf"), scores), 0)


@jit
@no_type_check
def distances_of(
    high,
    low,
    out,
    anchor,
    rows,
    n,
    pitch,
    unscale,
    PREFIX: tl.constexpr,
    WIDTH: tl.constexpr,
    PATCH_COLUMNS: tl.constexpr,
    SPLIT: tl.constexpr,
):
    """Store the distances of some rows of one image's P to the anchor's row."""
    columns = tl.arange(0, WIDTH)
    known = columns < pitch
    own = tl.load(high + anchor * pitch + columns, mask=known, other=0.0).to(tl.float32)
    if SPLIT:
        own += tl.load(low + anchor * pitch + columns, mask=known, other=0.0).to(tl.float32)
    at = rows[:, None] * pitch + columns[None, :]
    inside = (rows < n)[:, None] & known[None, :]
    values = tl.load(high + at, mask=inside, other=0.0).to(tl.float32)
    if SPLIT:
        values += tl.load(low + at, mask=inside, other=0.0).to(tl.float32)
    apart = tl.where(inside, values - own[None, :], 0.0)
    if PATCH_COLUMNS:
        apart = tl.where((columns >= PREFIX)[None, :], apart, 0.0)
    tl.store(out + rows, tl.sqrt_rn(tl.sum(apart * apart, 1)) * unscale, mask=rows < n)


@jit(do_not_specialize=["n"])
@no_type_check
def distance_kernel(
    vectors,
    high,
    low,
    images,
    chosen,
    distance,
    n,
    pitch,
    vector_image,
    vector_row,
    unscale,
    PREFIX: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    ANCHOR: tl.constexpr,
    PATCH_COLUMNS: tl.constexpr,
    SPLIT: tl.constexpr,
    HAS_IMAGES: tl.constexpr,
    HAS_CHOSEN: tl.constexpr,
):
    """Distances of ROWS tokens of one image, of which there are many."""
    place = tl.program_id(1)
    shown = 1
    if HAS_CHOSEN:
        shown = tl.load(chosen + place).to(tl.int32)
    if shown == 0:
        return
    image = place.to(tl.int64)
    if HAS_IMAGES:
        image = tl.load(images + place).to(tl.int64)
    anchor, _ = anchor_of(vectors + image * vector_image, vector_row, n, PREFIX, WIDTH, ANCHOR)
    high += image * pitch * pitch
    low += image * pitch * pitch
    out = distance + place.to(tl.int64) * n
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    distances_of(
        high, low, out, anchor, rows, n, pitch, unscale, PREFIX, WIDTH, PATCH_COLUMNS, SPLIT
    )
