"""What the host knows of a pass between two blocks."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from asap.engine.attention import Heads


@dataclass(frozen=True)
class Layout:
    """The packed rows, as far as the host knows them.

    rows: at most so many; longest: no image has more tokens; length: of every image, None if they
    may differ. watching: the method is still asked. merged: a token may stand for several patches.
    side: which side of the memory holds the tokens and the plan.
    """

    rows: int
    longest: int
    length: int | None
    watching: bool
    merged: bool = False
    side: int = 0


@dataclass(frozen=True)
class Stop:
    """A stage that ended at a block's decision, and the layout before it.

    weighted: the decision averages tokens. settled: the residual is in the rows already.
    """

    block: int
    layout: Layout
    weighted: bool
    settled: bool = False


@dataclass(frozen=True)
class Question:
    """A stage that ended before a block's decision, and what the method may see of its attention.

    settled: as in `Stop`.
    """

    block: int
    layout: Layout
    settled: bool
    seen: "tuple[Heads | None, Tensor | None]"


@dataclass(frozen=True)
class Planned:
    """A decision whose plan is made: its weights (None: all are 1), and the layout after it, None
    if the host does not know it yet.
    """

    weight: Float[Tensor, "b n"] | None
    after: Layout | None


@dataclass
class Flow:
    """The pass at some point: the layout, the residual that is not added yet, whether the rows have
    gone through the norm that comes next, and what the method may see of the block's attention.
    """

    layout: Layout
    update: Float[Tensor, "rows dim"] | None = None
    normed: bool = False
    seen: tuple[Heads | None, Tensor | None] = (None, None)
