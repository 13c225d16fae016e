"""The options of ASAP, and which values are possible."""

import math
from dataclasses import dataclass
from typing import ClassVar

from asap.core.otsu import MOST_CLUSTERS
from asap.methods.base import Anatomy, Method, choice, require


@dataclass(frozen=True)
class AsapOptions(Method):
    """Every choice that the paper leaves open, its ablations, and extensions of ours (marked *).

    alpha: weight of attention against staying, in (0, 1].
    tau: threshold on the column mass, above 0.
    clusters: K, at least 2; "auto"*: per image, from Otsu's threshold on the normalised distance.
    background: number of nearest clusters that are removed, below K.
    pool: append their weighted mean as the last token; False drops them.
    anchor: "sink", "mass" (the patch with the largest column mass), "random", "pca" (nearest to the
        mean of the patches' rows of P on their first two principal components) or "quiet"* (the
        smallest column mass).
    accumulate: False takes anchor and distances from the stop block's attention alone.
    order: "walk" (P T) or "rollout" (T P). columns: "patches" or "all" may exceed tau.
    min_block, max_block: where the stop is allowed, numbers from 1; min_block None = the same as
        max_block, max_block None = the last but one.
    miss: for an image that never exceeds tau: "dense", or "force": it stops at max_block.
    position: "after_attention" (before the stop block's MLP) or "after_block".
    distance: "diffusion" or "self_aligned"* (self-mass against self-mass).
    normalise: "minmax_others" or "max". binning: "width" or "rank".
    distance_columns: "all" or "patches". temperature, weights ("raw", "normalised"): of pooling.
    max_tokens: most tokens made of patches, the pooled one included, in an image that stops: the
        foreground beyond it is dropped, by stride sampling unless there is a plug-in.
    plugin: None, or Algorithm 2 with distances between rows of P ("diffusion") or 1 - cosine of
        "features" or "keys" (mean over heads); needs max_tokens. kappa: tokens kept for the class
        token's row; None = half of max_tokens, rounded up. per_round: most tokens dropped at once.
    scores: that row: of the accumulated "walk" (of the block's attention without accumulation), or
        of the block's "attention". pair_order: how the plug-in lists the other tokens: by "index"
        (Algorithm 2), or from the highest score on, as VisPruner does ("attention").
    overhead: accumulate P over all blocks and reduce nothing (the paper's overhead table).
    seed: of the random anchor, with the image's id.
    """

    alpha: float = 0.5
    tau: float = 3.0
    clusters: int | str = 4
    background: int = 1
    pool: bool = True
    anchor: str = "sink"
    accumulate: bool = True
    order: str = "walk"
    columns: str = "patches"
    min_block: int | None = 1
    max_block: int | None = None
    miss: str = "dense"
    position: str = "after_attention"
    distance: str = "diffusion"
    normalise: str = "minmax_others"
    binning: str = "width"
    distance_columns: str = "all"
    temperature: float = 1.0
    weights: str = "raw"
    max_tokens: int | None = None
    plugin: str | None = None
    kappa: int | None = None
    per_round: int = 8
    proportional_attention: bool = False
    overhead: bool = False
    seed: int = 0
    scores: str = "walk"
    pair_order: str = "index"
    came_later: ClassVar[tuple[str, ...]] = ("scores", "pair_order")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.alpha <= 1, "alpha", self.alpha, "in (0, 1]")
        for name in ("tau", "temperature"):
            value = getattr(self, name)
            require(0 < value < math.inf, name, value, "above 0 and finite")
        require(self.seed >= 0, "seed", self.seed, "at least 0")
        first, last = 1 if self.min_block is None else self.min_block, self.max_block
        require(first >= 1, "min_block", first, "at least 1")
        wanted = "at least 1" if self.min_block is None else "at least min_block"
        require(last is None or last >= first, "max_block", last, wanted)
        choice("anchor", self.anchor, "sink", "mass", "random", "pca", "quiet")
        choice("order", self.order, "walk", "rollout")
        choice("columns", self.columns, "patches", "all")
        choice("miss", self.miss, "dense", "force")
        choice("position", self.position, "after_attention", "after_block")
        choice("distance", self.distance, "diffusion", "self_aligned")
        choice("normalise", self.normalise, "minmax_others", "max")
        choice("binning", self.binning, "width", "rank")
        choice("distance_columns", self.distance_columns, "all", "patches")
        choice("weights", self.weights, "raw", "normalised")
        self._check_clusters()
        self._check_budget()

    def _check_clusters(self) -> None:
        auto = self.clusters == "auto"
        possible = auto or (isinstance(self.clusters, int) and self.clusters >= 2)
        require(possible, "clusters", self.clusters, "at least 2, or auto")
        fits = not auto or self.binning == "width"
        require(fits, "binning", self.binning, "width with clusters='auto'")
        most = (MOST_CLUSTERS if auto else int(self.clusters)) - 1
        require(1 <= self.background <= most, "background", self.background, f"in 1..{most}")

    def _check_budget(self) -> None:
        least = 2 if self.pool else 1
        enough = self.max_tokens is None or self.max_tokens >= least
        reason = f"at least {least} {'with' if self.pool else 'without'} a pooled token"
        require(enough, "max_tokens", self.max_tokens, reason)
        words = ("diffusion", "features", "keys")
        known = self.plugin is None or self.plugin in words
        require(known, "plugin", self.plugin, "None or one of " + ", ".join(words))
        budgeted = self.plugin is None or self.max_tokens is not None
        require(budgeted, "plugin", self.plugin, "None without max_tokens")
        if self.kappa is not None:
            require(self.plugin is not None, "kappa", self.kappa, "None without plugin")
            most = self.foreground_budget
            require(0 <= self.kappa <= most, "kappa", self.kappa, f"in 0..{most}")
        require(self.per_round >= 1, "per_round", self.per_round, "at least 1")
        for name, plain in (("scores", "walk"), ("pair_order", "index")):
            value = getattr(self, name)
            choice(name, value, plain, "attention")
            used = self.plugin is not None or value == plain
            require(used, name, value, f"{plain} without plugin")

    @property
    def foreground_budget(self) -> int:
        """Most foreground tokens; only with `max_tokens`."""
        assert self.max_tokens is not None
        return self.max_tokens - self.pool

    def check(self, anatomy: Anatomy) -> None:
        if not anatomy.class_token:
            for needed, option, remedy in (
                (self.anchor == "sink", "anchor='sink'", "anchor='mass'"),
                (self.plugin is not None, f"plugin={self.plugin!r}", "plugin=None"),
            ):
                if needed:
                    raise ValueError(
                        f"{option} needs a class token, which {anatomy.name} has not: use {remedy}"
                    )
        last = self.last_block(anatomy.depth)
        require(last <= anatomy.depth, "max_block", last, f"at most {anatomy.depth}")
        first = self.first_block(anatomy.depth)
        require(first <= last, "min_block", first, f"at most {last}")
        require(anatomy.patches >= 2, "patches", anatomy.patches, "at least 2")

    @property
    def static(self) -> bool:
        """True if all images stop in one block with equally many tokens, whatever they show."""
        one_block = self.min_block is None or self.min_block == self.max_block
        return one_block and self.miss == "force" and self.binning == "rank"

    def first_block(self, depth: int) -> int:
        """Number, from 1, of the first block where an image may stop."""
        return self.last_block(depth) if self.min_block is None else self.min_block

    def last_block(self, depth: int) -> int:
        """Number, from 1, of the last block where an image may stop."""
        return self.max_block if self.max_block is not None else max(depth - 1, 1)
