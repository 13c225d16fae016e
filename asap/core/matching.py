"""Bipartite soft matching (Bolya et al., "Token Merging: Your ViT But Faster", ICLR 2023).

Written from the published description: tokens at even positions are matched to their most similar
token at an odd position; the r best matches are merged. Ties go to the lowest index.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from asap.core.accelerated import accelerated


def mean_of_heads(
    keys: Float[Tensor, "b heads n d"], like: Float[Tensor, "..."]
) -> Float[Tensor, "b n d"]:
    """The metric of tokens: the mean of their keys over heads, in the precision of `like`."""
    if (found := accelerated("mean_of_heads", like, keys)) is not None:
        return found
    return keys.to(like.dtype).mean(1)


def bipartite_matching(metric: Float[Tensor, "b n d"], r: int, prefix: int) -> Int[Tensor, "b n"]:
    """Output position of every token when the r best pairs merge; `metric` decides similarity.

    Prefix tokens are neither sources nor destinations. The output holds the prefix tokens, then the
    unmerged even tokens, then the odd tokens, each in their order: N - r positions.
    """
    if (found := accelerated("bipartite_matching", metric, metric, r, prefix)) is not None:
        return found
    unit = metric / metric.norm(dim=-1, keepdim=True)
    even, odd = unit[:, ::2], unit[:, 1::2]
    scores = even @ odd.transpose(1, 2)
    scores[:, : (prefix + 1) // 2] = float("-inf")
    scores[:, :, : prefix // 2] = float("-inf")
    best, partner = scores.max(dim=2)  # the first maximum
    source = torch.zeros_like(best, dtype=torch.bool)
    source.scatter_(1, best.argsort(dim=1, descending=True, stable=True)[:, :r], True)
    return _positions(source, partner, metric.shape[1], prefix)


def _positions(source: Tensor, partner: Tensor, n: int, prefix: int) -> Tensor:
    """Number the outputs: prefix, unmerged even tokens, odd tokens; sources join their partner."""
    rank = torch.arange(n, device=source.device)
    merged = torch.zeros(len(source), n, dtype=torch.bool, device=source.device)
    merged[:, ::2] = source
    # order key: class (prefix 0, even 1, odd 2), then the original index
    key = torch.where(rank < prefix, 0, 1 + rank % 2) * n + rank
    key = key.expand_as(merged).masked_fill(merged, 3 * n)
    order = key.argsort(dim=1, stable=True)
    position = torch.zeros_like(order).scatter(1, order, rank.expand_as(order))
    joined = position[:, 1::2].gather(1, partner)
    position[:, ::2] = torch.where(source, joined, position[:, ::2])
    return position
