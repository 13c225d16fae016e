"""Methods of one's own, as a user writes them: what they read, where, and what a GPU cannot record.

The examples of the documentation, and what they do not do.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from asap.methods.base import (
    Anatomy,
    Attention,
    Column,
    Decision,
    Method,
    Needs,
    Observation,
    Site,
    generator,
    keep_only,
)
from examples.norm_top_k import NormTopK
from examples.similarity import Similarity


def best(site: Site, scores: Tensor, left: int) -> Decision:
    """Keep the patches with the largest scores, `left` tokens in all."""
    ranked = scores.argsort(dim=1, descending=True, stable=True)[:, : left - site.prefix]
    kept = torch.zeros_like(site.sizes, dtype=torch.bool)
    kept[:, : site.prefix] = True
    kept = kept.scatter(1, ranked + site.prefix, True)
    return Decision(keep_only(kept), left)


@dataclass(frozen=True)
class Reads(Method):
    """A fixed schedule in three blocks, by what `what` names of the block."""

    what: str = "keys"
    where: str = "after_attention"

    @property
    def position(self) -> str:  # type: ignore[override]
        return self.where

    @property
    def needs(self) -> Needs:
        attention = {
            "class_row": Attention("class", "mean"),
            "class_heads": Attention("class", "each"),
            "map": Attention("all", "mean"),
            "maps": Attention("all", "each"),
        }.get(self.what)
        return Needs(
            attention,
            keys=self.what in ("keys", "all_keys"),
            values=self.what == "values",
            value_norms=self.what == "value_norms",
            tokens=self.what == "tokens",
        )

    def acts_in(self, block: int, depth: int) -> bool:
        return block in (1, 3, 4)

    def scores(self, site: Site) -> Tensor:
        """Of the patches, (b, patches), in float32."""
        p, kind = site.prefix, site.sizes.dtype
        if self.what == "keys":
            assert site.keys is not None
            rows = site.keys.to(kind).mean(1)
            return torch.cosine_similarity(rows, rows[:, :1], dim=-1)[:, p:]
        if self.what in ("all_keys", "values"):
            held = site.keys if self.what == "all_keys" else site.values
            assert held is not None
            return held.to(kind).norm(dim=-1).amax(1)[:, p:]
        if self.what == "value_norms":
            assert site.value_norms is not None
            return site.value_norms
        if self.what == "tokens":
            return site.tokens.to(kind).norm(dim=-1)[:, p:]
        assert site.attention is not None
        rows = site.attention
        rows = rows.amax(1) if self.what in ("maps", "class_heads") else rows
        return (rows.sum(1) if rows.dim() == 3 else rows)[:, p:]

    def reduce(self, site: Site, chosen: Tensor | None) -> Decision | None:
        return best(site, self.scores(site), site.length - 11)


@dataclass(frozen=True)
class Stops(Reads):
    """Each image is reduced once, in the block in which its scores spread enough."""

    spread: float = 0.0
    trace_columns = (Column("spread", "float", per_block=True),)

    def acts_in(self, block: int, depth: int) -> bool:
        return block in (1, 2, 4, 5)

    def observe(self, site: Site) -> Observation | None:
        scores = self.scores(site)
        spread = scores.amax(1) / scores.mean(1)
        return Observation(spread > self.spread, 5, {"spread": spread})

    def reduce(self, site: Site, chosen: Tensor | None) -> Decision:
        scores = self.scores(site)
        kept = torch.nn.functional.pad(scores > scores.mean(1, keepdim=True), (1, 0), value=True)
        return Decision(keep_only(kept), kept.sum(1), final=True, macs=7)


@dataclass(frozen=True)
class Uneven(Reads):
    """Drops the patches below the mean, so that every image has a length of its own; asked again.
    A third of the images stays as it is. Has an option that cannot be hashed.
    """

    parts: dict[str, int] = field(default_factory=lambda: {"kept": 3})

    def reduce(self, site: Site, chosen: Tensor | None) -> Decision | None:
        scores = self.scores(site)
        kept = torch.nn.functional.pad(scores > scores.mean(1, keepdim=True), (1, 0), value=True)
        kept |= (site.images % self.parts["kept"] == 0)[:, None]
        return Decision(keep_only(kept), kept.sum(1))


@dataclass(frozen=True)
class Merges(Uneven):
    """The same, and the dropped patches become one token, the last one."""

    proportional_attention = True

    def reduce(self, site: Site, chosen: Tensor | None) -> Decision | None:
        decision = super().reduce(site, chosen)
        assert decision is not None and isinstance(decision.left, Tensor)
        gone = decision.target < 0
        target = torch.where(gone, decision.left[:, None], decision.target)
        weight = torch.where(gone, 1 / gone.sum(1, keepdim=True).clamp(min=1), 1.0)
        return Decision(target, decision.left + gone.any(1), weight)


@dataclass(frozen=True)
class ReadsNumbers(Reads):
    """Python decides with numbers of the device, which no graph can have."""

    def reduce(self, site: Site, chosen: Tensor | None) -> Decision | None:
        scores = self.scores(site)
        for image in range(len(scores)):
            if float(scores[image, 0]) > float(scores[image, 1]):
                scores[image, 5:].neg_()
        return best(site, scores, site.length - 11)


@dataclass(frozen=True)
class Draws(Reads):
    """Draws when it decides, by the images' names."""

    @property
    def draws(self) -> bool:
        return True

    def scores(self, site: Site) -> Tensor:
        assert site.image_ids is not None
        patches = site.length - site.prefix
        drawn = [torch.rand(patches, generator=generator(site.block, i)) for i in site.image_ids]
        return torch.stack(drawn).to(site.sizes.device)


