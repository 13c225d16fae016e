"""ASAP's reduction around a sink in one launch: one program for each image that stops.

Anchor, distances of P's rows to its row (paper, Eq. 3, 4), clusters by width or rank (Eq. 5), what
is kept, and the weights of the pooled token (Eq. 6), in float32. What comes out is what
`asap.methods.asap` computes for these options, distances to rounding.
"""

from dataclasses import dataclass
from typing import Any, no_type_check

import torch
from jaxtyping import Bool, Float, Float32, Int, Int64
from torch import Tensor

from asap.core.diffusion import distance_to_anchor
from asap.core.order import first_argmax
from asap.core.pooling import transition_weights
from asap.core.radial import normalise, rank_bins, width_bins
from asap.engine.kernels.launch import jit, next_power_of_2, reaches, tl
from asap.engine.kernels.sink_distances import anchor_of, distance_kernel, distances_of
from asap.engine.kernels.split_matrix import SplitMatrix

ANCHORS = ("sink", "mass", "quiet")
ALONE = 512  # tokens up to which one program does an image's distances too


@dataclass(frozen=True)
class SinkRule:
    """The options of `AsapOptions` that are computed here, with their meaning there."""

    anchor: str
    clusters: int
    background: int
    pool: bool
    binning: str
    normalise: str
    weights: str
    distance_columns: str
    temperature: float


