"""What a method saw in one image, for pictures: it runs as always, and explains what it did."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from asap.core.order import best_class
from asap.engine.executor import ReducedViT
from asap.engine.trace import Trace
from asap.engine.watched import Watched
from asap.methods.base import Decision, Method, Observation, Site


@dataclass(frozen=True)
class Explanation:
    """Per patch, NaN or -1 where the image was never reduced; `kept`: still a token of its own.
    `prediction`: None if the answer is not finite.
    """

    trace: Trace
    prediction: int | None
    class_row: Float[Tensor, "patches"]
    distance: Float[Tensor, "patches"]
    cluster: Int[Tensor, "patches"]
    kept: Bool[Tensor, "patches"]


@dataclass(frozen=True)
class _Explained(Watched):
    """Keeps the explanation of every block in which the method reduces."""

    said: dict[int, Mapping[str, Tensor]] = field(default_factory=dict)  # block -> explanation

    def reduce(self, site: Site, chosen: Bool[Tensor, "b"] | None) -> Decision | None:
        self.said[site.block] = self.inner.explain(site)
        return self.inner.reduce(site, chosen)


@dataclass(frozen=True)
class _Unreduced(Watched):
    """Keeps the explanation of every block, and reduces nothing."""

    said: dict[int, Mapping[str, Tensor]] = field(default_factory=dict)  # block -> explanation

    def acts_in(self, block: int, depth: int) -> bool:
        return True

    def observe(self, site: Site) -> Observation:
        self.inner.observe(site)
        self.said[site.block] = self.inner.explain(site)
        return Observation(None)


def explain(
    backbone: nn.Module, method: Method, image: Float[Tensor, "3 h w"], image_id: int = 0
) -> Explanation:
    """Run one image and say what a method that explains itself did to it."""
    said, trace, logits, prefix = _run(backbone, method, image, image_id)
    kept, prediction = _kept(trace), best_class(logits[0])
    if said is None:
        nothing = torch.full(kept.shape, float("nan"))
        return Explanation(trace, prediction, nothing, nothing, torch.full(kept.shape, -1), kept)
    row, far, near = (said[name][0].cpu() for name in ("class_row", "distance", "cluster"))
    return Explanation(trace, prediction, row[prefix:], far, near, kept)


def walk_at_stop(
    backbone: nn.Module, method: Method, image: Float[Tensor, "3 h w"], image_id: int = 0
) -> tuple[Float[Tensor, "1 n n"], Int[Tensor, "1"]] | None:
    """P of one image in the block where it stops, and its anchor; None if it never stops."""
    said, _, _, _ = _run(backbone, method, image, image_id)
    return None if said is None else (said["walk"], said["anchor"])


def walk_per_block(
    backbone: nn.Module, method: Method, image: Float[Tensor, "3 h w"], image_id: int = 0
) -> Float[Tensor, "blocks n n"]:
    """P of one image after every block, prefix tokens first: no stop and no reduction."""
    watched = _Unreduced(method)
    ReducedViT(backbone, watched)(image[None], [image_id])
    return torch.cat([said["walk"] for said in watched.said.values()])


def _run(
    backbone: nn.Module, method: Method, image: Tensor, image_id: int
) -> tuple[Mapping[str, Tensor] | None, Trace, Tensor, int]:
    """What the method said in the block where the image stopped; trace, logits, prefix tokens."""
    if not method.explains:
        raise ValueError(f"{type(method).__name__} does not explain itself")
    watched = _Explained(method)
    model = ReducedViT(backbone, watched)
    logits, trace = model(image[None], [image_id], return_trace=True)
    said = watched.said.get(int(trace.stop_block[0]) - 1)
    return said, trace, logits, model.adapter.anatomy.prefix


def _kept(trace: Trace) -> Bool[Tensor, "patches"]:
    """Patches that still are a token of their own."""
    held = trace.assignment[0]
    counts = torch.bincount(held + 1, minlength=int(held.max()) + 2)
    return (held >= 0) & (counts[held + 1] == 1)
