"""Weighted PageRank on attention maps, and similarity of less important to important tokens."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.core.rows import row_products


def page_rank(
    attention: Float[Tensor, "b heads n n"], start: Float[Tensor, "n"], iterations: int
) -> Float[Tensor, "b heads n"]:
    """`s <- A^T s` in every head, `iterations` times; the scores keep the sum of `start`."""
    b, heads, n, _ = attention.shape
    maps = attention.reshape(b * heads, n, n)
    scores = start.expand(b * heads, 1, n)
    for _ in range(iterations):
        scores = row_products(scores, maps)
    return scores.view(b, heads, n)


def start_scores(
    tokens: int, emphasised: bool, like: Float[Tensor, "..."]
) -> Float[Tensor, "tokens"]:
    """Scores of mean 1; `emphasised`: the first token has sqrt(tokens) times the others' score."""
    scores = like.new_ones(tokens)
    if emphasised:
        scores[:1] = tokens**0.5  # scores[0] would copy the number from the host's memory
    return scores * (tokens / scores.sum())


def over_heads(
    scores: Float[Tensor, "b heads n"], prefix: int, low: float, high: float
) -> Float[Tensor, "b patches"]:
    """Root mean square over the heads whose scores have a variance in [low, high].

    The variance is the population variance over patches. If no head is in the range, all heads
    count.
    """
    patches = scores[:, :, prefix:]
    variance = patches.var(-1, correction=0)
    passed = (variance >= low) & (variance <= high)
    passed = (passed | ~passed.any(1, keepdim=True)).to(scores.dtype)
    squares = (patches.square() * passed[:, :, None]).sum(1)
    return (squares / passed.sum(1, keepdim=True)).sqrt()


def among(
    attention: Float[Tensor, "b heads n n"], left: Int[Tensor, "b m"]
) -> Float[Tensor, "b heads m m"]:
    """The attention among the tokens `left`, with rows scaled to sum 1 again."""
    images = torch.arange(len(left), device=left.device)[:, None, None]
    chosen = attention[images, :, left[:, :, None], left[:, None, :]].movedim(-1, 1)
    return chosen / chosen.sum(-1, keepdim=True)


def most_similar(
    keys: Float[Tensor, "b n d"], importance: Float[Tensor, "b n"], count: int
) -> Bool[Tensor, "b n"]:
    """The `count` tokens of the less important half that are nearest to one of the other half.

    Nearness is the cosine of the keys. For an odd number of tokens, the less important half is the
    smaller one. Ties go to the lowest index, in both halves.
    """
    b, n, d = keys.shape
    unit = keys / keys.norm(dim=-1, keepdim=True)
    ranked = importance.argsort(dim=1, descending=True, stable=True)
    more, less = ranked[:, : n - n // 2], ranked[:, n - n // 2 :].sort(dim=1).values
    sides = [unit.gather(1, side[:, :, None].expand(-1, -1, d)) for side in (less, more)]
    nearness = (sides[0] @ sides[1].transpose(1, 2)).amax(2)
    nearest = nearness.argsort(dim=1, descending=True, stable=True)[:, :count]
    found = torch.zeros(b, n, dtype=torch.bool, device=keys.device)
    return found.scatter(1, less.gather(1, nearest), True)


def best(scores: Float[Tensor, "b n"], count: int, prefix: int) -> Int[Tensor, "b m"]:
    """Indices of the `prefix` tokens and then of the `count` best patches, in ascending order.

    `scores`: of the patches. Ties go to the lowest index.
    """
    ranked = scores.argsort(dim=1, descending=True, stable=True)
    front = torch.arange(prefix, device=scores.device).expand(len(scores), prefix)
    return torch.cat([front, ranked[:, :count].sort(dim=1).values + prefix], dim=1)
