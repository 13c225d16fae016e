"""Attention in which a method decides, between softmax and values, whose queries remain.

The method gets the attention that it needs, for the class row or all rows; then only the queries
that it keeps are multiplied with keys and values. Dropped tokens still serve as keys and values.
Rows keep their old places until the whole batch is regrouped.
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from asap.core.constants import on_device
from asap.core.packed import PackedTokens, Segment
from asap.engine import attention
from asap.engine.attention import Heads, joined, log_sizes, shares
from asap.engine.backend import Backend
from asap.engine.regroup import Answer, Outcome
from asap.methods.base import Decision, Method, Needs


def shown_shares(
    heads: Heads, batch: PackedTokens, segment: Segment, method: Method, backend: Backend
) -> Float[Tensor, "b *rows n"] | None:
    """The part of a segment's softmax attention that the method needs, in at least float32.

    Maps of all queries are computed by slabs, so that with heads="mean" those of all heads are held
    for a few images only.
    """
    wanted = method.needs.attention
    if wanted is None:
        return None
    q, k, _ = heads.of(segment)
    bias = _bias(batch, segment, method, q)
    mean, epsilon = wanted.heads == "mean", method.softmax_epsilon
    if wanted.rows == "class":
        row = smoothed(attention.class_row(q, k, heads.scale, bias, backend), epsilon)
        return row.mean(1) if mean else row
    b, h, n, _ = q.shape
    kind = torch.promote_types(q.dtype, torch.float32)
    found = torch.empty((b, n, n) if mean else (b, h, n, n), dtype=kind, device=q.device)
    step = backend.images_at_once(q)
    for start in range(0, b, step):
        part = slice(start, start + step)
        near = None if bias is None else bias[part]
        share = smoothed(shares(q[part], k[part], heads.scale, near, backend), epsilon)
        found[part] = share.mean(1) if mean else share
    return found


def smoothed(
    share: Float[Tensor, "*b n"], epsilon: float, length: int | Int[Tensor, "*one"] | None = None
) -> Float[Tensor, "*b n"]:
    """`(e_j + eps / n) / (sum e + eps)` from `e_j / sum e`, the largest e being 1.

    The largest share is then `1 / sum e`, so that nothing but the softmax is needed. length: n,
    where there are zeros behind the shares.
    """
    if not epsilon:
        return share
    unit = epsilon * share.amax(-1, keepdim=True)
    return (share + unit / (share.shape[-1] if length is None else length)) / (1 + unit)


def attended_rows(
    heads: Heads,
    batch: PackedTokens,
    answers: Mapping[Segment, Answer],
    outcome: Outcome,
    method: Method,
    eager: bool,
    backend: Backend,
) -> Float[Tensor, "rows width"]:
    """Attention of the whole batch: of active segments, that of the queries which remain."""
    outputs = []
    for segment in batch.segments:
        if segment.active:
            decision = answers[segment].decision if segment in answers else None
            left = outcome.left[segment.places].tolist()
            out = kept_products(heads, batch, segment, method, decision, left, backend)
        else:
            alone = batch, [segment], Needs(), method.proportional_attention, eager, backend
            out = attention.attend(heads, *alone).rows
        outputs.append(out)
    return torch.cat(outputs)


def kept_products(
    heads: Heads,
    batch: PackedTokens,
    segment: Segment,
    method: Method,
    decision: Decision | None,
    left: Sequence[int],
    backend: Backend,
) -> Float[Tensor, "rows width"]:
    """Attention of the queries that remain, in the segment's old places; elsewhere zeros.

    `left`: tokens left of every image. Images with equally many go together, unless they are so
    short that the backend wants each alone.
    """
    q, k, v = heads.of(segment)
    bias = _bias(batch, segment, method, q)
    kept = _kept(segment, decision, q.device)
    out = torch.zeros_like(v)
    for group in _groups(left, q, backend):
        images = on_device(tuple(group), q.device)
        rows = kept[images, : left[group[0]]]
        queries = q[images[:, None], :, rows].transpose(1, 2)
        near = None if bias is None else bias[images]
        share = shares(queries, k[images], heads.scale, near, backend)
        share = smoothed(share, method.softmax_epsilon).to(v.dtype)
        out[images[:, None], :, rows] = (share @ v[images]).transpose(1, 2)
    return joined(out)


def _bias(batch: PackedTokens, segment: Segment, method: Method, q: Tensor) -> Tensor | None:
    weighted = method.proportional_attention and batch.merged
    return log_sizes(batch, segment, q.dtype) if weighted else None


def _kept(
    segment: Segment, decision: Decision | None, device: torch.device
) -> Int[Tensor, "images n"]:
    """Per image the tokens that remain, in their new order, then the others."""
    if decision is None:
        return torch.arange(segment.length, device=device).expand(len(segment.images), -1)
    if decision.weight is not None:
        raise ValueError("a method cannot average tokens at position 'in_attention'")
    target = decision.target
    return torch.where(target < 0, segment.length, target).argsort(dim=1, stable=True)


def _groups(
    left: Sequence[int], q: Float[Tensor, "b h n d"], backend: Backend
) -> Iterator[list[int]]:
    """Groups of images that are multiplied together.

    They have equally many tokens left, and their scores fit into one slab.
    """
    groups: dict[tuple[int, int], list[int]] = {}
    for image, length in enumerate(left):
        alone = min(length, q.shape[2]) < backend.alone_below
        groups.setdefault((length, image if alone else -1), []).append(image)
    step = backend.images_at_once(q)
    for group in groups.values():
        for start in range(0, len(group), step):
            yield group[start : start + step]
