"""The method interface: a method decides, the engine applies.

A method is a frozen dataclass; its fields are its options. It states where it acts and what it
needs there, and answers two questions about a `Site` (some images of equal length at one block):
`observe`, which images are to be reduced now, and `reduce`, what becomes of their tokens. Moving
and averaging tokens, their sizes, the assignment of patches and the counting of MACs exist once, in
the engine.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor, nn

from asap.core.anatomy import Anatomy
from asap.methods.declared import Attention as Attention
from asap.methods.declared import Column, Declared, KeptState, Needs, StopThreshold, once_each
from asap.methods.option_checks import choice as choice
from asap.methods.option_checks import require as require
from asap.methods.search_space import SearchDimension

Position = Literal["before_block", "in_attention", "after_attention", "after_block"]
_BY_IMAGE = ("tokens", "sizes", "images", "attention", "keys", "values", "value_norms", "drawn")
Left = int | Int[Tensor, "b"]  # tokens left: one number known beforehand, or one for each image


@dataclass(frozen=True)
class Site:
    """b images with n tokens each, at one block.

    `tokens` (b, n, dim); `sizes` (b, n): patches each token stands for. `attention`: as asked for
    by `Needs.attention`, softmax shares in at least float32: (b, n, n) for all rows and the mean of
    heads, (b, heads, n, n) for each head, (b, n) and (b, heads, n) for the class row alone. `keys`,
    `values` (b, heads, n, head_dim); `value_norms` (b, patches), in at least float32. What a method
    does not need is None. `images` are indices into the batch, `image_ids` the images' names, for a
    method that draws at random; `drawn` what `Method.draw` drew, `state` whatever `Method.start`
    returned. `looks`: whether values on the device may be read without making it wait. `lengths`
    (b,): tokens of each image, n being at least the most, for a method with `mixed_lengths` alone;
    behind an image's last token attention is 0, and all else has any content. None: n tokens each.
    """

    anatomy: Anatomy
    block: int  # index from 0
    tokens: Float[Tensor, "b n dim"]
    sizes: Float[Tensor, "b n"]
    images: Int[Tensor, "b"]
    image_ids: Sequence[int] | None = None
    attention: Float[Tensor, "b *rows n"] | None = None
    keys: Float[Tensor, "b heads n d"] | None = None
    values: Float[Tensor, "b heads n d"] | None = None
    value_norms: Float[Tensor, "b patches"] | None = None
    drawn: Shaped[Tensor, "b *drawn"] | None = None
    state: Any = None
    looks: bool = True
    watched: Bool[Tensor, "b"] | None = None
    lengths: Int[Tensor, "b"] | None = None

    @property
    def prefix(self) -> int:
        return self.anatomy.prefix

    @property
    def length(self) -> int:
        return self.tokens.shape[1]

    def of(self, rows: Int[Tensor, "k"]) -> "Site":
        """The site with some of its images only: those at positions `rows`, read by the host."""
        ids = None if self.image_ids is None else [self.image_ids[i] for i in rows.tolist()]
        shown = {name: getattr(self, name) for name in _BY_IMAGE}
        parts = {name: x[rows] for name, x in shown.items() if x is not None}
        return replace(self, image_ids=ids, **parts)

    def worth(self, wanted: Bool[Tensor, "b"]) -> Int[Tensor, "k"]:
        """Positions of the images to compute something for that only the `wanted` ones need.

        Where a look is free, those images alone; else all, since a look would cost more.
        """
        if self.looks:
            return wanted.nonzero()[:, 0]
        return torch.arange(len(wanted), device=wanted.device)


@dataclass(frozen=True)
class Observation:
    """What a look at a site's b images found.

    `chosen` (b,): the images to be reduced at this block, on the device; None = none of them, True
    = all of them, both known without looking. `macs` (b,) or one number: what the look cost each
    image. `diagnostics`: values of the method's `trace_columns`, (b,) each.
    """

    chosen: Bool[Tensor, "b"] | Literal[True] | None
    macs: int | Int[Tensor, "b"] = 0
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Decision:
    """What becomes of the tokens of a site's images; it counts for the chosen ones only.

    `target` (b, n): output position of each token, -1 = dropped; an output token is the weighted
    sum of the tokens sent to it, `weight` (b, n) being 1 where None. `left`: tokens left; one
    number if it is known beforehand, which spares the device a wait, else (b,). With `final`, the
    images are not shown to the method again. `macs` (b,) or one number: the method's own work on
    each image, averaging not included (the engine counts that). `diagnostics`: values of the
    method's `trace_columns`, (b,) each. At position "in_attention" tokens can be dropped and put in
    another order, not averaged.
    """

    target: Int[Tensor, "b n"]
    left: Left
    weight: Float[Tensor, "b n"] | None = None
    final: bool = False
    macs: int | Int[Tensor, "b"] = 0
    diagnostics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Sharing:
    """What a setting has in common with other settings of its method.

    In a joint pass (see `asap.shared_prefix`) images go through the dense blocks once for all
    settings. observer, reducer: a setting that observes, or reduces, exactly as this one does; the
    same for all settings that do so alike, so that each is asked once. A reducer reduces an image
    for good or not at all. state: equal for settings that use the same state; equal observers have
    equal states, and so have equal reducers that use a state. A method that shares acts in every
    block up to its last one, after the attention or after the block.
    """

    observer: "Method"
    reducer: "Method"
    state: Hashable = None


@dataclass(frozen=True)
class Method(Declared):
    """Base of every method. Class attributes describe how it works; fields are its options.

    Impossible options raise ValueError at construction, those unfit for a backbone in `check`.
    """

    method_version: ClassVar[int] = 1  # raised by hand when results change
    trace_columns: ClassVar[tuple[Column, ...]] = ()  # values it may put into `diagnostics`
    explains: ClassVar[bool] = False  # it implements `explain`
    came_later: ClassVar[tuple[str, ...]] = ()  # options that are no part of a key at their default
    class_row_to_llm: ClassVar[bool] = False  # its budget counts the class token, which is sent
    own_order: ClassVar[bool] = False  # a language model reads its tokens in their final order
    no_knobs: ClassVar[str] = "has no knob that calibration could turn"  # why the space is empty
    # The next have no annotation, so that options can be these, or decide on them.
    same_cost = False  # every image costs the same, except for averaged rows
    position = "after_attention"  # a `Position`; "in_attention": between softmax and values
    proportional_attention = False  # adds log(size) to the attention logits
    mixed_lengths = False  # `reduce` works by `Site.lengths`, without state: for a recorded pass
    decides_on_device = True  # False: its answers need the host; a GPU records all but these
    softmax_epsilon = 0.0  # "in_attention", where it acts: softmax (e + eps / n) / (sum e + eps)

    def __post_init__(self) -> None:
        """As of every `Declared`; ValueError also for two `trace_columns` of one name."""
        super().__post_init__()
        once_each(self.trace_columns)

    @property
    def needs(self) -> Needs:
        """The attention, keys and values that it reads in the blocks where it acts."""
        return Needs()

    @property
    def draws(self) -> bool:
        """True if it draws at random, so that image ids are required."""
        return False

    def check(self, anatomy: Anatomy) -> None:
        """Raise ValueError if these options do not fit the backbone."""

    def check_weights(self, backbone: nn.Module) -> None:
        """Raise ValueError if the method was trained together with other weights."""

    def identity(self) -> dict[str, Any]:
        """All options as they go into records and keys; a file stands there by its digest.

        Those that `came_later` are left out at their default, so that older records keep their key.
        """
        later = {f.name: f.default for f in fields(self) if f.name in self.came_later}
        return {k: v for k, v in asdict(self).items() if k not in later or v != later[k]}

    def search_space(self, anatomy: Anatomy) -> tuple[SearchDimension, ...]:
        """The options that calibration varies to meet a MACs budget, with their grids."""
        return ()

    def placeless(self, patches: int) -> int:
        """How many of its last tokens have no place in the picture, whatever they stand for."""
        return 0

    def acts_in(self, block: int, depth: int) -> bool:
        """True if the method is to be asked in block `block` (index from 0) of `depth`."""
        return True

    def start(self, anatomy: Anatomy, images: int, like: Tensor) -> Any:
        """State for one forward pass over `images` images; `like` gives dtype and device."""
        return None

    def kept_state(self, anatomy: Anatomy, images: int, like: Tensor) -> KeptState | None:
        """State in fixed memory, for a method that observes and whose decisions may be recorded.

        Its questions are then asked about all images, also those reduced before, whose answers do
        not count; they are tensor operations on site and state, and decisions final. None: with a
        `start` of its own it is asked step by step, between recorded parts.
        """
        return None

    def draw(self, anatomy: Anatomy, image_ids: Sequence[int]) -> Shaped[Tensor, "b *drawn"] | None:
        """What a method that `draws` draws for these images, on the CPU: `Site.drawn` shows it.

        None: it draws when it decides, from `Site.image_ids`, and step by step.
        """
        return None

    def observe(self, site: Site) -> Observation | None:
        """Which of these images are to be reduced at this block; cheap, and without a look.

        None = all of them, with nothing to watch: a method with a fixed schedule leaves it so and
        implements only `reduce`. It is called once for every group of images of equal length, so
        several times in a block; state must be kept per image (`site.images`).
        """
        return None

    def reduce(self, site: Site, chosen: Bool[Tensor, "b"] | None) -> Decision | None:
        """What becomes of the tokens of these images; None = they stay as they are.

        `chosen` None: all images of the site are to be reduced. Else a mask on the device of those
        that `observe` chose: the decision about the others is ignored, but computing it must not
        fail. Where looking is free, the engine looks first and shows the chosen images alone.
        """
        raise NotImplementedError(f"{type(self).__name__}.reduce")

    @property
    def sharing(self) -> Sharing | None:
        """What it shares with other settings in a joint pass; None: it runs alone."""
        return None

    @property
    def stop_threshold(self) -> StopThreshold | None:
        """How its costs can be forecast; None: they have to be measured.

        A method that gives one implements `observe`, and its state can be shared by settings.
        """
        return None

    def start_shared(self, anatomy: Anatomy, images: int, like: Tensor) -> Any:
        """As `start`, but for a state that several settings use in a joint pass.

        Each setting observes the same sites: an image that one has reduced is shown to the others.
        """
        return self.start(anatomy, images, like)

    def explain(self, site: Site) -> Mapping[str, Tensor]:
        """What pictures show of a site's images after `observe`, for a method that `explains`.

        "walk" (b, n, n) and its "class_row" (b, n); "anchor" (b,), a patch; "distance" to it and
        "cluster", (b, patches) each.
        """
        return {}

    def metrics(self, traces: Mapping[str, np.ndarray]) -> Mapping[str, float]:
        """The method's own numbers about many images, by name, for the metrics of their record.

        `traces`: its `trace_columns` by name, (images,) each, (images, blocks) where per block; -1
        and NaN where an image has no value. A metric that is not finite is left out of the record,
        with a warning; a name that records or tables have already is refused (ValueError).
        """
        return {}


def keep_only(kept: Bool[Tensor, "b n"]) -> Int[Tensor, "b n"]:
    """The target that keeps some tokens, in their order, and drops the others."""
    return (kept.long().cumsum(1) - 1).masked_fill(~kept, -1)


def generator(seed: int, image_id: int) -> torch.Generator:
    """A generator that depends on the seed and the image alone."""
    words = np.random.SeedSequence([seed, image_id & (2**64 - 1)]).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(words[0]) & (2**63 - 1))
