"""DynamicViT on one image, in float64, the predictor built from torch's own layers.

Before a few blocks, a small trained network scores every patch; the best are kept.

How open points are read
------------------------
* Before block i is after block i - 1; a stage before block 0 is not covered.
* The predictor sees the patches as they enter the block, before its norm. Its own LayerNorm has
  eps 1e-5. All patches present count in the mean of the second half of the channels.
* Stage i (from 0) keeps trunc(n * keep_rate^(i + 1)) of the n patches at the start, the product in
  floating point; with a list of rates, trunc(n * their product so far). If that is all patches that
  are there, nothing happens and the predictor does not run.
* Order: prefix tokens, then the kept patches by falling score, ties by index.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from .macs_ref import backbone_macs, linear_macs
from .vit import Reduction, View, forward


class Predictor(nn.Module):
    """The score predictor, under the names of the authors' checkpoints."""

    def __init__(self, dim: int):
        super().__init__()
        self.in_conv = nn.Sequential(nn.LayerNorm(dim, eps=1e-5), nn.Linear(dim, dim), nn.GELU())
        self.out_conv = nn.Sequential(
            nn.Linear(dim, dim // 2), nn.GELU(), nn.Linear(dim // 2, dim // 4), nn.GELU(),
            nn.Linear(dim // 4, 2), nn.LogSoftmax(dim=-1),
        )  # fmt: skip

    def forward(self, patches: Float[Tensor, "n dim"]) -> Float[Tensor, "n"]:
        hidden = self.in_conv(patches)
        half = hidden.shape[1] // 2
        shared = sum(hidden[:, half:]) / len(hidden)
        rows = [torch.cat([row[:half], shared]) for row in hidden]
        return torch.stack([self.out_conv(row)[0] for row in rows])


@dataclass(frozen=True)
class Result:
    logits: Tensor  # (classes,) float64
    assignment: list[int]  # per patch: index in the final sequence, -1 = dropped
    tokens: list[int]  # L + 1, entering each block and leaving the last
    margin: float  # smallest lead of a kept patch over the next one
    macs_backbone: int
    macs_method: int


def reference_dynamicvit(
    model: VisionTransformer,
    image: Float[Tensor, "c height width"],
    keep_rate: float | Sequence[float],
    predictors: Sequence[Mapping[str, Tensor]],
    blocks: Sequence[int],
) -> Result:
    """Run DynamicViT on one image; one state dict in `predictors` for each of `blocks` (from 0)."""
    stages = _Stages(keep_rate, [_built(p) for p in predictors], list(blocks))
    out = forward(model, image, stages, "after_block")
    return Result(
        logits=out.logits,
        assignment=out.assignment.tolist(),
        tokens=out.tokens,
        margin=min(stages.margins, default=math.inf),
        macs_backbone=backbone_macs(model, out.n_attention, out.n_mlp, out.tokens[-1]),
        macs_method=stages.macs,
    )


def _built(weights: Mapping[str, Tensor]) -> Predictor:
    predictor = Predictor(len(weights["in_conv.0.weight"])).double().eval()
    predictor.load_state_dict(dict(weights))
    return predictor


@dataclass
class _Stages:
    keep_rate: float | Sequence[float]
    predictors: list[Predictor]
    blocks: list[int]
    margins: list[float] = field(default_factory=list)
    n_start: int = 0
    macs: int = 0

    def __call__(self, view: View) -> Reduction | None:
        p, patches = view.n_prefix, len(view.sizes) - view.n_prefix
        self.n_start = self.n_start or patches
        if view.block not in self.blocks:  # number from 1 of this block: index of the next one
            return None
        stage = self.blocks.index(view.block)
        if isinstance(self.keep_rate, float):
            share = self.keep_rate ** (stage + 1)
        else:
            share = math.prod(self.keep_rate[: stage + 1])
        n_kept = math.trunc(self.n_start * share)
        if n_kept >= patches:
            return None
        score = self.predictors[stage](view.tokens[p:]).tolist()
        self.macs += patches * linear_macs(self.predictors[stage])
        ranked = sorted(range(patches), key=lambda j: (-score[j], j))
        last = ranked[: n_kept + 1]
        self.margins += [score[a] - score[b] for a, b in pairwise(last)]
        order = [*range(p), *[p + j for j in ranked[:n_kept]]]
        destination = torch.full((p + patches,), -1)
        destination[order] = torch.arange(len(order))
        return Reduction(view.tokens[order], view.sizes[order], destination)