@dataclass(frozen=True)
class SinkReduction:
    """What becomes of b images of n tokens; of one that was not chosen, nothing is said.

    target, left, weight: as in a `Decision`, weight None without pooling. anchor: patch index;
    lead: of its score over the next one; margin: from the nearest patch to the background's edge.
    """

    target: Int64[Tensor, "b n"]
    left: Int64[Tensor, "b"]
    weight: Float32[Tensor, "b n"] | None
    anchor: Int64[Tensor, "b"]
    lead: Float32[Tensor, "b"]
    margin: Float32[Tensor, "b"]

    @staticmethod
    def empty(b: int, n: int, pool: bool, device: torch.device) -> "SinkReduction":
        """Room for b images."""

        def room(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        kind = torch.int64
        weight = room(b, n) if pool else None
        counts = room(b, dtype=kind), weight, room(b, dtype=kind)
        return SinkReduction(room(b, n, dtype=kind), *counts, room(b), room(b))


@jit(do_not_specialize=["n", "clusters", "background", "inner"])
@no_type_check
def _sink_kernel(
    vectors,
    high,
    low,
    images,
    chosen,
    distance,
    target,
    weight,
    left,
    anchors,
    leads,
    margins,
    n,
    pitch,
    vector_image,
    vector_row,
    unscale,
    clusters,
    background,
    inner,
    edge,
    temperature,
    PREFIX: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    ANCHOR: tl.constexpr,
    RANK: tl.constexpr,
    MINMAX: tl.constexpr,
    POOL: tl.constexpr,
    NORMALISED: tl.constexpr,
    PATCH_COLUMNS: tl.constexpr,
    SPLIT: tl.constexpr,
    ALONE: tl.constexpr,
    HAS_IMAGES: tl.constexpr,
    HAS_CHOSEN: tl.constexpr,
):
    """The reduction of one image. ALONE: its distances are not there yet."""
    place = tl.program_id(0)
    shown = 1
    if HAS_CHOSEN:
        shown = tl.load(chosen + place).to(tl.int32)
    if shown == 0:
        return
    image = place.to(tl.int64)
    if HAS_IMAGES:
        image = tl.load(images + place).to(tl.int64)
    anchor, lead = anchor_of(vectors + image * vector_image, vector_row, n, PREFIX, WIDTH, ANCHOR)
    tl.store(anchors + place, (anchor - PREFIX).to(tl.int64))
    tl.store(leads + place, lead)
    distance += place.to(tl.int64) * n
    if ALONE:
        high += image * pitch * pitch
        low += image * pitch * pitch
        for start in range(0, n, ROWS):
            distances_of(
                high,
                low,
                distance,
                anchor,
                start + tl.arange(0, ROWS),
                n,
                pitch,
                unscale,
                PREFIX,
                WIDTH,
                PATCH_COLUMNS,
                SPLIT,
            )
        tl.debug_barrier()  # now all of this image's distances are there

    token = tl.arange(0, WIDTH)
    inside = token < n
    patch = inside & (token >= PREFIX)
    far = tl.load(distance + token, mask=patch, other=0.0)
    highest = tl.max(tl.where(patch, far, 0.0), 0)
    lowest = 0.0
    if MINMAX:
        lowest = tl.min(tl.where(patch & (token != anchor), far, float("inf")), 0)
    spread = highest - lowest
    scaled = tl.div_rn(far - lowest, tl.where(spread > 0, spread, 1.0) + tl.zeros_like(far))
    scaled = tl.where(spread > 0, tl.minimum(tl.maximum(scaled, 0.0), 1.0), 0.0)
    if RANK:  # the `inner` patches of the lowest ranks; non-negative floats are ordered as integers
        bits = far.to(tl.int32, bitcast=True).to(tl.int64)
        keys = tl.where(token == anchor, -1, bits) * WIDTH + token
        keys = tl.where(patch, keys, 9223372036854775807)
        last = tl.sum(tl.where(token == inner - 1, tl.sort(keys), 0), 0)
        back = patch & (keys <= last)
        nearest = tl.min(tl.where(patch & (back == 0), far, float("inf")), 0)
        tl.store(margins + place, nearest - tl.max(tl.where(back, far, float("-inf")), 0))
    else:
        index = tl.minimum((scaled * clusters).to(tl.int32), clusters - 1)
        back = patch & (index < background)
        tl.store(margins + place, tl.min(tl.where(patch, tl.abs(scaled - edge), float("inf")), 0))
    if POOL == 0:  # where nothing is foreground, pruning leaves the anchor
        foreground = tl.sum((patch & (back == 0)).to(tl.int32), 0)
        back = (back & (token != anchor)) | ((token == anchor) & (foreground > 0))
    kept = inside & (back == 0)
    count = tl.sum(kept.to(tl.int32), 0)
    to = tl.where(kept, tl.cumsum(kept.to(tl.int32), 0) - 1, -1)
    at = place.to(tl.int64) * n + token
    if POOL:
        to = tl.where(back, count, to)
        count += 1
        raw = far
        if NORMALISED:
            raw = scaled
        raw = tl.div_rn(raw, temperature + tl.zeros_like(raw))
        share = tl.exp(raw - tl.max(tl.where(back, raw, float("-inf")), 0))
        share = tl.where(back, share, 0.0)
        tl.store(weight + at, tl.where(back, share / tl.sum(share, 0), 1.0), mask=inside)
    tl.store(target + at, to.to(tl.int64), mask=inside)
    tl.store(left + place, count.to(tl.int64))


def sink_reduction(
    rule: SinkRule,
    vectors: Float[Tensor, "images 2 n"],
    matrix: SplitMatrix,
    prefix: int,
    images: Int[Tensor, "b"] | None = None,
    chosen: Bool[Tensor, "b"] | None = None,
    out: SinkReduction | None = None,
) -> SinkReduction:
    """The reduction of the `chosen` ones (None: all) of some images (None: all).

    vectors: the walk's column mass and class row; matrix: its P. Ties go to the lowest index.
    """
    n, b = matrix.n, len(vectors) if images is None else len(images)
    out = SinkReduction.empty(b, n, rule.pool, vectors.device) if out is None else out
    if not (reaches(vectors) and vectors.dtype == torch.float32):
        _plain(rule, vectors, matrix, prefix, images, out)
        return out
    width, pitch = next_power_of_2(n, 16), matrix.high.shape[1]
    scratch = torch.empty(b, n, dtype=torch.float32, device=vectors.device)
    low = matrix.high if matrix.low is None else matrix.low
    given = (
        vectors,
        matrix.high,
        low,
        vectors if images is None else images,
        vectors if chosen is None else chosen,
        scratch,
    )
    sizes = (n, pitch, *vectors.stride()[:2], 1 / matrix.scale)
    how: dict[str, Any] = {
        "PREFIX": prefix,
        "WIDTH": width,
        "ROWS": max(1, 8192 // width),
        "ANCHOR": ANCHORS.index(rule.anchor),
        "PATCH_COLUMNS": rule.distance_columns == "patches",
        "SPLIT": matrix.low is not None,
        "HAS_IMAGES": images is not None,
        "HAS_CHOSEN": chosen is not None,
        "num_warps": 8,
    }
    if n > ALONE:
        distance_kernel[(-(-n // how["ROWS"]), b)](*given, *sizes, **how)
    _sink_kernel[(b,)](
        *given,
        out.target,
        out.lead if out.weight is None else out.weight,
        out.left,
        out.anchor,
        out.lead,
        out.margin,
        *sizes,
        rule.clusters,
        rule.background,
        -(-rule.background * (n - prefix) // rule.clusters),
        rule.background / rule.clusters,
        rule.temperature,
        RANK=rule.binning == "rank",
        MINMAX=rule.normalise == "minmax_others",
        POOL=rule.pool,
        NORMALISED=rule.weights == "normalised",
        ALONE=n <= ALONE,
        **how,
    )
    return out


def _plain(
    rule: SinkRule,
    vectors: Float[Tensor, "images 2 n"],
    matrix: SplitMatrix,
    prefix: int,
    images: Int[Tensor, "b"] | None,
    out: SinkReduction,
) -> None:
    """The same for all images, by the functions of the core."""
    shown = vectors if images is None else vectors[images]
    mass, class_row = shown[:, 0, prefix:], shown[:, 1, prefix:]
    scores = {"sink": class_row, "mass": mass, "quiet": -mass}[rule.anchor]
    anchor, best = first_argmax(scores), scores.topk(2, dim=1).values
    walk = matrix.dense(images)
    distance = distance_to_anchor(walk, anchor, prefix, rule.distance_columns)
    scaled = normalise(distance, anchor, rule.normalise)
    if rule.binning == "rank":
        back = rank_bins(distance, anchor, rule.clusters) < rule.background
        nearest = distance.masked_fill(back, float("inf")).amin(1)
        margin = nearest - distance.masked_fill(~back, float("-inf")).amax(1)
    else:
        back = width_bins(scaled, rule.clusters) < rule.background
        edge = torch.tensor(rule.background / rule.clusters, dtype=torch.float64)
        margin = (scaled - edge.to(scaled)).abs().amin(1)
    if not rule.pool:
        back = back.scatter(1, anchor[:, None], ~back.all(1, keepdim=True))
    kept = torch.nn.functional.pad(~back, (prefix, 0), value=True)
    target, left = (kept.long().cumsum(1) - 1).masked_fill(~kept, -1), kept.sum(1)
    if out.weight is not None:
        pooled = torch.nn.functional.pad(back, (prefix, 0))
        target, left = torch.where(pooled, left[:, None], target), left + 1
        raw = scaled if rule.weights == "normalised" else distance
        shares = transition_weights(raw, back, rule.temperature)
        out.weight.copy_(torch.ones_like(out.weight))
        out.weight[:, prefix:] = torch.where(back, shares, 1.0)
    out.target.copy_(target)
    out.left.copy_(left)
    out.anchor.copy_(anchor)
    out.lead.copy_(best[:, 0] - best[:, 1])
    out.margin.copy_(margin)
