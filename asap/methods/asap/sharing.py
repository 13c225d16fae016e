"""What settings of ASAP have in common, and the walk that they share (see `asap.shared_prefix`).

Until an image stops, it does not depend on tau, on K or on what is done at the stop, and its column
masses depend on alpha and order alone.
"""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.core.transition import first_walk, start_vectors, walk_on
from asap.methods.asap.options import AsapOptions
from asap.methods.asap.walk import VectorWalk, Walk, make_walk
from asap.methods.base import Sharing


def sharing_of(options: AsapOptions) -> Sharing:
    """What a setting shares with others: options without influence are set to their defaults."""
    plain = type(options)()
    observer = replace(
        plain,
        alpha=options.alpha,
        order=options.order,
        columns=options.columns,
        tau=options.tau,
        min_block=options.min_block,
        max_block=options.max_block,
        miss=options.miss,
    )
    same = ["tau", "min_block", "max_block", "miss", "columns"]
    if not options.accumulate:
        same += ["alpha", "order"]
    if options.anchor != "random":
        same += ["seed"]
    if not options.pool:
        same += ["temperature", "weights"]
    reducer = replace(options, **{name: getattr(plain, name) for name in same})
    return Sharing(observer, reducer, (options.order, options.alpha))


@dataclass
class SharedWalk:
    """A walk that several settings advance: it takes a step for the first one at each block.

    The others get the cost of that step.
    """

    walk: Walk
    shown: tuple[int, Tensor] | None = None  # block and map of the last step
    spent: int = 0

    def advance(
        self,
        attention: Float[Tensor, "b n n"],
        images: Int[Tensor, "b"],
        block: int,
        watched: Bool[Tensor, "b"] | None = None,
    ) -> int:
        if self.shown is None or self.shown[0] != block or self.shown[1] is not attention:
            self.spent = self.walk.advance(attention, images, block)
            self.shown = block, attention
        return self.spent

    def mass(self, images: Int[Tensor, "k"]) -> Float[Tensor, "k n"]:
        return self.walk.mass(images)

    def class_row(self, images: Int[Tensor, "k"]) -> Float[Tensor, "k n"]:
        return self.walk.class_row(images)

    def matrix(
        self, images: Int[Tensor, "k"], every_block: bool = False
    ) -> tuple[Float[Tensor, "k n n"], int]:
        return self.walk.matrix(images)


@dataclass
class GrowingWalk(VectorWalk):
    """Continues an image's P from the block where it was last asked for, by the same products.

    The MACs it reports are those of a walk that is asked once, as in a separate run.
    """

    grown_to: dict[int, int] = field(default_factory=dict)  # image -> maps that are in its P

    def matrix(
        self, images: Int[Tensor, "k"], every_block: bool = False
    ) -> tuple[Float[Tensor, "k n n"], int]:
        rows = torch.stack(self.places)[:, images]
        shown = (rows[:, 0] >= 0).nonzero()[:, 0].tolist()
        if not self.held:
            count, tokens = len(self.vectors), self.vectors.shape[-1]
            self.held.append(self.vectors.new_zeros(count, tokens, tokens))
        walk = self.held[0]
        names = images.tolist()
        for step, call in enumerate(shown):
            behind = [i for i, name in enumerate(names) if self.grown_to.get(name, 0) == step]
            if not behind:
                continue
            who = images[behind]
            attention = self.maps[call][rows[call, behind]]
            if step == 0:
                walk[who] = first_walk(attention, self.alpha)
            else:
                walk[who] = walk_on(walk[who], attention, self.alpha)
            self.grown_to |= dict.fromkeys((names[i] for i in behind), step + 1)
        return walk[images], (len(shown) - 1) * walk.shape[-1] ** 3


def shared_walk(order: str, alpha: float, images: int, tokens: int, like: Tensor) -> SharedWalk:
    """The walk for an order; `like` gives dtype and device."""
    if order == "walk":
        return SharedWalk(GrowingWalk(alpha, start_vectors(images, tokens, like)))
    return SharedWalk(make_walk(order, alpha, False, images, tokens, like))
