"""Weights for averaging tokens. The executor does the averaging itself."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.core.accelerated import accelerated


def transition_weights(
    distance: Float[Tensor, "b patches"],
    members: Bool[Tensor, "b patches"],
    temperature: float = 1.0,
) -> Float[Tensor, "b patches"]:
    """`softmax(d_i / t)` over the members, 0 elsewhere (paper, Eq. 6). Every row needs a member."""
    return (distance / temperature).masked_fill(~members, float("-inf")).softmax(1)


def mean_weights(sizes: Float[Tensor, "b n"], target: Int[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """Each token's weight in the size-weighted mean at its output position; 0 for dropped ones."""
    if (found := accelerated("mean_weights", sizes, sizes, target)) is not None:
        return found
    position = target.clamp(min=0)
    kept = torch.where(target >= 0, sizes, torch.zeros_like(sizes))
    totals = torch.zeros_like(sizes).scatter_add(1, position, kept)
    return kept / totals.gather(1, position).clamp(min=torch.finfo(sizes.dtype).tiny)