@dataclass(frozen=True)
class Remembers(Stops):
    """A state of its own: the scores of all blocks so far, as they were shown."""

    def start(self, anatomy: Anatomy, images: int, like: Tensor) -> Any:
        return {"sum": like.new_zeros(images, anatomy.patches), "last": []}

    def scores(self, site: Site) -> Tensor:
        return site.state["sum"][site.images]

    def observe(self, site: Site) -> Observation | None:
        assert site.attention is not None
        site.state["last"].append((site.images, site.attention))  # memory that the next block has
        for images, shown in site.state["last"]:
            site.state["sum"][images] += shown.sum(1)[:, site.prefix :] ** 2
        return super().observe(site)


READS = ("keys", "all_keys", "values", "value_norms", "tokens", "class_row", "class_heads", "map")
RECORDED: dict[str, Method] = {
    "norm_top_k": NormTopK(k=20),
    "similarity": Similarity(keep=24),
    **{f"reads_{what}": Reads(what) for what in READS},
    "reads_maps": Reads("maps"),
    "reads_keys_after_block": Reads("keys", "after_block"),
    "reads_tokens_after_block": Reads("tokens", "after_block"),
    "reads_tokens_before_block": Reads("tokens", "before_block"),
    **{f"stops_{what}": Stops(what, spread=spread) for what, spread in (
        ("keys", 2.69), ("all_keys", 1.421), ("values", 1.425), ("value_norms", 1.341),
        ("tokens", 1.37), ("class_row", 19.2), ("class_heads", 19.6), ("map", 6.44),
    )},
    "stops_tokens_after_block": Stops("tokens", "after_block", 1.37),
    "stops_tokens_before_block": Stops("tokens", "before_block", 1.37),
}  # fmt: skip
STEP_BY_STEP: dict[str, Method] = {
    "draws": Draws(),
    "remembers": Remembers("map", spread=10.6),
    "stops_maps": Stops("maps", spread=6.68),
}
FOUND_OUT: dict[str, Method] = {  # by what the first batches show
    "reads_numbers": ReadsNumbers(),
    **{f"uneven_{what}": Uneven(what) for what in (*READS, "maps")},
    "uneven_tokens_before_block": Uneven("tokens", "before_block"),
    "uneven_keys_after_block": Uneven("keys", "after_block"),
    "merges": Merges("tokens"),
    "merges_map": Merges("map", "after_block"),
}
