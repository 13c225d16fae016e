"""VisPruner on one image, in float64, with plain loops.

After one block: half of the budget are the patches that the class token attends to most; the others
are thinned in rounds until the rest of the budget is left.

How open points are read
------------------------
* Score of patch j: sum over heads of A[class, j]; floor(tokens * ratio) stay by score.
* The others form a list from the largest score to the smallest. In a round, places 0, 2, 4, ...
  are compared with places 1, 3, ... (cosine of the tokens where the reduction happens). Of the even
  ones q = min(per_round, length - what is to be left) are deleted, all if there are fewer: those
  with the largest best cosine. The new list is the other even ones, by falling best cosine, then
  the odd ones. Ties by index of the patch.
* What stays stays in its order. If all patches would stay, nothing happens.
* Cosines of all pairs of patches are counted once: a matrix product.
"""

import math
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from .tower_result import Result, result_of
from .visionzip_ref import class_scores, cosine
from .vit import Reduction, View, forward


def reference_vispruner(
    model: VisionTransformer,
    image: Float[Tensor, "c height width"],
    tokens: int,
    ratio: float,
    per_round: int,
    block: int,
) -> Result:
    """Run VisPruner on one image, after block `block` (from 1)."""
    step = _Step(tokens, ratio, per_round, block)
    return result_of(model, step, forward(model, image, step, "after_block"))


def thinned(
    listed: list[int],
    similar: list[list[float]],
    left: int,
    per_round: int,
    margins: list[float] | None = None,
) -> list[int]:
    """Which of the listed ones stay, `left` of them; `similar`: the cosine of any two."""
    margins = [] if margins is None else margins
    while len(listed) > left:
        even, odd = listed[::2], listed[1::2]
        best = {e: max((similar[e][o] for o in odd), default=-math.inf) for e in even}
        order = sorted(even, key=lambda e: (-best[e], e))
        margins += [best[a] - best[b] for a, b in pairwise(order)]
        gone = min(per_round, len(listed) - left, len(even))
        listed = order[gone:] + odd
    return listed


@dataclass
class _Step:
    tokens: int
    ratio: float
    per_round: int
    block: int
    margins: list[float] = field(default_factory=list)
    macs: int = 0

    def __call__(self, view: View) -> Reduction | None:
        p, patches = view.n_prefix, len(view.sizes) - view.n_prefix
        if view.block != self.block or self.tokens >= patches:
            return None
        scores = class_scores(view)
        ranked = sorted(range(patches), key=lambda j: (-scores[j], j))
        self.margins += [1 - scores[b] / scores[a] for a, b in pairwise(ranked)]
        important = math.floor(self.tokens * self.ratio)
        similar = [[cosine(a, b) for b in view.tokens[p:]] for a in view.tokens[p:]]
        self.macs += patches * patches * view.tokens.shape[1]
        left = self.tokens - important
        rest = thinned(ranked[important:], similar, left, self.per_round, self.margins)
        kept = sorted(ranked[:important] + rest)
        stay = [*range(p), *(p + j for j in kept)]
        destination = torch.full((len(view.sizes),), -1)
        destination[stay] = torch.arange(len(stay))
        return Reduction(view.tokens[stay], view.sizes[stay], destination)
