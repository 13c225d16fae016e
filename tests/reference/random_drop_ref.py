"""Random drop of one image's patches, in float64; which ones stay is given."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from .macs_ref import backbone_macs
from .vit import Reduction, View, forward


@dataclass(frozen=True)
class Result:
    logits: Tensor  # (classes,) float64
    assignment: list[int]  # per patch: index in the final sequence, -1 = dropped
    tokens: list[int]  # L + 1
    macs_backbone: int
    macs_method: int = 0
    margin: float = math.inf  # nothing is decided by numbers


def reference_random_drop(
    model: VisionTransformer,
    image: Float[Tensor, "c height width"],
    kept: Sequence[int],
    block: int,
) -> Result:
    """Run one image; between attention and MLP of `block` (from 0) only the patches `kept` stay."""

    def drop(view: View) -> Reduction | None:
        if view.block != block + 1:
            return None
        stay = [*range(view.n_prefix), *(view.n_prefix + patch for patch in sorted(kept))]
        destination = torch.full((len(view.sizes),), -1)
        destination[stay] = torch.arange(len(stay))
        return Reduction(view.tokens[stay], view.sizes[stay], destination)

    out = forward(model, image, drop, "after_attention")
    return Result(
        logits=out.logits,
        assignment=out.assignment.tolist(),
        tokens=out.tokens,
        macs_backbone=backbone_macs(model, out.n_attention, out.n_mlp, out.tokens[-1]),
    )
