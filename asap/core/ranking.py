"""Patch scores from the attention of the class token, and the ranking by scores.

Scores: attention alone (EViT), or attention times the length of the value (ATS, PPT). Token 0 is
the class token.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from asap.core.accelerated import accelerated


def value_norms(values: Float[Tensor, "*rows heads d"]) -> Float[Tensor, "*rows"]:
    """Euclidean norm of each token's value, all heads together, in at least float32.

    MACs: one square per token and channel.
    """
    kind = torch.promote_types(values.dtype, torch.float32)
    return torch.linalg.vector_norm(values.flatten(-2), dim=-1, dtype=kind)


def value_scores(
    class_row: Float[Tensor, "b patches"], norms: Float[Tensor, "b patches"]
) -> Float[Tensor, "b patches"]:
    """`a_j ||v_j||`, scaled to sum 1: class attention times the norm of the value.

    Whether attention is summed or averaged over heads makes no difference.
    """
    scores = class_row * norms
    return scores / scores.sum(1, keepdim=True)


def ranked_target(scores: Float[Tensor, "b patches"], keep: int, prefix: int) -> Int[Tensor, "b n"]:
    """Output positions: the prefix, then the `keep` best patches, best first; -1 for the others.

    Ties go to the lowest index.
    """
    if (found := accelerated("ranked_target", scores, scores, keep, prefix)) is not None:
        return found
    order = scores.argsort(dim=1, descending=True, stable=True)
    ranks = torch.arange(scores.shape[1], device=scores.device).expand_as(order)
    places = torch.empty_like(order).scatter_(1, order, ranks)
    kept = torch.where(places < keep, places + prefix, -1)
    first = torch.arange(prefix, device=scores.device).expand(len(scores), -1)
    return torch.cat([first, kept], dim=1)
