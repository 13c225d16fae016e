"""Where the object's patches are known: how many stay apart, and whether the sink is among them."""

import torch
from jaxtyping import Bool, Int
from torch import Tensor

NAN = float("nan")


def object_recall(assignment: Int[Tensor, "patches"], mask: Bool[Tensor, "patches"]) -> float:
    """Share of object patches whose final token holds object patches only; NaN without any.

    `assignment`: the final token of each patch, -1 = dropped.
    """
    if not mask.any():
        return NAN
    slots = assignment + 1  # 0 collects the dropped patches
    ground = torch.bincount(slots[~mask], minlength=int(slots.max()) + 1)
    kept = (slots[mask] > 0) & (ground[slots[mask]] == 0)
    return float(kept.double().mean())


def sink_on_object(sink: int, mask: Bool[Tensor, "patches"]) -> float:
    """1 if the sink is an object patch, 0 if not, NaN without a sink."""
    return float(mask[sink]) if sink >= 0 else NAN


def object_share(mask: Bool[Tensor, "patches"]) -> float:
    """Share of object patches: the chance that a random patch is on the object."""
    return float(mask.double().mean())
