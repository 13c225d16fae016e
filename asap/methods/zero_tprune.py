"""Zero-TPrune, re-implemented, with a schedule of ours.

Wang, Dedhia and Jha, "Zero-TPrune: Zero-Shot Token Pruning through Leveraging of the Attention
Graph in Pre-Trained Transformers", CVPR 2024.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from asap.core.pagerank import among, best, most_similar, over_heads, page_rank, start_scores
from asap.methods.base import (
    Anatomy,
    Attention,
    Decision,
    Method,
    Needs,
    Site,
    choice,
    keep_only,
    require,
)
from asap.methods.search_space import DIGITS, SearchDimension

LAYERS, DEPTH = (1, 3, 6, 9, 11), 12  # our schedule, and the depth it was written for
SIMILAR, PATCHES = 10, 196  # removed by similarity, and the patches it was written for
# What one number of an option may be: type, range, and both in words.
NUMBERS = {
    "layers": (int, lambda v: v >= 1, "of whole numbers, at least 1 each"),
    "keep": ((int, float), lambda v: 0 < v <= 1, "of numbers in (0, 1]"),
    "similar": (int, lambda v: v >= 0, "of whole numbers, at least 0 each"),
    "iterations": (int, lambda v: v >= 1, "of whole numbers, at least 1 each"),
}


class Stage(NamedTuple):
    """One pruning layer: patches that S removes, patches left after I, PageRank steps of I."""

    similar: int
    left: int
    iterations: int


@dataclass(frozen=True)
class ZeroTPrune(Method):
    """Prunes patches between blocks, by PageRank on the attention graph of the block before.

    In one pruning layer, after the block: one vote ranks the patches (I'); of the less important
    half, those most similar to the other half are dropped (S); PageRank on the rest keeps the most
    important (I). The next block sees these in spatial order; nothing is merged.

    layers: numbers, from 1, of the blocks after which a layer prunes; None = 1, 3, 6, 9, 11, scaled
        to the depth.
    keep: share of the patches left after S that I keeps, in (0, 1]; the count is rounded down.
    similar: patches that S removes, at least 0; None = 10, scaled to the number of patches.
    iterations: PageRank steps of I. These three: one number, or a list with one for each layer.
    initial: "class" (the class token begins with sqrt(N) times the others' score; without a class
        token as uniform) or "uniform" (the authors' "-uni").
    low, high: only heads whose scores have a variance in this range count.

    No official code is public. Certain, as all descriptions agree: the order I', S, I; the initial
    scores; root mean square over heads; the range [0.01, 0.7]; which half is pruned; cosine of
    keys. Reconstructed: votes by A^T; scores of mean 1 (with sum 1 no head could pass); population
    variance over patches; all heads where none passes; A restricted to the survivors, its rows
    scaled to sum 1, before I; the keys of all heads side by side; spatial order; rounding. Ours:
    the schedule, without a search, so expect less accuracy than published; of an odd number the
    smaller half is pruned; prefix tokens vote, belong to neither half and always stay.
    """

    layers: Sequence[int] | None = None
    keep: float | Sequence[float] = (1.0, 0.85, 0.8, 0.7, 1.0)
    similar: int | Sequence[int] | None = None
    iterations: int | Sequence[int] = (30, 5, 5, 1, 1)
    initial: str = "class"
    low: float = 0.01
    high: float = 0.7
    position = "after_block"
    same_cost = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, (kind, inside, allowed) in NUMBERS.items():
            value = getattr(self, name)
            many = value if isinstance(value, tuple) else (value,)
            if value is None and name in ("layers", "similar"):
                continue
            fits = isinstance(value, tuple) or name != "layers"
            numbers = all(isinstance(v, kind) and not isinstance(v, bool) for v in many)
            require(fits and numbers and all(map(inside, many)), name, value, allowed)
        layers = LAYERS if self.layers is None else tuple(self.layers)
        require(layers == tuple(sorted(set(layers))), "layers", layers, "ascending, each once")
        for name in ("keep", "similar", "iterations"):
            value = getattr(self, name)
            fits = not isinstance(value, tuple) or len(value) == len(layers)
            require(fits, name, value, f"one number or {len(layers)}, one for each layer")
        require(self.high >= 0, "high", self.high, "at least 0")
        require(0 <= self.low <= self.high, "low", self.low, f"in [0, high={self.high}]")
        choice("initial", self.initial, "class", "uniform")

    @property
    def needs(self) -> Needs:
        return Needs(Attention("all", "each"), keys=True, tokens=False)

    def check(self, anatomy: Anatomy) -> None:
        layers, depth = self._layers(anatomy.depth), anatomy.depth
        differ = len(set(layers)) == len(layers)
        listed = f"a list: {LAYERS} of {DEPTH} blocks coincide, scaled to {depth}"
        require(differ, "layers", self.layers, listed)
        require(max(layers, default=1) <= depth, "layers", self.layers, f"at most {depth} each")
        before = anatomy.patches
        for layer, (similar, left, _) in self.stages(anatomy).items():
            half = f"at most {before // 2}, half of the patches, after block {layer}"
            require(similar <= before // 2, "similar", self.similar, half)
            require(left >= 1, "keep", self.keep, f"larger, to leave a patch after block {layer}")
            before = left

    def search_space(self, anatomy: Anatomy) -> tuple[SearchDimension, ...]:
        """The shares of `keep`, more or less of them: every one to the same power."""
        layers = self._layers(anatomy.depth)
        keep: Any = self.keep
        shares = keep if isinstance(keep, tuple) else (keep,) * len(layers)
        if min(shares, default=1.0) == 1:  # no power changes those
            shares = (0.8,) * len(layers)
        powers = [step / 20 for step in range(80)]
        grid = [tuple(float(f"{s**p:.{DIGITS}g}") for s in shares) for p in powers]
        usual = int(SIMILAR * anatomy.patches / PATCHES + 0.5)
        beyond = tuple({0, usual // 2, 2 * usual} - {self.similar, usual})
        fitting = tuple(v for v in dict.fromkeys(grid) if self._fits("keep", v, anatomy))
        wider = tuple(v for v in beyond if self._fits("similar", v, anatomy))
        knobs = [SearchDimension("keep", fitting)] if fitting else []
        return (*knobs, *([SearchDimension("similar", beyond=wider)] if wider else []))

    def _fits(self, name: str, value: Any, anatomy: Anatomy) -> bool:
        try:
            replace(self, **{name: value}).check(anatomy)
        except ValueError:
            return False
        return True

    def _layers(self, depth: int) -> tuple[int, ...]:
        if self.layers is not None:
            return tuple(self.layers)
        return tuple(max(1, layer * depth // DEPTH) for layer in LAYERS)

    def stages(self, anatomy: Anatomy) -> dict[int, Stage]:
        """What each pruning layer does, by the number of the block before it."""
        layers = self._layers(anatomy.depth)
        usual = int(SIMILAR * anatomy.patches / PATCHES + 0.5)
        options = (self.keep, usual if self.similar is None else self.similar, self.iterations)
        each: Any = [v if isinstance(v, tuple) else (v,) * len(layers) for v in options]
        found, patches = {}, anatomy.patches
        for layer, share, similar, iterations in zip(layers, *each, strict=True):
            patches = int(share * (patches - similar) + 1e-9)  # 0.29 of 100 is 29
            found[layer] = Stage(similar, patches, iterations)
        return found

    def acts_in(self, block: int, depth: int) -> bool:
        return block + 1 in self._layers(depth)

    def reduce(self, site: Site, chosen: Tensor | None) -> Decision | None:
        stage, prefix, n = self.stages(site.anatomy)[site.block + 1], site.prefix, site.length
        maps, keys, macs = site.attention, site.keys, 0
        assert maps is not None and keys is not None
        left = torch.arange(n, device=maps.device).repeat(len(maps), 1)
        if stage.similar:
            votes = self._importance(site, maps, 1)
            whole = keys[:, :, prefix:].to(maps.dtype).transpose(1, 2).flatten(2)
            dropped = most_similar(whole, votes, stage.similar)
            left = best((~dropped).to(maps.dtype), n - prefix - stage.similar, prefix)
            half = (n - prefix) // 2
            macs += maps[0].numel() + half * (n - prefix - half) * whole.shape[2]
        if stage.left < left.shape[1] - prefix:
            graph = among(maps, left)
            ranks = self._importance(site, graph, stage.iterations)
            left = left.gather(1, best(ranks, stage.left, prefix))
            macs += graph[0].numel() * stage.iterations
        if left.shape[1] == n:
            return None
        kept = torch.zeros(len(left), n, dtype=torch.bool, device=left.device)
        return Decision(keep_only(kept.scatter(1, left, True)), left.shape[1], macs=macs)

    def _importance(
        self, site: Site, maps: Float[Tensor, "b heads m m"], iterations: int
    ) -> Float[Tensor, "b patches"]:
        emphasised = self.initial == "class" and site.anatomy.class_token
        start = start_scores(maps.shape[-1], emphasised, maps)
        ranks = page_rank(maps, start, iterations)
        return over_heads(ranks, site.prefix, self.low, self.high)
