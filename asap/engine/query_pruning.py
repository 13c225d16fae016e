"""Attention in which a method decides, between softmax and values, whose queries remain.

A few images at a time: their maps are computed, the method is asked, and only the rows that it
keeps are multiplied with the values. Dropped tokens still count as keys and values. Rows keep their
old places until the whole batch is regrouped.
"""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from asap.core.packed import SHORT, Ragged, Run
from asap.engine.attention import Heads, fresh, images_per_slab, joined, log_sizes
from asap.methods.base import Decision, Method


def slabs(heads: Heads, run: Run) -> Iterator[Run]:
    """The run in pieces of as many images as have their scores held at once."""
    step = images_per_slab(heads.of(run)[0])
    for start in range(0, len(run.images), step):
        images = run.images[start : start + step]
        yield Run(images, run.first_row + start * run.length, run.length, run.watched)


def head_maps(
    heads: Heads, batch: Ragged, slab: Run, method: Method
) -> Float[Tensor, "b heads n n"]:
    """Softmax attention of every head, in at least float32."""
    q, k, _ = heads.of(slab)
    scores = (q * heads.scale) @ fresh(k).transpose(-2, -1)
    if method.proportional_attention and batch.merged:
        scores += log_sizes(batch, slab, q.dtype)
    share = scores.softmax(-1, dtype=torch.promote_types(q.dtype, torch.float32))
    return smoothed(share, method.softmax_epsilon) if method.softmax_epsilon else share


def smoothed(share: Float[Tensor, "*b n"], epsilon: float) -> Float[Tensor, "*b n"]:
    """`(e_j + eps / n) / (sum e + eps)` from `e_j / sum e`, the largest e being 1.

    The largest share is then `1 / sum e`, so that nothing but the softmax is needed.
    """
    unit = epsilon * share.amax(-1, keepdim=True)
    return (share + unit / share.shape[-1]) / (1 + unit)


def kept_products(
    share: Float[Tensor, "b heads n n"],
    heads: Heads,
    slab: Run,
    decision: Decision | None,
) -> Float[Tensor, "rows width"]:
    """Shares times values for the queries that remain, in the slab's old places; elsewhere zeros.

    Images with equally many go together; on CPU those with few come one by one, which keeps their
    bits independent of each other.
    """
    values = heads.of(slab)[2]
    kept, lengths = _kept(slab, decision, values.device)
    out = torch.zeros_like(values)
    for group in _groups(lengths, values.device):
        images = torch.tensor(group, device=values.device)
        rows = kept[images, : lengths[group[0]]]
        queries = share[images[:, None], :, rows].transpose(1, 2).to(values.dtype)
        products = queries @ values[images]
        out[images[:, None], :, rows] = products.transpose(1, 2)
    return joined(out)


def _kept(
    slab: Run, decision: Decision | None, device: torch.device
) -> tuple[Tensor, tuple[int, ...]]:
    """Per image the tokens that remain, in their new order, then the others; how many remain."""
    count, n = len(slab.images), slab.length
    same = torch.arange(n, device=device).expand(count, n)
    if decision is None or decision.target is None:
        return same, (n,) * count
    if decision.weight is not None:
        raise ValueError("a method cannot average tokens at position 'in_attention'")
    order = torch.where(decision.target < 0, n, decision.target).argsort(dim=1, stable=True)
    if decision.reduced is None:
        return order, decision.lengths
    changed = decision.reduced.tolist()
    lengths = tuple(m if c else n for m, c in zip(decision.lengths, changed, strict=True))
    return torch.where(decision.reduced[:, None], order, same), lengths


def _groups(lengths: tuple[int, ...], device: torch.device) -> list[list[int]]:
    """Images that are multiplied together."""
    groups: dict[tuple[int, int], list[int]] = {}
    for image, length in enumerate(lengths):
        alone = device.type == "cpu" and length < SHORT
        groups.setdefault((length, image if alone else -1), []).append(image)
    return list(groups.values())
