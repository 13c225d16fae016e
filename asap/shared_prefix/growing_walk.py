"""The lazy walk of a trunk's images, whose P several settings ask for in several blocks."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from asap.core.transition import first_walk, start_vectors, walk_on
from asap.methods.asap.walk import VectorWalk, Walk, make_walk


@dataclass
class GrowingWalk(VectorWalk):
    """Goes on with an image's P where it was last asked for, by the same products.

    The MACs it reports are those of a walk that is asked once, as in a run of its own.
    """

    grown: dict[int, int] = field(default_factory=dict)  # image -> maps that are in its P
    held: list[Tensor] = field(default_factory=list)  # P of all images, made when first needed

    def matrix(self, images: Int[Tensor, "k"]) -> tuple[Float[Tensor, "k n n"], int]:
        rows = torch.stack(self.places)[:, images]
        shown = (rows[:, 0] >= 0).nonzero()[:, 0].tolist()
        if not self.held:
            count, tokens = len(self.vectors), self.vectors.shape[-1]
            self.held.append(self.vectors.new_zeros(count, tokens, tokens))
        walk = self.held[0]
        names = images.tolist()
        for step, call in enumerate(shown):
            behind = [i for i, name in enumerate(names) if self.grown.get(name, 0) == step]
            if not behind:
                continue
            who = images[behind]
            attention = self.maps[call][rows[call, behind]]
            if step == 0:
                walk[who] = first_walk(attention, self.alpha)
            else:
                walk[who] = walk_on(walk[who], attention, self.alpha)
            self.grown |= dict.fromkeys((names[i] for i in behind), step + 1)
        return walk[images], (len(shown) - 1) * walk.shape[-1] ** 3


def shared_walk(order: str, alpha: float, images: int, tokens: int, like: Tensor) -> Walk:
    """The walk for an order; `like` gives dtype and device."""
    if order == "walk":
        return GrowingWalk(alpha, start_vectors(images, tokens, like))
    return make_walk(order, alpha, False, images, tokens, like)
