"""Zero-TPrune on one image, in float64, scores and similarities in plain loops.

After some of the blocks: importance by one vote (I'), similarity pruning (S), importance by several
votes among the survivors (I).

How open points are read
------------------------
* Layers are numbered from 1: layer l prunes the output of block l, with its attention and keys.
* A vote: s_j <- sum_i A_ij s_i, in every head. Scores begin with mean 1, the class token having
  sqrt(N) times the others' (a model without class token, or `initial="uniform"`: all 1).
* Variance: population variance over patches. Heads outside [low, high] do not count, unless none is
  inside.
* Halves: patches by (importance, index), the first ceil(n / 2) are the more important ones.
* Keys of all heads side by side, as the attention used them.
* All prefix tokens vote and receive votes; none is removed or in a half.
* I keeps floor(share * patches after S), the share taken as the decimal number that is written.
* Ties go to the lowest index.
* Margins: smallest gap of importance, relative, or of similarity at a border that decides; and the
  relative distance of a head's variance from the edges of the range.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

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
    margin: float
    macs_backbone: int
    macs_method: int


def reference_zero_tprune(
    model: VisionTransformer,
    image: Float[Tensor, "c height width"],
    layers: Sequence[int],
    keep: Sequence[float],
    similar: Sequence[int],
    iterations: Sequence[int],
    initial: str = "class",
    low: float = 0.01,
    high: float = 0.7,
) -> Result:
    """Run Zero-TPrune on one image; one entry of `keep`, `similar`, `iterations` a layer."""
    stages = {
        layer: (Fraction(str(share)), r, steps)
        for layer, share, r, steps in zip(layers, keep, similar, iterations, strict=True)
    }
    emphasis = initial == "class" and model.has_class_token
    pruner = _Pruner(stages, emphasis, low, high)
    out = forward(model, image, pruner, "after_block")
    return Result(
        logits=out.logits,
        assignment=out.assignment.tolist(),
        tokens=out.tokens,
        margin=min(pruner.margins, default=math.inf),
        macs_backbone=backbone_macs(model, out.n_attention, out.n_mlp, out.tokens[-1]),
        macs_method=pruner.macs,
    )


@dataclass
class _Pruner:
    stages: dict[int, tuple[Fraction, int, int]]
    emphasis: bool
    low: float
    high: float
    margins: list[float] = field(default_factory=list)
    macs: int = 0

    def __call__(self, view: View) -> Reduction | None:
        if view.block not in self.stages:
            return None
        share, r, steps = self.stages[view.block]
        heads, n, _ = view.attention.shape
        prefix = list(range(view.n_prefix))
        patches = list(range(view.n_prefix, n))
        if r > 0:
            votes = self._importance(view.attention, [*prefix, *patches], len(prefix), 1)
            keys = torch.cat(list(view.keys), dim=1)
            dropped = self._too_similar(patches, votes, keys, r)
            half = len(patches) // 2
            self.macs += heads * n * n + half * (len(patches) - half) * keys.shape[1]
            patches = [p for p in patches if p not in dropped]
        k = math.floor(share * len(patches))
        if k < len(patches):
            left = [*prefix, *patches]
            ranks = self._importance(view.attention, left, len(prefix), steps)
            self.macs += heads * len(left) ** 2 * steps
            ordered = sorted(patches, key=lambda p: (-ranks[p], p))
            self.margins.append(1 - ranks[ordered[k]] / ranks[ordered[k - 1]])
            patches = sorted(ordered[:k])
        kept = [*prefix, *patches]
        destination = torch.full((n,), -1)
        destination[kept] = torch.arange(len(kept))
        return Reduction(view.tokens[kept], view.sizes[kept], destination)

    def _importance(
        self, attention: Float[Tensor, "h N N"], left: list[int], n_prefix: int, steps: int
    ) -> dict[int, float]:
        """Importance of the patches among the tokens `left`, by token."""
        n = len(left)
        counted, variances, squares = [], [], []
        for full in attention:
            graph = full[left][:, left]
            graph = graph / graph.sum(dim=1, keepdim=True)
            scores = torch.ones(n, dtype=torch.float64)
            if self.emphasis:
                scores[0] = math.sqrt(n)
            scores = scores / scores.mean()
            for _ in range(steps):
                scores = graph.T @ scores
            of_patches = scores[n_prefix:].tolist()
            mean = sum(of_patches) / len(of_patches)
            variances.append(sum((s - mean) ** 2 for s in of_patches) / len(of_patches))
            counted.append(self.low <= variances[-1] <= self.high)
            squares.append([s * s for s in of_patches])
        for edge in (self.low, self.high):
            self.margins += [abs(v - edge) / max(v, edge) for v in variances if v or edge]
        if not any(counted):
            counted = [True] * len(counted)
        chosen = [s for s, counts in zip(squares, counted, strict=True) if counts]
        root = [math.sqrt(sum(s[i] for s in chosen) / len(chosen)) for i in range(n - n_prefix)]
        return dict(zip(left[n_prefix:], root, strict=True))

    def _too_similar(
        self, patches: list[int], votes: dict[int, float], keys: Float[Tensor, "N D"], r: int
    ) -> list[int]:
        """The r patches of the less important half that are most similar to one of the others."""
        ordered = sorted(patches, key=lambda p: (-votes[p], p))
        border = math.ceil(len(patches) / 2)
        more, less = ordered[:border], sorted(ordered[border:])
        self.margins.append(1 - votes[ordered[border]] / votes[ordered[border - 1]])
        unit = {p: keys[p] / keys[p].norm() for p in patches}
        nearest = {a: max(float(unit[a] @ unit[b]) for b in more) for a in less}
        ranked = sorted(less, key=lambda a: (-nearest[a], a))
        if r < len(ranked):
            self.margins.append(nearest[ranked[r - 1]] - nearest[ranked[r]])
        return ranked[:r]
