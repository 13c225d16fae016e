"""What the references of methods in the tower of a language model give, from their pass."""

import math
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from .macs_ref import backbone_macs


@dataclass(frozen=True)
class Result:
    logits: Tensor  # (classes,) float64
    assignment: list[int]  # per patch: index in the final sequence, -1 = dropped
    tokens: list[int]  # L + 1
    margin: float  # smallest lead that decided: of a score or loading, relative, or of a cosine
    macs_backbone: int
    macs_method: int
    features: Float[Tensor, "M D"]  # after the final norm


def result_of(model: VisionTransformer, step: Any, out: Any) -> Result:
    """The result of a pass `out` with the reduction `step`, which has `margins` and `macs`."""
    return Result(
        logits=out.logits,
        assignment=out.assignment.tolist(),
        tokens=out.tokens,
        margin=min(step.margins, default=math.inf),
        macs_backbone=backbone_macs(model, out.n_attention, out.n_mlp, out.tokens[-1]),
        macs_method=step.macs,
        features=out.features,
    )
