"""Distances between rows of the cumulative transition matrix (paper, Eq. 4)."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def patch_rows(
    walk: Float[Tensor, "b n n"], prefix: int, columns: str = "all"
) -> Float[Tensor, "b patches columns"]:
    """The patches' rows of P with "all" columns, or only the patches' columns ("patches")."""
    return walk[:, prefix:, prefix if columns == "patches" else 0 :]


def distance_to_anchor(
    walk: Float[Tensor, "b n n"], anchor: Int[Tensor, "b"], prefix: int, columns: str = "all"
) -> Float[Tensor, "b patches"]:
    """`d_i = ||P(i, :) - P(s, :)||_2` for every patch i; `anchor` is a patch index."""
    rows = patch_rows(walk, prefix, columns)
    index = anchor[:, None, None].expand(-1, 1, rows.shape[-1])
    return torch.linalg.vector_norm(rows - rows.gather(1, index), dim=-1)


def self_aligned_distance(
    walk: Float[Tensor, "b n n"], anchor: Int[Tensor, "b"], prefix: int, columns: str = "all"
) -> Float[Tensor, "b patches"]:
    """Distance to the anchor that compares the self-transitions with each other (not in the paper).

    `d_i^2 = sum over j != i, s of (P_ij - P_sj)^2 + (P_ii - P_ss)^2 + (P_is - P_si)^2`.
    """
    rows = patch_rows(walk, prefix, columns)
    shift = rows.shape[-1] - rows.shape[1]  # column of patch 0
    index = anchor[:, None, None].expand(-1, 1, rows.shape[-1])
    own = rows.gather(1, index)
    difference = rows - own
    square = rows[..., shift:]
    kept = square.diagonal(dim1=1, dim2=2)  # P_ii
    to_anchor = square.gather(2, anchor[:, None, None].expand(-1, rows.shape[1], 1))
    mutual = to_anchor[..., 0] - own[:, 0, shift:]  # P_is - P_si
    patches = difference[..., shift:]
    patches.scatter_(2, anchor[:, None, None].expand(-1, rows.shape[1], 1), mutual[..., None])
    patches.diagonal(dim1=1, dim2=2).copy_(kept - kept.gather(1, anchor[:, None]))
    return torch.linalg.vector_norm(difference, dim=-1)
