"""The attention map of each image, averaged over heads, from the log-sum-exp of its attention.

The shares of a head are exp(scores - log-sum-exp), so a tile of the map needs neither a second
softmax nor the maps of single heads in memory: it sums over the heads in registers.
"""

from typing import no_type_check

import torch
from jaxtyping import Bool, Float, Float32, Int32
from torch import Tensor

from asap.engine.kernels.attention import tile_of
from asap.engine.kernels.launch import LOG2_E, jit, next_power_of_2, pitch_of, runs, tl, upcasts


@jit(do_not_specialize=["n"], do_not_specialize_on_alignment=["bias", "watched", "offsets"])
@no_type_check
def _head_mean_map_kernel(
    q,
    k,
    lse,
    bias,
    watched,
    offsets,
    maps,
    q_row,
    q_head,
    k_row,
    k_head,
    lse_image,
    lse_row,
    lse_head,
    n,
    pitch,
    heads,
    log2_scale,
    one_of_heads,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    PACKED_LSE: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_WATCHED: tl.constexpr,
    UPCAST: tl.constexpr,
):
    """A tile of one image's map, and of the zeros around it."""
    image = tl.program_id(1)
    if HAS_WATCHED and tl.load(watched + image) == 0:
        return
    across = tl.cdiv(pitch, COLUMNS)
    rows = tl.program_id(0) // across * ROWS + tl.arange(0, ROWS)
    columns = tl.program_id(0) % across * COLUMNS + tl.arange(0, COLUMNS)
    width = tl.arange(0, WIDTH)
    first = tl.load(offsets + image).to(tl.int64)
    q_tile = q + first * q_row + rows[:, None] * q_row + width[None, :]
    k_tile = k + first * k_row + columns[None, :] * k_row + width[:, None]
    if PACKED_LSE:
        lse_tile = lse + first * lse_row + rows * lse_row
    else:
        lse_tile = lse + image.to(tl.int64) * lse_image + rows * lse_row
    if HAS_BIAS:
        added = tl.load(bias + first + columns, mask=columns < n, other=0.0) * 1.4426950408889634
    shares = tl.zeros((ROWS, COLUMNS), tl.float32)
    for head in range(heads):
        queries = tl.load(
            q_tile + head * q_head,
            mask=(rows < n)[:, None] & (width < D)[None, :],
            other=0.0,
        )
        keys = tl.load(
            k_tile + head * k_head,
            mask=(columns < n)[None, :] & (width < D)[:, None],
            other=0.0,
        )
        if UPCAST:
            queries = queries.to(tl.float32)
            keys = keys.to(tl.float32)
        scores = tl.dot(queries, keys, input_precision="ieee") * log2_scale
        if HAS_BIAS:
            scores += added[None, :]
        # Rows behind the last one: exp(-inf) is 0.
        sums = tl.load(lse_tile + head * lse_head, mask=rows < n, other=float("inf"))
        shares += tl.exp2(scores - (sums * 1.4426950408889634)[:, None])
    mean = tl.where((columns < n)[None, :], shares * one_of_heads, 0.0)
    tl.store(
        maps + image.to(tl.int64) * pitch * pitch + rows[:, None] * pitch + columns[None, :],
        mean.to(maps.dtype.element_ty),
        mask=(rows < pitch)[:, None] & (columns < pitch)[None, :],
    )


def head_mean_map(
    q: Float[Tensor, "rows heads d"],
    k: Float[Tensor, "rows heads d"],
    lse: Float32[Tensor, "rows heads"] | Float32[Tensor, "images n heads"],
    offsets: Int32[Tensor, "images_1"],
    n: int,
    scale: float,
    watched: Bool[Tensor, "images"] | None = None,
    bias: Float32[Tensor, "rows"] | None = None,
    out: Float[Tensor, "images pitch pitch"] | None = None,
    **tile: int,
) -> Float[Tensor, "images n n"]:
    """The mean over heads of softmax(scale q k^T + bias), by image.

    q, k, bias and offsets are those of `ragged_attention`; `lse` is its log-sum-exp, or that of
    another attention by image and token, in any strides. Every watched image has n tokens; the maps
    of the others are left as they are. The maps are the corners of zero-padded square buffers whose
    side is `pitch_of(n)`, for the products that follow; `out` is such buffers. Float16 for models
    in half precision (also bfloat16: of numbers in [0, 1], float16 keeps three bits more), else
    float32, in which the shares are summed. `tile` overrides how the work is cut.
    """
    images, pitch = len(offsets) - 1, pitch_of(n)
    if out is None:
        out = torch.zeros(images, pitch, pitch, dtype=map_dtype(q.dtype), device=q.device)
    if not runs(q):
        _plain(q, k, lse, offsets, n, scale, watched, bias, out)
        return out[:, :n, :n]
    _, heads, d = q.shape
    how = tile_of(q) | {"num_stages": 3} | tile
    tiles = -(-pitch // how["ROWS"]) * -(-pitch // how["COLUMNS"])
    _head_mean_map_kernel[(tiles, images)](
        q,
        k,
        lse,
        lse if bias is None else bias,
        offsets if watched is None else watched,
        offsets,
        out,
        *(stride for x in (q, k) for stride in x.stride()[:2]),
        lse.stride(0) if lse.dim() == 3 else 0,
        *lse.stride()[-2:],
        n,
        pitch,
        heads,
        scale * LOG2_E,
        1 / heads,
        D=d,
        WIDTH=next_power_of_2(d, 16),
        PACKED_LSE=lse.dim() == 2,
        HAS_BIAS=bias is not None,
        HAS_WATCHED=watched is not None,
        UPCAST=upcasts(q),
        **how,
    )
    return out[:, :n, :n]


def map_dtype(model: torch.dtype) -> torch.dtype:
    """In which maps of a model of this dtype are stored."""
    return torch.float16 if model.itemsize == 2 else model


def _plain(
    q: Float[Tensor, "rows heads d"],
    k: Float[Tensor, "rows heads d"],
    lse: Float[Tensor, "rows heads"] | Float[Tensor, "images n heads"],
    offsets: Int32[Tensor, "images_1"],
    n: int,
    scale: float,
    watched: Bool[Tensor, "images"] | None,
    bias: Float[Tensor, "rows"] | None,
    out: Float[Tensor, "images pitch pitch"],
) -> None:
    """The same, image by image, in at least float32."""
    kind = torch.promote_types(q.dtype, torch.float32)
    for image, start in enumerate(offsets[:-1].tolist()):
        if watched is not None and not bool(watched[image]):
            continue
        rows = slice(start, start + n)
        scores = torch.einsum("ihd,jhd->hij", q[rows].to(kind), k[rows].to(kind)) * scale
        if bias is not None:
            scores += bias[rows]
        sums = lse[image] if lse.dim() == 3 else lse[rows]
        out[image] = 0
        out[image, :n, :n] = (scores - sums.T[:, :, None]).exp().mean(0).to(out.dtype)
