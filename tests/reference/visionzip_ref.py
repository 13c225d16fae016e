"""VisionZip on one image, in float64, with plain loops.

After one block: the patches that the class token attends to most stay; of the others some become
targets, into which the rest go.

How open points are read
------------------------
* Score of patch j: sum over heads of A[class, j]. The `dominant - 1` best stay, in their order,
  ties by index; the class token is the one that is counted.
* Metric of the others: key, mean over heads, scaled to length 1.
* Targets: positions 0, s, 2 s, ... among the others in their order, s = others // contextual but at
  least 1, the first `contextual` ones. Every other one goes to the target with the largest cosine.
* A contextual token is its target plus the mean of what came; alone, it stays as it is.
* Order: prefix tokens, dominant patches, contextual tokens. If all patches would stay, nothing
  happens.
"""

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from .ppt_ref import by_falling
from .tower_result import Result, result_of
from .vit import Reduction, View, forward


def reference_visionzip(
    model: VisionTransformer,
    image: Float[Tensor, "c height width"],
    dominant: int,
    contextual: int,
    block: int,
) -> Result:
    """Run VisionZip on one image, after block `block` (from 1)."""
    step = _Step(dominant - 1, contextual, block)
    return result_of(model, step, forward(model, image, step, "after_block"))


def class_scores(view: View) -> list[float]:
    """What the class token attends to: for each patch the sum over heads."""
    patches = range(view.n_prefix, len(view.sizes))
    return [sum(float(head[0, j]) for head in view.attention) for j in patches]


def cosine(a: Float[Tensor, "d"], b: Float[Tensor, "d"]) -> float:
    return float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))


@dataclass
class _Step:
    best: int
    contextual: int
    block: int
    margins: list[float] = field(default_factory=list)
    macs: int = 0

    def __call__(self, view: View) -> Reduction | None:
        p, patches = view.n_prefix, len(view.sizes) - view.n_prefix
        if view.block != self.block or self.best + self.contextual >= patches:
            return None
        scores = class_scores(view)
        ranked = by_falling(scores)
        if 0 < self.best < patches:
            last, next_one = scores[ranked[self.best - 1]], scores[ranked[self.best]]
            self.margins.append(1 - next_one / last)
        stay = [*range(p), *(p + j for j in sorted(ranked[: self.best]))]
        rest = [p + j for j in sorted(ranked[self.best :])]
        members: dict[int, list[int]] = {}
        if self.contextual:
            members = self._assigned(view, rest)
        return self._built(view, stay, members)

    def _assigned(self, view: View, rest: list[int]) -> dict[int, list[int]]:
        """Each target with the tokens that go to it."""
        metric = view.keys.mean(dim=0)
        step = max(1, len(rest) // self.contextual)
        targets = [rest[step * i] for i in range(self.contextual)]
        members: dict[int, list[int]] = {target: [] for target in targets}
        for token in rest:
            if token in members:
                continue
            found = [cosine(metric[token], metric[target]) for target in targets]
            best = by_falling(found)
            if len(best) > 1:
                self.margins.append(found[best[0]] - found[best[1]])
            members[targets[best[0]]].append(token)
            self.macs += len(targets) * metric.shape[1]
        return members

    def _built(self, view: View, stay: list[int], members: dict[int, list[int]]) -> Reduction:
        destination = torch.full((len(view.sizes),), -1)
        destination[stay] = torch.arange(len(stay))
        tokens, sizes = [view.tokens[t] for t in stay], [float(view.sizes[t]) for t in stay]
        for target, came in members.items():
            destination[[target, *came]] = len(tokens)
            token, size = view.tokens[target], float(view.sizes[target])
            if came:
                token = token + sum(view.tokens[t] for t in came) / len(came)
                size += sum(float(view.sizes[t]) for t in came)
                self.macs += (1 + len(came)) * view.tokens.shape[1]
            tokens.append(token)
            sizes.append(size)
        return Reduction(torch.stack(tokens), torch.tensor(sizes).double(), destination)
