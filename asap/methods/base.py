"""The method interface: a method decides, the executor applies.

A method is a frozen dataclass; its fields are its options. It says what it needs from a block and
where it acts, looks at a `Site` (some images of equal length at one block), and answers with a
`Decision`: the output position of every token, and its weight there. Moving and averaging tokens,
their sizes, the assignment of patches and the counting of MACs exist once, in the engine.
"""

import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from asap.core.anatomy import Anatomy
from asap.methods.search_space import Knob

Position = Literal["before_block", "in_attention", "after_attention", "after_block"]
Need = Literal["attention", "attention_heads", "keys", "values"]


@dataclass(frozen=True)
class Site:
    """b images with n tokens each, at one block.

    `tokens` (b, n, dim); `sizes` (b, n): patches each token stands for; `attention` (b, n, n):
    attention averaged over heads, rows sum to 1, in at least float32; `attention_heads` (b, heads,
    n, n): before averaging; `keys`, `values` (b, heads, n, head_dim). What a method does not need
    is None. `images` are indices into the batch, `image_ids` the images' names for random draws,
    `state` whatever `Method.start` returned.
    """

    anatomy: Anatomy
    block: int  # index from 0
    tokens: Float[Tensor, "b n dim"]
    sizes: Float[Tensor, "b n"]
    images: Int[Tensor, "b"]
    image_ids: Sequence[int] | None = None
    attention: Float[Tensor, "b n n"] | None = None
    attention_heads: Float[Tensor, "b heads n n"] | None = None
    keys: Float[Tensor, "b heads n d"] | None = None
    values: Float[Tensor, "b heads n d"] | None = None
    state: Any = None

    @property
    def prefix(self) -> int:
        return self.anatomy.prefix

    @property
    def length(self) -> int:
        return self.tokens.shape[1]


@dataclass(frozen=True)
class Decision:
    """What becomes of the tokens of a site's b images.

    `target` (b, n): output position of each token, -1 = dropped; an output token is the weighted
    sum of the tokens sent to it, `weight` (b, n) being 1 where None. `lengths`: tokens left per
    image. `reduced` (b,): the images concerned, all where None; the others stay as they are. With
    `final`, the reduced images are not shown to the method again. `macs` (b,) or one number: the
    method's own work at this site, averaging not included (the engine counts that).
    `notes`: trace entries, (b,) each. At position "in_attention" tokens can be dropped and put in
    another order, not averaged.
    """

    target: Int[Tensor, "b n"] | None = None
    lengths: tuple[int, ...] = ()
    weight: Float[Tensor, "b n"] | None = None
    reduced: Bool[Tensor, "b"] | None = None
    final: bool = False
    macs: int | Int[Tensor, "b"] = 0
    notes: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """Base of every method. Class attributes say what it needs; fields are its options.

    Options with impossible values raise ValueError at construction; options that do not fit a
    backbone raise it in `check`.
    """

    method_version: ClassVar[int] = 1  # raised by hand when results change
    needs: ClassVar[frozenset[Need]] = frozenset()
    draws: ClassVar[bool] = False  # draws at random, so image ids are required
    reduces: ClassVar[bool] = True
    same_cost: ClassVar[bool] = False  # every image costs the same, but for averaged rows
    no_knobs: ClassVar[str] = "has no knob that calibration could turn"  # why, if there is none
    # without annotations, so that a method may make them options of its own, in its own order
    extension = False  # these options are none of a paper's: tables mark the row
    position = "after_attention"  # a `Position`; "in_attention": between softmax and values
    proportional_attention = False  # adds log(size) to the attention logits
    softmax_epsilon = 0.0  # "in_attention", where it acts: softmax (e + eps / n) / (sum e + eps)

    def __post_init__(self) -> None:
        """Raise ValueError for an option of the wrong kind; subclasses add their ranges."""
        for option in fields(self):
            value = getattr(self, option.name)
            require(_is_a(value, option.type), option.name, value, f"of type {_name(option.type)}")

    def check(self, anatomy: Anatomy) -> None:
        """Raise ValueError if these options do not fit the backbone."""

    def check_weights(self, backbone: nn.Module) -> None:
        """Raise ValueError if the method was trained for a backbone with other weights."""

    def identity(self) -> dict[str, Any]:
        """All options, as they go into records and keys: content in the place of paths."""
        return asdict(self)

    def knobs(self, anatomy: Anatomy) -> tuple[Knob, ...]:
        """The options that calibration varies to meet a MACs budget, with their grids."""
        return ()

    def acts_in(self, block: int, depth: int) -> bool:
        """Whether the method wants to see block `block` (index from 0) of `depth`."""
        return True

    def start(self, anatomy: Anatomy, images: int, like: Tensor) -> Any:
        """State for one forward pass over `images` images; `like` gives dtype and device."""
        return None

    def decide(self, site: Site) -> Decision | None:
        """The decision for these images at this block; None = leave them as they are.

        Called once for every run of images of equal length, so several times a block: what a
        method remembers, it remembers per image (`site.images`).
        """
        raise NotImplementedError(f"{type(self).__name__}.decide")


def _name(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) else str(kind)


def _is_a(value: Any, kind: Any) -> bool:
    """Whether an option's value is of its annotated type; types not listed here pass."""
    if isinstance(kind, types.UnionType):
        return any(_is_a(value, part) for part in typing.get_args(kind))
    if kind is types.NoneType:
        return value is None
    if kind is bool or isinstance(value, bool):
        return isinstance(value, bool) and kind not in (int, float, str)
    kinds = {int: int, float: (int, float), str: str}.get(kind)
    return kinds is None or isinstance(value, kinds)


def keep_only(kept: Bool[Tensor, "b n"]) -> tuple[Int[Tensor, "b n"], tuple[int, ...]]:
    """Target and lengths that keep some tokens, in their order, and drop the others."""
    target = (kept.long().cumsum(1) - 1).masked_fill(~kept, -1)
    return target, tuple(kept.sum(1).tolist())


def require(holds: bool, name: str, value: Any, allowed: str) -> None:
    """Raise ValueError that names an option, its value and what is allowed."""
    if not holds:
        raise ValueError(f"{name}={value!r} is not possible: {name} must be {allowed}")


def choice(name: str, value: Any, *allowed: str) -> None:
    """Raise ValueError unless the option is one of the allowed words."""
    require(value in allowed, name, value, "one of " + ", ".join(allowed))


def generator(seed: int, image_id: int) -> torch.Generator:
    """A generator that depends on the seed and the image alone."""
    import numpy as np

    words = np.random.SeedSequence([seed, image_id & (2**64 - 1)]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0]) & (2**63 - 1))
