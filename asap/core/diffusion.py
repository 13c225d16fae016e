"""Distances between rows of the cumulative transition matrix (paper, Eq. 4)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def distance_to_anchor(
    walk: Float[Tensor, "b n n"], anchor: Int[Tensor, "b"], prefix: int, columns: str = "all"
) -> Float[Tensor, "b patches"]:
    """`d_i = ||P(i, :) - P(s, :)||_2` for every patch i; `anchor` is a patch index.

    `columns`: "all" takes every column of P, "patches" leaves the prefix tokens' columns out.
    """
    rows = walk[:, prefix:]
    if columns == "patches":
        rows = rows[..., prefix:]
    index = anchor[:, None, None].expand(-1, 1, rows.shape[-1])
    return torch.linalg.vector_norm(rows - rows.gather(1, index), dim=-1)
