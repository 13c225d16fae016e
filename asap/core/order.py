"""Orders that are the same on every device: ties go to the lowest index."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from asap.core.accelerated import accelerated


def ranks(values: Tensor, descending: bool = False) -> Int[Tensor, "b n"]:
    """The rank of every value (b, n) in its row, from 0."""
    if (found := accelerated("ranks", values, values, descending)) is not None:
        return found
    order = values.argsort(dim=1, descending=descending, stable=True)
    places = torch.arange(values.shape[1], device=values.device).expand_as(order)
    return torch.zeros_like(order).scatter(1, order, places)


def best_class(logits: Float[Tensor, "classes"]) -> int | None:
    """The class with the largest logit; None (no answer) if any logit is NaN or infinite."""
    return int(logits.argmax()) if logits.isfinite().all() else None


def first_argmax(scores: Float[Tensor, "b n"]) -> Int[Tensor, "b"]:
    """Index of the maximum of every row."""
    return (scores == scores.amax(1, keepdim=True)).to(torch.uint8).argmax(1)
