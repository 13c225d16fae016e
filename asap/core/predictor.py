"""DynamicViT's score predictor: a small network that scores whether to keep each patch.

LayerNorm, Linear(D, D), GELU; half of the channels are kept for each patch, the other half are
replaced by their mean over the patches; then Linear(D, D/2), GELU, Linear(D/2, D/4), GELU,
Linear(D/4, 2) and log-softmax, whose first channel is the score. The weights have the names of the
authors' checkpoints.
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from asap.core.rows import rowwise

EPS = 1e-5  # of the predictor's LayerNorm; DeiT's own LayerNorms have 1e-6
LAYERS = ("in_conv.1", "out_conv.0", "out_conv.2", "out_conv.4")


def predictor_shapes(dim: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one predictor's weights."""
    widths = ((dim, dim), (dim // 2, dim), (dim // 4, dim // 2), (2, dim // 4))
    shapes: dict[str, tuple[int, ...]] = {"in_conv.0.weight": (dim,), "in_conv.0.bias": (dim,)}
    for layer, (wide, narrow) in zip(LAYERS, widths, strict=True):
        shapes |= {f"{layer}.weight": (wide, narrow), f"{layer}.bias": (wide,)}
    return shapes


def predictor_macs(weights: Mapping[str, Tensor]) -> int:
    """MACs per patch: its linear layers."""
    return sum(weights[f"{layer}.weight"].numel() for layer in LAYERS)


def keep_scores(
    patches: Float[Tensor, "b n dim"], weights: Mapping[str, Tensor]
) -> Float[Tensor, "b n"]:
    """Log-probability that each patch is kept, in the weights' precision.

    `weights`: with the names and shapes of `predictor_shapes(dim)`. The mean is over all given
    patches.
    """
    images, count, dim = patches.shape

    def linear(layer: str, x: Tensor) -> Tensor:
        return F.linear(x, weights[f"{layer}.weight"], weights[f"{layer}.bias"])

    def enter(x: Tensor) -> Tensor:
        scale, shift = weights["in_conv.0.weight"], weights["in_conv.0.bias"]
        return F.gelu(linear("in_conv.1", F.layer_norm(x, (dim,), scale, shift, EPS)))

    def leave(x: Tensor) -> Tensor:
        x = F.gelu(linear("out_conv.2", F.gelu(linear("out_conv.0", x))))
        return linear("out_conv.4", x).log_softmax(-1)

    rows = patches.reshape(images * count, dim).to(weights["in_conv.0.weight"].dtype)
    own, shared = rowwise(enter, rows).view(images, count, dim).split(dim // 2, dim=-1)
    whole = shared.mean(1, keepdim=True).expand_as(shared)
    both = torch.cat([own, whole], dim=-1).view(images * count, dim)
    return rowwise(leave, both)[:, 0].view(images, count)
