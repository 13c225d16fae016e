"""Softmax attention within each image of a packed batch, whatever the images' lengths.

One program computes a tile of queries of one head of one image, and goes over the keys with a
running maximum and sum (Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135).
"""

from itertools import pairwise
from typing import Any, no_type_check

import torch
from jaxtyping import Bool, Float, Float32, Int32
from torch import Tensor

from asap.engine.kernels.launch import LOG2_E, jit, next_power_of_2, runs, tl, upcasts
from asap.engine.kernels.regroup_plan import RegroupPlan


@jit(do_not_specialize_on_alignment=["bias", "skip", "offsets", "kept_offsets", "members", "begin"])
@no_type_check
def _attention_kernel(
    q,
    k,
    v,
    out,
    lse,
    bias,
    skip,
    offsets,
    kept_offsets,
    members,
    begin,
    q_row,
    q_head,
    k_row,
    k_head,
    v_row,
    v_head,
    heads,
    log2_scale,
    epsilon,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_SKIP: tl.constexpr,
    HAS_LSE: tl.constexpr,
    HAS_PLAN: tl.constexpr,
    HAS_EPSILON: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """ROWS queries of one head of one image. Scores in base 2; WIDTH is D padded."""
    head = tl.program_id(1)
    image = tl.program_id(2)
    first = tl.load(offsets + image).to(tl.int64)
    n = (tl.load(offsets + image + 1) - first).to(tl.int32)
    if HAS_SKIP:
        n = tl.where(tl.load(skip + image) != 0, 0, n)
    out_first = first
    queried = n
    if HAS_PLAN:
        out_first = tl.load(kept_offsets + image).to(tl.int64)
        queried = (tl.load(kept_offsets + image + 1) - out_first).to(tl.int32)
    start = tl.program_id(0) * ROWS
    if start >= queried:
        return
    rows = start + tl.arange(0, ROWS)
    inside = rows < queried
    width = tl.arange(0, WIDTH)
    held = first + rows
    if HAS_PLAN:
        opens = tl.load(begin + out_first + rows, mask=inside, other=0)
        held = tl.load(members + opens, mask=inside, other=0).to(tl.int64)
    queries = tl.load(
        q + head * q_head + held[:, None] * q_row + width[None, :],
        mask=inside[:, None] & (width < D)[None, :],
        other=0.0,
    )
    if UPCAST:
        queries = queries.to(tl.float32)
    k_image = k + first * k_row + head * k_head
    v_image = v + first * v_row + head * v_head
    highest = tl.full((ROWS,), float("-inf"), tl.float32)
    total = tl.zeros((ROWS,), tl.float32)
    mixed = tl.zeros((ROWS, WIDTH), tl.float32)
    every = tl.zeros((WIDTH,), tl.float32)
    for at in range(0, n, COLUMNS):
        columns = at + tl.arange(0, COLUMNS)
        known = columns < n
        keys = tl.load(
            k_image + columns[None, :] * k_row + width[:, None],
            mask=known[None, :] & (width < D)[:, None],
            other=0.0,
        )
        values = tl.load(
            v_image + columns[:, None] * v_row + width[None, :],
            mask=known[:, None] & (width < D)[None, :],
            other=0.0,
        )
        if UPCAST:
            keys = keys.to(tl.float32)
            values = values.to(tl.float32)
        scores = tl.dot(queries, keys, input_precision="ieee") * log2_scale
        if HAS_BIAS:
            added = tl.load(bias + first + columns, mask=known, other=0.0)
            scores += (added * 1.4426950408889634)[None, :]
        scores = tl.where(known[None, :], scores, float("-inf"))
        new = tl.maximum(highest, tl.max(scores, 1))
        shares = tl.exp2(scores - new[:, None])
        shrink = tl.exp2(highest - new)
        total = total * shrink + tl.sum(shares, 1)
        mixed = mixed * shrink[:, None]
        mixed = tl.dot(shares.to(values.dtype), values, mixed, input_precision="ieee")
        highest = new
        if HAS_EPSILON:
            every += tl.sum(values.to(tl.float32), 0)
    if HAS_EPSILON:
        mixed += (every * (epsilon / n))[None, :]
        total += epsilon
    out_image = out + out_first * heads * D + head * D
    tl.store(
        out_image + rows[:, None] * (heads * D) + width[None, :],
        (mixed / total[:, None]).to(out.dtype.element_ty),
        mask=inside[:, None] & (width < D)[None, :],
    )
    if HAS_LSE:
        natural = (highest + tl.log2(total)) * 0.6931471805599453
        tl.store(lse + out_first * heads + head + rows * heads, natural, mask=inside)


def ragged_attention(
    q: Float[Tensor, "rows heads d"],
    k: Float[Tensor, "rows heads d"],
    v: Float[Tensor, "rows heads d"],
    offsets: Int32[Tensor, "images_1"],
    longest: int,
    scale: float,
    bias: Float32[Tensor, "rows"] | None = None,
    skip: Bool[Tensor, "images"] | None = None,
    out: Float[Tensor, "rows heads d"] | None = None,
    lse: bool = False,
    plan: RegroupPlan | None = None,
    epsilon: float = 0.0,
    **tile: int,
) -> tuple[Float[Tensor, "rows heads d"], Float32[Tensor, "rows heads"] | None]:
    """softmax(scale q k^T + bias) v of every image, and if wanted the log of the softmax's sum.

    q, k, v may be strided views of one buffer (d contiguous). Image i has the rows from
    `offsets[i]` to `offsets[i + 1]`; no image has more than `longest`. `bias` is added to all
    scores of a key (log sizes: proportional attention). The rows of the images in `skip` are
    neither computed nor written, and nor are rows behind the last image. `out` is contiguous.
    plan: only the queries of the tokens that it keeps attend, to all keys, and outputs lie where it
    puts the tokens; every output has one member. epsilon: the softmax of n scores l is
    (e + epsilon / n) / (sum e + epsilon), with e = exp(l - max l). Neither goes with `skip` or
    `lse`. `tile` overrides how the work is cut (ROWS, COLUMNS, num_warps, num_stages). Scores, sums
    and the natural log-sum-exp are float32; in half precision the shares are rounded before they
    meet the values.
    """
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device) if out is None else out
    sums = torch.empty(q.shape[:2], dtype=torch.float32, device=q.device) if lse else None
    if not runs(q):
        _plain(q, k, v, offsets, scale, bias, skip, out, sums, plan, epsilon)
        return out, sums
    _, heads, d = q.shape
    how = tile_of(q) | tile
    _attention_kernel[(-(-longest // how["ROWS"]), heads, len(offsets) - 1)](
        q,
        k,
        v,
        out,
        out if sums is None else sums,
        out if bias is None else bias,
        offsets if skip is None else skip,
        offsets,
        *([offsets] * 3 if plan is None else [plan.offsets, plan.members, plan.begin]),
        *(stride for x in (q, k, v) for stride in x.stride()[:2]),
        heads,
        scale * LOG2_E,
        epsilon,
        D=d,
        WIDTH=next_power_of_2(d, 16),
        HAS_BIAS=bias is not None,
        HAS_SKIP=skip is not None,
        HAS_LSE=lse,
        HAS_PLAN=plan is not None,
        HAS_EPSILON=epsilon > 0,
        UPCAST=upcasts(q),
        **how,
    )
    return out, sums


def tile_of(q: Float[Tensor, "rows heads d"]) -> dict[str, Any]:
    """Queries and keys of a tile: the same for any number of tokens, so that an image's bits do not
    depend on the longest one beside it, and fewer forms of the kernel are compiled.

    Products of float32 are no matrix instructions: their operands stay in registers, so tiles are
    smaller and, for wide heads, shared by more threads.
    """
    float32 = q.dtype == torch.float32
    side = 32 if float32 else 64
    warps = 8 if float32 and q.shape[2] > 64 else 4
    return {"ROWS": side, "COLUMNS": side, "num_warps": warps, "num_stages": 2}


def _plain(
    q: Float[Tensor, "rows heads d"],
    k: Float[Tensor, "rows heads d"],
    v: Float[Tensor, "rows heads d"],
    offsets: Int32[Tensor, "images_1"],
    scale: float,
    bias: Float[Tensor, "rows"] | None,
    skip: Bool[Tensor, "images"] | None,
    out: Float[Tensor, "rows heads d"],
    lse: Float[Tensor, "rows heads"] | None,
    plan: RegroupPlan | None,
    epsilon: float,
) -> None:
    """The same, image by image, in at least float32."""
    kind = torch.promote_types(q.dtype, torch.float32)
    kept = (offsets if plan is None else plan.offsets).tolist()
    for image, (start, end) in enumerate(pairwise(offsets.tolist())):
        if start == end or (skip is not None and bool(skip[image])):
            continue
        queries, to = slice(start, end), slice(kept[image], kept[image + 1])
        if plan is not None:
            queries = plan.members[plan.begin[to].long()].long()
        image_q, image_k, image_v = (
            x[rows].to(kind).transpose(0, 1)
            for x, rows in ((q, queries), (k, slice(start, end)), (v, slice(start, end)))
        )
        scores = image_q @ image_k.transpose(1, 2) * scale
        if bias is not None:
            scores += bias[start:end]
        shares = scores.softmax(-1)
        if epsilon:
            unit = epsilon * shares.amax(-1, keepdim=True)
            shares = (shares + unit / (end - start)) / (1 + unit)
        out[to] = (shares @ image_v).transpose(0, 1).to(out.dtype)
        if lse is not None:
            lse[start:end] = scores.logsumexp(-1).T
