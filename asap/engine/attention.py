"""One attention call over a ragged batch: each image attends to itself only, nothing is padded.

Images of equal length go together. Where the head-averaged map is wanted, scores are computed for a
few images at a time, so that they stay in the processor's cache instead of filling fresh pages.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from asap.core.packed import SHORT, Ragged, Run
from asap.core.rows import MIN_ROWS
from asap.methods.base import Needs

SLAB_BYTES = {"cpu": 2 << 20, "cuda": 256 << 20}  # attention scores held at once
FUSED_FROM = 32  # tokens: below, the fused CPU kernel's bits depend on the thread it runs on


@dataclass(frozen=True)
class Heads:
    """Queries, keys and values of all tokens of a ragged batch."""

    q: Float[Tensor, "total heads d"]
    k: Float[Tensor, "total heads d"]
    v: Float[Tensor, "total heads d"]
    scale: float

    def of(self, run: Run) -> tuple[Tensor, Tensor, Tensor]:
        """The run's queries, keys and values, (images, heads, length, d) each."""
        return (split(self.q, run), split(self.k, run), split(self.v, run))


def split(
    packed: Float[Tensor, "total heads d"], run: Run
) -> Float[Tensor, "images heads length d"]:
    """A run's rows by image and head, without a copy."""
    rows = packed[run.rows]
    return rows.view(len(run.images), run.length, *rows.shape[1:]).transpose(1, 2)


@dataclass(frozen=True)
class Attended:
    """Attention output of all rows, and of the watched runs what the method wants to see of it."""

    rows: Float[Tensor, "total width"]
    shown: dict[Run, Float[Tensor, "b *rows n"]]


def attend(
    heads: Heads, batch: Ragged, runs: list[Run], needs: Needs, proportional: bool, eager: bool
) -> Attended:
    """Attention within every image; for the watched runs the shares that are needed.

    Shares of all queries come with an explicit softmax. The class token's alone are computed beside
    the fused kernel.
    """
    outputs, shown, wanted = [], {}, needs.attention
    for run in runs:
        q, k, v = heads.of(run)
        bias = log_sizes(batch, run, q.dtype) if proportional and batch.merged else None
        if run.watched and wanted is not None and wanted.rows == "all":
            mean, each = wanted.heads == "mean", wanted.heads == "each"
            out, means, maps = eager_attention(q, k, v, heads.scale, bias, mean, each)
            shown[run] = means if mean else maps
        elif eager or _unsafe_fused(q):
            out = eager_attention(q, k, v, heads.scale, bias)[0]
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=heads.scale)
        if run.watched and wanted is not None and wanted.rows == "class":
            row = class_row(q, k, heads.scale, bias)
            shown[run] = row.mean(1) if wanted.heads == "mean" else row
        outputs.append(joined(out))
    return Attended(outputs[0] if len(outputs) == 1 else torch.cat(outputs), shown)


def shares(
    q: Float[Tensor, "b h m d"],
    k: Float[Tensor, "b h n d"],
    scale: float,
    bias: Float[Tensor, "b 1 1 n"] | None,
) -> Float[Tensor, "b h m n"]:
    """Softmax attention of some queries, in at least float32."""
    scores = (q * scale) @ fresh(k).transpose(-2, -1)
    if bias is not None:
        scores += bias
    return scores.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32))


def class_row(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h n d"],
    scale: float,
    bias: Float[Tensor, "b 1 1 n"] | None,
) -> Float[Tensor, "b h n"]:
    """Softmax attention of token 0."""
    first = q[:, :, :1]
    if q.device.type == "cpu":
        first = F.pad(first, (0, 0, 0, MIN_ROWS - 1))
    return shares(first, k, scale, bias)[:, :, 0]


def joined(out: Float[Tensor, "b heads n d"]) -> Float[Tensor, "rows width"]:
    """Heads side by side, images one after the other."""
    return out.transpose(1, 2).reshape(-1, out.shape[1] * out.shape[3])


def _unsafe_fused(q: Tensor) -> bool:
    return q.device.type == "cpu" and q.shape[2] < FUSED_FROM


def log_sizes(batch: Ragged, run: Run, dtype: torch.dtype) -> Float[Tensor, "images 1 1 length"]:
    """What proportional attention adds to the scores of every key."""
    sizes = batch.sizes[run.rows].view(len(run.images), 1, 1, run.length)
    return sizes.log().to(dtype)


def eager_attention(
    q: Float[Tensor, "b h n d"],
    k: Float[Tensor, "b h n d"],
    v: Float[Tensor, "b h n d"],
    scale: float,
    bias: Float[Tensor, "b 1 1 n"] | None,
    with_map: bool = False,
    with_heads: bool = False,
) -> tuple[Float[Tensor, "b h n d"], Float[Tensor, "maps n n"], Float[Tensor, "head_maps h n n"]]:
    """Explicit softmax attention; its mean over heads; its maps (empty if not wanted); by slabs.

    The softmax runs in at least float32 where a map is wanted: decisions are made from it.
    """
    b, h, n, _ = q.shape
    k, v = fresh(k), fresh(v)
    out = torch.empty(b, n, h, q.shape[3], dtype=q.dtype, device=q.device).transpose(1, 2)
    kind = torch.promote_types(q.dtype, torch.float32)
    maps = torch.empty(b if with_map else 0, n, n, dtype=kind, device=q.device)
    head_maps = torch.empty(b if with_heads else 0, h, n, n, dtype=kind, device=q.device)
    step = images_per_slab(q)
    for start in range(0, b, step):
        part = slice(start, start + step)
        scores = (q[part] * scale) @ k[part].transpose(-2, -1)
        if bias is not None:
            scores += bias[part]
        share = scores.softmax(-1, dtype=kind if with_map or with_heads else None)
        if with_map:
            torch.mean(share, 1, out=maps[part])
        if with_heads:
            head_maps[part] = share
        out[part] = share.to(v.dtype) @ v[part]
    return out, maps, head_maps


def fresh(x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
    """Below `SHORT` tokens on CPU (one image) in its own memory, aligned alike for all images."""
    return x.contiguous() if x.device.type == "cpu" and x.shape[2] < SHORT else x


def images_per_slab(q: Float[Tensor, "b h n d"]) -> int:
    """How many images' scores are held at once."""
    _, h, n, _ = q.shape
    limit = SLAB_BYTES.get(q.device.type, SLAB_BYTES["cuda"])
    return max(1, limit // (h * n * n * q.element_size()))
