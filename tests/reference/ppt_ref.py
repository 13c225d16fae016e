"""PPT on one image, in float64, with plain loops.

In a few blocks, between attention and MLP: the patches are scored by what the class token attends
to, times the length of their value; if the scores are even the most similar tokens are merged, if
they are not the lowest are dropped. Either way r tokens go.

How open points are read
------------------------
* Score of patch j: (sum over heads of A[class, j]) * ||v_j||, v_j all heads' values side by side,
  attention after the log-size bias; divided by the sum over patches.
* Variance: unbiased, over the patches. Below the threshold: merging. Equal or above: dropping.
* r is at most half of the tokens that are not prefix tokens, rounded down.
* Merging is ToMe's, as `tome_ref` has it; its order of tokens too.
* Dropping: prefix tokens in their order, then the kept patches by falling score, ties by index.
* Sizes are carried, and bias all blocks' keys. Without proportional attention there is no bias and
  merging averages with sizes of 1; the number of patches in a token is still kept, because an
  average-pooled head counts by it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from .macs_ref import backbone_macs, tome_macs
from .tome_ref import bipartite_match, merged
from .vit import Reduction, View, forward


@dataclass(frozen=True)
class Result:
    logits: Tensor  # (classes,) float64
    assignment: list[int]  # per patch: index in the final sequence, -1 = dropped
    tokens: list[int]  # L + 1
    pooled: list[bool]  # per stage that reduced
    variances: list[float]  # per stage that reduced
    margin: float  # how near any decision was to falling otherwise, in units of its own size
    macs_backbone: int
    macs_method: int


def reference_ppt(
    model: VisionTransformer,
    image: Float[Tensor, "c height width"],
    r: Sequence[int],
    threshold: float,
    blocks: Sequence[int],
    proportional_attention: bool = True,
) -> Result:
    """Run PPT on one image; `r` tokens go in each of `blocks` (from 0)."""
    stages = _Stages(dict(zip(blocks, r, strict=True)), threshold, proportional_attention)
    out = forward(model, image, stages, "after_attention", proportional_attention)
    return Result(
        logits=out.logits,
        assignment=out.assignment.tolist(),
        tokens=out.tokens,
        pooled=stages.pooled,
        variances=stages.variances,
        margin=min(stages.margins, default=math.inf),
        macs_backbone=backbone_macs(model, out.n_attention, out.n_mlp, out.tokens[-1]),
        macs_method=stages.macs,
    )


@dataclass
class _Stages:
    r: dict[int, int]
    threshold: float
    carry_sizes: bool
    pooled: list[bool] = field(default_factory=list)
    variances: list[float] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    macs: int = 0

    def __call__(self, view: View) -> Reduction | None:
        n, p = len(view.sizes), view.n_prefix
        r = min(self.r.get(view.block - 1, 0), (n - p) // 2)
        if r <= 0:
            return None
        scores = patch_scores(view)
        mean = sum(scores) / len(scores)
        variance = sum((s - mean) ** 2 for s in scores) / (len(scores) - 1)
        self.variances.append(variance)
        self.pooled.append(variance < self.threshold)
        if 0 < self.threshold < math.inf:
            self.margins.append(abs(variance / self.threshold - 1))
        self.macs += (n - p) * view.values.shape[0] * view.values.shape[2]  # squares of the norms
        return self._pool(view, r) if self.pooled[-1] else self._prune(view, scores, r)

    def _prune(self, view: View, scores: list[float], r: int) -> Reduction:
        ranked = by_falling(scores)
        kept = ranked[: len(ranked) - r]
        last = ranked[: len(kept) + 1]
        self.margins += [1 - scores[b] / scores[a] for a, b in pairwise(last)]
        order = list(range(view.n_prefix)) + [view.n_prefix + j for j in kept]
        destination = torch.full((len(view.sizes),), -1)
        destination[order] = torch.arange(len(order))
        return Reduction(view.tokens[order], view.sizes[order], destination)

    def _pool(self, view: View, r: int) -> Reduction:
        n, width = len(view.sizes), view.tokens.shape[1]
        metric = view.keys.mean(dim=0)
        match, margin = bipartite_match(metric, r, view.n_prefix)
        self.margins.append(margin)
        similarity = tome_macs((n + 1) // 2, n // 2, metric.shape[1], 0, width)["similarity"]
        rows = len(match.merged) + len(set(match.merged.values()))  # sources and destinations
        self.macs += similarity + rows * width
        if self.carry_sizes:
            return merged(view, match)
        plain = View(
            view.block, view.n_prefix, view.attention, view.keys, view.values, view.tokens,
            torch.ones_like(view.sizes),
        )  # fmt: skip
        answer = merged(plain, match)
        held = torch.zeros(n - r, dtype=torch.float64)
        for old, new in enumerate(answer.destination.tolist()):
            held[new] += view.sizes[old]
        return Reduction(answer.tokens, held, answer.destination)


def patch_scores(view: View) -> list[float]:
    """Share of each patch in the class token's attention times the length of the value."""
    raw = []
    for j in range(view.n_prefix, len(view.sizes)):
        length = math.sqrt(sum(float(head[j] @ head[j]) for head in view.values))
        raw.append(sum(float(head[0, j]) for head in view.attention) * length)
    total = sum(raw)
    return [score / total for score in raw]


def by_falling(scores: list[float]) -> list[int]:
    """Indices from the highest score to the lowest, the lower index first at ties."""
    return sorted(range(len(scores)), key=lambda j: (-scores[j], j))
