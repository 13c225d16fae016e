"""What ASAP saw in one image: the class row of the walk, distances, clusters, what was kept."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from asap.core.diffusion import distance_to_anchor
from asap.core.radial import normalise, rank_bins, width_bins
from asap.engine.executor import ReducedViT
from asap.methods.asap import Asap
from asap.methods.base import Decision, Site
from asap.methods.walk import Walk, make_walk
from asap.tokens import Trace


@dataclass(frozen=True)
class Explanation:
    """Per patch, NaN or -1 where the image was never reduced; `kept`: still a token of its own."""

    trace: Trace
    prediction: int
    class_row: Float[Tensor, "patches"]
    distance: Float[Tensor, "patches"]
    cluster: Int[Tensor, "patches"]
    kept: Bool[Tensor, "patches"]


class _Watched:
    """Asap that keeps the maps it is shown; everything else is passed on."""

    def __init__(self, method: Asap) -> None:
        self.method = method
        self.maps: list[Tensor] = []

    def __getattr__(self, name: str):
        return getattr(self.method, name)

    def decide(self, site: Site) -> Decision | None:
        assert site.attention is not None
        self.maps.append(site.attention)
        return self.method.decide(site)


def explain(
    backbone: nn.Module, method: Asap, image: Float[Tensor, "3 h w"], image_id: int = 0
) -> Explanation:
    """Run one image and say what the method did to it."""
    watched = _Watched(method)
    model = ReducedViT(backbone, watched)  # type: ignore[arg-type]
    logits, trace = model(image[None], [image_id], return_trace=True)
    patches = model.trunk.anatomy.patches
    kept = _kept(trace)
    if trace.stop_block[0] == 0:
        nothing = torch.full((patches,), float("nan"))
        return Explanation(
            trace, int(logits.argmax()), nothing, nothing, torch.full((patches,), -1), kept
        )
    walk = _walk(method, watched.maps)
    matrix = walk.matrix(torch.tensor([0]))[0] if method.accumulate else watched.maps[-1]
    row = walk.class_row(torch.tensor([0])) if method.accumulate else matrix[:, 0]
    prefix, sink = model.trunk.anatomy.prefix, trace.sink.to(matrix.device)
    distance = distance_to_anchor(matrix, sink, prefix, method.distance_columns)
    if method.binning == "rank":
        cluster = rank_bins(distance, sink, method.clusters)
    else:
        cluster = width_bins(normalise(distance, sink, method.normalise), method.clusters)
    seen, far, near = (t[0].cpu() for t in (row[:, prefix:], distance, cluster))
    return Explanation(trace, int(logits.argmax()), seen, far, near, kept)


def _walk(method: Asap, maps: list[Tensor]) -> Walk:
    walk = make_walk(method.order, method.alpha, method.overhead, 1, maps[0].shape[-1], maps[0])
    for attention in maps:
        walk.advance(attention, torch.tensor([0], device=attention.device))
    return walk


def _kept(trace: Trace) -> Bool[Tensor, "patches"]:
    """Patches that still are a token of their own."""
    held = trace.assignment[0]
    counts = torch.bincount(held + 1, minlength=int(held.max()) + 2)
    return (held >= 0) & (counts[held + 1] == 1)
