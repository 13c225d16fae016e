"""How a method treats one image, for pictures: it runs as always, and explains its decision."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from asap.engine.executor import ReducedViT
from asap.engine.trace import Trace
from asap.engine.watched import Watched
from asap.methods.base import Decision, Method, Observation, Site


@dataclass(frozen=True)
class Explanation:
    """Values per patch, NaN or -1 if the image was never reduced.

    kept: the patch is still a separate token. output: of the backbone.
    """

    trace: Trace
    output: Float[Tensor, "outputs"]
    class_row: Float[Tensor, "patches"]
    distance: Float[Tensor, "patches"]
    cluster: Int[Tensor, "patches"]
    kept: Bool[Tensor, "patches"]


@dataclass(frozen=True)
class _Explained(Watched):
    """Keeps the explanation of every block in which the method reduces."""

    explanations: dict[int, Mapping[str, Tensor]] = field(default_factory=dict)  # by block

    def reduce(self, site: Site, chosen: Bool[Tensor, "b"] | None) -> Decision | None:
        self.explanations[site.block] = self.inner.explain(site)
        return self.inner.reduce(site, chosen)


@dataclass(frozen=True)
class _Unreduced(Watched):
    """Keeps the explanation of every block, and reduces nothing."""

    explanations: dict[int, Mapping[str, Tensor]] = field(default_factory=dict)  # by block

    def acts_in(self, block: int, depth: int) -> bool:
        return True

    def observe(self, site: Site) -> Observation:
        self.inner.observe(site)
        self.explanations[site.block] = self.inner.explain(site)
        return Observation(None)


def explain(
    backbone: nn.Module, method: Method, image: Float[Tensor, "3 h w"], image_id: int = 0
) -> Explanation:
    """Run one image and return what a method that `explains` did to it. Else ValueError."""
    explained, trace, logits, prefix = _run(backbone, method, image, image_id)
    kept, output = _kept(trace), logits[0]
    if explained is None:
        nothing = torch.full(kept.shape, float("nan"))
        return Explanation(trace, output, nothing, nothing, torch.full(kept.shape, -1), kept)
    row, far, near = (explained[name][0].cpu() for name in ("class_row", "distance", "cluster"))
    return Explanation(trace, output, row[prefix:], far, near, kept)


def walk_at_stop(
    backbone: nn.Module, method: Method, image: Float[Tensor, "3 h w"]
) -> tuple[Float[Tensor, "1 n n"], Int[Tensor, "1"]] | None:
    """P of one image in the block where it stops, and its anchor; None if it never stops."""
    explained, _, _, _ = _run(backbone, method, image, 0)
    return None if explained is None else (explained["walk"], explained["anchor"])


def walk_per_block(
    backbone: nn.Module, method: Method, image: Float[Tensor, "3 h w"], image_id: int = 0
) -> Float[Tensor, "blocks n n"]:
    """P of one image after every block, prefix tokens first, without a stop or reduction."""
    watched = _Unreduced(method)
    ReducedViT(backbone, watched)(image[None], [image_id])
    return torch.cat([one["walk"] for one in watched.explanations.values()])


def _run(
    backbone: nn.Module, method: Method, image: Tensor, image_id: int
) -> tuple[Mapping[str, Tensor] | None, Trace, Tensor, int]:
    """The explanation in the block where the image stopped; trace, logits, prefix tokens."""
    if not method.explains:
        raise ValueError(f"{type(method).__name__} does not explain itself")
    watched = _Explained(method)
    model = ReducedViT(backbone, watched)
    logits, trace = model(image[None], [image_id], return_trace=True)
    explained = watched.explanations.get(int(trace.stop_block[0]) - 1)
    return explained, trace, logits, model.adapter.anatomy.prefix


def _kept(trace: Trace) -> Bool[Tensor, "patches"]:
    """Patches that are still separate tokens."""
    held = trace.assignment[0]
    counts = torch.bincount(held + 1, minlength=int(held.max()) + 2)
    return (held >= 0) & (counts[held + 1] == 1)
