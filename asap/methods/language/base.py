"""The interface of pruners: a pruner decides which visual rows stay, the decoder applies it.

A pruner is a frozen dataclass; its fields are its options. After each decoder layer where it acts,
during the prefill of one question, it is shown a `LanguageSite` and answers with a
`LanguageDecision`. Running layers, moving rows, their positions and caches, and counting the rows
of attention that were asked for exist once, in `engine/decoder`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.methods.declared import Declared

Shares = Callable[[Int[Tensor, "r"]], Float[Tensor, "heads r n"]]
BEFORE_FIRST = -1  # the number of the "layer" whose output are the rows that enter layer 0


@dataclass(frozen=True)
class Span:
    """How many rows come before the visual rows, how many visual rows there are now, and behind."""

    prefix: int
    visual: int
    suffix: int

    @property
    def end(self) -> int:
        """Index of the first row behind the visual rows."""
        return self.prefix + self.visual

    @property
    def length(self) -> int:
        return self.end + self.suffix


@dataclass(frozen=True)
class LanguageSite:
    """The rows of one question after a layer of the language model.

    layer: the layer that has just been run, from 0; `BEFORE_FIRST`: none yet. depth: layers of the
    model. rows (n, dim): its output, n = `span.length`. shares: gives the attention of query rows
    (indices (r,) into the rows) in this layer, (heads, r, n) softmax shares over the keys up to the
    row itself, 0 behind, float32, or float64 in a float64 model; None before the first layer. What
    it computes is counted by the decoder. state: whatever `Pruner.start` returned.
    """

    layer: int
    depth: int
    rows: Float[Tensor, "n dim"]
    span: Span
    shares: Shares | None = None
    state: Any = None


@dataclass(frozen=True)
class LanguageDecision:
    """What becomes of the visual rows.

    keep: visual rows that stay, ascending indices into the visual span (0: its first row). All
    other rows of the question stay anyhow. merged (m, dim): new rows, each a weighted sum of rows,
    put behind the visual rows that stay. positions: the rows "keep" their positions, or all
    positions count anew from 0 ("reindex", which merged rows require). macs: the pruner's own work,
    without the attention from `LanguageSite.shares`, which the decoder counts.
    """

    keep: Int[Tensor, "kept"]
    merged: Float[Tensor, "m dim"] | None = None
    positions: Literal["keep", "reindex"] = "keep"
    macs: int = 0

    def __post_init__(self) -> None:
        if self.merged is not None and self.positions != "reindex":
            raise ValueError("merged rows have no positions of their own: use positions='reindex'")


@dataclass(frozen=True)
class Pruner(Declared):
    """Base of every pruner. Class attributes describe it; fields are its options.

    Options with impossible values raise ValueError at construction; options that do not fit a
    model raise it in `check`.
    """

    pruner_version: ClassVar[int] = 1  # raised by hand when results change
    needs_objects: ClassVar[bool] = False  # `start` is given masks of objects

    def identity(self) -> dict[str, Any]:
        """All options as they go into records and keys."""
        return asdict(self)

    def check(self, depth: int, visual_rows: int) -> None:
        """Raise ValueError if these options do not fit a model of `depth` layers.

        visual_rows: the most visual rows that a question can have.
        """

    def acts_after(self, layer: int, depth: int) -> bool:
        """True if the pruner is to be asked after `layer` (from 0; `BEFORE_FIRST`) of `depth`."""
        raise NotImplementedError(f"{type(self).__name__}.acts_after")

    def start(
        self, rows: Float[Tensor, "n dim"], span: Span, objects: Bool[Tensor, "visual"] | None
    ) -> Any:
        """State for one question, from the rows that enter the first layer.

        objects: which visual rows hold mostly patches of objects; None where the data do not say.
        Raises ValueError if the question lacks something that the pruner needs.
        """
        return None

    def decide(self, site: LanguageSite) -> LanguageDecision | None:
        """Which visual rows stay; None: all of them."""
        raise NotImplementedError(f"{type(self).__name__}.decide")
