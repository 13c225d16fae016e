"""EViT on one image, in float64, with plain loops.

In a few blocks, between attention and MLP: the patches that the class token attends to most are
kept, the others are summed into one token, weighted by that attention.

How open points are read
------------------------
* Score of patch j: mean over heads of A[class, j].
* K = ceil(keep_rate * patches), the product in floating point; patches are all tokens that are not
  prefix tokens, an earlier fused token included. If K is all of them, nothing happens.
* Order: prefix tokens, kept patches by falling score, ties by index, the fused token last.
* The fused token is the plain sum of score * token; the scores are not made to sum to 1. It stands
  for all the patches in it where an average-pooled head counts. No log-size bias anywhere.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

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
    margin: float  # smallest lead of a kept patch over the next one, relative
    macs_backbone: int
    macs_method: int


def reference_evit(
    model: VisionTransformer,
    image: Float[Tensor, "c height width"],
    keep_rate: Sequence[float],
    blocks: Sequence[int],
    fuse: bool = True,
) -> Result:
    """Run EViT on one image; a share `keep_rate` stays in each of `blocks` (from 0)."""
    stages = _Stages(dict(zip(blocks, keep_rate, strict=True)), fuse)
    out = forward(model, image, stages, "after_attention")
    return Result(
        logits=out.logits,
        assignment=out.assignment.tolist(),
        tokens=out.tokens,
        margin=min(stages.margins, default=math.inf),
        macs_backbone=backbone_macs(model, out.n_attention, out.n_mlp, out.tokens[-1]),
        macs_method=stages.macs,
    )


@dataclass
class _Stages:
    rates: dict[int, float]
    fuse: bool
    margins: list[float] = field(default_factory=list)
    macs: int = 0

    def __call__(self, view: View) -> Reduction | None:
        p, patches = view.n_prefix, len(view.sizes) - view.n_prefix
        n_kept = math.ceil(self.rates.get(view.block - 1, 1.0) * patches)
        if n_kept == patches:
            return None
        score = [
            sum(float(head[0, p + j]) for head in view.attention) / len(view.attention)
            for j in range(patches)
        ]
        ranked = sorted(range(patches), key=lambda j: (-score[j], j))
        kept, rest = ranked[:n_kept], ranked[n_kept:]
        last = ranked[: n_kept + 1]
        self.margins += [1 - score[b] / score[a] for a, b in pairwise(last)]
        order = [*range(p), *[p + j for j in kept]]
        destination = torch.full((p + patches,), -1)
        destination[order] = torch.arange(len(order))
        tokens = [view.tokens[t] for t in order]
        sizes = [float(view.sizes[t]) for t in order]
        if self.fuse:
            tokens.append(sum(score[j] * view.tokens[p + j] for j in rest))
            sizes.append(sum(float(view.sizes[p + j]) for j in rest))
            destination[[p + j for j in rest]] = len(order)
            self.macs += len(rest) * view.tokens.shape[1]
        return Reduction(torch.stack(tokens), torch.tensor(sizes).double(), destination)
