"""One attention call over a packed batch: each image attends to itself only, nothing is padded.

Images of equal length go together. Where the head-averaged map is wanted, scores are computed for a
few images at a time, so that they stay in the processor's cache instead of filling fresh pages.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from asap.core.packed import PackedTokens, Segment
from asap.engine.backend import Backend
from asap.methods.base import Needs


@dataclass(frozen=True)
class Heads:
    """Queries, keys and values of all tokens of a packed batch."""

    q: Float[Tensor, "total heads d"]
    k: Float[Tensor, "total heads d"]
    v: Float[Tensor, "total heads d"]
    scale: float

    def of(self, segment: Segment) -> tuple[Tensor, Tensor, Tensor]:
        """The segment's queries, keys and values, (images, heads, length, d) each."""
        return (split(self.q, segment), split(self.k, segment), split(self.v, segment))


def split(
    packed: Float[Tensor, "total heads d"], segment: Segment
) -> Float[Tensor, "images heads length d"]:
    """A segment's rows by image and head, without a copy."""
    rows = packed[segment.rows]
    return rows.view(len(segment.images), segment.length, *rows.shape[1:]).transpose(1, 2)


@dataclass(frozen=True)
class Attended:
    """Attention output of all rows, and of active segments the shares that the method reads."""

    rows: Float[Tensor, "total width"]
    shown: dict[Segment, Float[Tensor, "b *rows n"]]


def attend(
    heads: Heads,
    batch: PackedTokens,
    segments: Sequence[Segment],
    needs: Needs,
    proportional: bool,
    eager: bool,
    backend: Backend,
) -> Attended:
    """Attention within every image; for the active segments also the shares that are needed.

    Shares of all queries need an explicit softmax. If the class token's are enough, they are
    computed beside the fused kernel, without an N x N map.
    """
    outputs, shown, wanted = [], {}, needs.attention
    for segment in segments:
        q, k, v = heads.of(segment)
        bias = log_sizes(batch, segment, q.dtype) if proportional and batch.merged else None
        if segment.active and wanted is not None and wanted.rows == "all":
            mean, each = wanted.heads == "mean", wanted.heads == "each"
            found = eager_attention(q, k, v, heads.scale, bias, backend, mean, each)
            out, shown[segment] = found[0], found[1] if mean else found[2]
        elif eager or not backend.fuses(q):
            out = eager_attention(q, k, v, heads.scale, bias, backend)[0]
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=heads.scale)
        if segment.active and wanted is not None and wanted.rows == "class":
            row = class_row(q, k, heads.scale, bias, backend)
            shown[segment] = row.mean(1) if wanted.heads == "mean" else row
        outputs.append(joined(out))
    return Attended(outputs[0] if len(outputs) == 1 else torch.cat(outputs), shown)


def shares(
    q: Float[Tensor, "b h m d"],
    k: Float[Tensor, "b h n d"],
    scale: float,
    bias: Float[Tensor, "b 1 1 n"] | None,
    backend: Backend,
) -> Float[Tensor, "b h m n"]:
    """Softmax attention of some queries, in at least float32."""
    scores = (q * scale) @ backend.own_memory(k).transpose(-2, -1)
    if bias is not None:
        scores += bias
    return scores.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32))


def class_row(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h n d"],
    scale: float,
    bias: Float[Tensor, "b 1 1 n"] | None,
    backend: Backend,
) -> Float[Tensor, "b h n"]:
    """Softmax attention of token 0."""
    return shares(backend.few_queries(q[:, :, :1]), k, scale, bias, backend)[:, :, 0]


def joined(out: Float[Tensor, "b heads n d"]) -> Float[Tensor, "rows width"]:
    """Heads side by side, images one after the other."""
    return out.transpose(1, 2).reshape(-1, out.shape[1] * out.shape[3])


def log_sizes(
    batch: PackedTokens, segment: Segment, dtype: torch.dtype
) -> Float[Tensor, "images 1 1 length"]:
    """log(size) of every key, which proportional attention adds to its scores."""
    sizes = batch.sizes[segment.rows].view(len(segment.images), 1, 1, segment.length)
    return sizes.log().to(dtype)


def eager_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h n d"],
    v: Float[Tensor, "b h n d"],
    scale: float,
    bias: Float[Tensor, "b 1 1 n"] | None,
    backend: Backend,
    with_map: bool = False,
    with_heads: bool = False,
) -> tuple[Float[Tensor, "b h n d"], Float[Tensor, "maps n n"], Float[Tensor, "head_maps h n n"]]:
    """Explicit softmax attention; its mean over heads; its maps (empty if not wanted); by slabs.

    The softmax runs in at least float32 where a map is wanted: decisions are made from it.
    """
    b, h, n, _ = q.shape
    k, v = backend.own_memory(k), backend.own_memory(v)
    out = torch.empty(b, n, h, q.shape[3], dtype=q.dtype, device=q.device).transpose(1, 2)
    kind = torch.promote_types(q.dtype, torch.float32)
    maps = torch.empty(b if with_map else 0, n, n, dtype=kind, device=q.device)
    head_maps = torch.empty(b if with_heads else 0, h, n, n, dtype=kind, device=q.device)
    step = backend.images_at_once(q)
    # one image as (h, n, d): with a dimension of images, products first copy what they take
    alone, product = step == 1, torch.bmm if step == 1 else torch.matmul
    # memory for one slab's scores and shares, which stays in the cache from slab to slab
    room = torch.empty(min(b, step), h, n, n, dtype=q.dtype, device=q.device)
    shared = torch.empty_like(room, dtype=kind if with_map or with_heads else q.dtype)
    room, shared = (room[0], shared[0]) if alone else (room, shared)

    def slabs(x: Tensor | None, wanted: bool = True) -> Iterable[Any]:
        if x is None or not wanted:
            return repeat(None)
        return x.unbind() if alone else x.split(step)

    each = slabs(q), slabs(k.transpose(-2, -1)), slabs(v), slabs(out)
    extra = slabs(bias), slabs(maps, with_map), slabs(head_maps, with_heads)
    for queries, keys, values, to, added, mean, heads in zip(*each, *extra, strict=False):
        count = h if alone else len(queries)  # the last slab may have fewer images
        scores, share = (room, shared) if count == len(room) else (room[:count], shared[:count])
        product(queries * scale, keys, out=scores)
        if added is not None:
            scores += added
        torch.softmax(scores, -1, dtype=share.dtype, out=share)
        if mean is not None:
            torch.mean(share, -3, out=mean)
        if heads is not None:
            heads.copy_(share)
        if alone:
            torch.bmm(share.to(v.dtype), values, out=to)
        else:  # with `out`, one image's bits would not be those of several
            to.copy_(share.to(v.dtype) @ values)
    return out, maps, head_maps
