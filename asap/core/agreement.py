"""Checks if weighting the diffusion distance changes an order. Used by scripts and tests only.

The paper's claim is in its Appendix A.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from asap.core.diffusion import distance_to_anchor


def weighted_distance(
    walk: Float[Tensor, "b n n"], anchor: Int[Tensor, "b"], prefix: int
) -> Float[Tensor, "b patches"]:
    """`sum_j (P(i, j) - P(s, j))^2 / pi_j` for every patch i; pi is the column mean of P (Eq. 7).

    A column of P that is 0 everywhere adds nothing.
    """
    rows, share = walk[:, prefix:], walk.mean(1, keepdim=True)
    index = anchor[:, None, None].expand(-1, 1, rows.shape[-1])
    squares = (rows - rows.gather(1, index)).square()
    return torch.where(share > 0, squares / share, squares).sum(2)


def mean_ranks(values: Float[Tensor, "b m"]) -> Float[Tensor, "b m"]:
    """Ranks from 1, in float64; equal values share the mean of their ranks."""
    below = (values[:, None, :] < values[:, :, None]).sum(2)
    equal = (values[:, None, :] == values[:, :, None]).sum(2)
    return below.double() + (equal.double() + 1) / 2


def spearman(x: Float[Tensor, "b m"], y: Float[Tensor, "b m"]) -> Float[Tensor, "b"]:
    """Spearman's rank correlation of each row, in float64; NaN if one side is constant."""
    x, y = (r - r.mean(1, keepdim=True) for r in (mean_ranks(x), mean_ranks(y)))
    return (x * y).sum(1) / (x.square().sum(1) * y.square().sum(1)).sqrt()


def rank_agreement(
    walk: Float[Tensor, "b n n"], anchor: Int[Tensor, "b"], prefix: int
) -> Float[Tensor, "b"]:
    """Spearman's rho, per image, between the plain and the weighted distance to the anchor.

    Over all patches but the anchor, whose distance is 0 by definition in both.
    """
    plain = distance_to_anchor(walk, anchor, prefix)
    weighted = weighted_distance(walk, anchor, prefix)
    b, patches = plain.shape
    others = torch.ones_like(plain, dtype=torch.bool).scatter(1, anchor[:, None], False)
    return spearman(plain[others].view(b, patches - 1), weighted[others].view(b, patches - 1))
