"""What ASAP saw in one image: the class row of the walk, distances, clusters, what was kept."""

from dataclasses import dataclass, field, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from asap.core.order import best_class
from asap.engine.executor import ReducedViT
from asap.engine.trace import Trace
from asap.methods.asap import Asap
from asap.methods.asap.clusters import cluster
from asap.methods.asap.walk import make_walk
from asap.methods.base import Observation, Site


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
class _Watched(Asap):
    """Asap that keeps the maps it is shown."""

    maps: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, method: Asap) -> "_Watched":
        return cls(**{f.name: getattr(method, f.name) for f in fields(method)})

    def observe(self, site: Site) -> Observation:
        assert site.attention is not None
        self.maps.append(site.attention)
        return super().observe(site)


def explain(
    backbone: nn.Module, method: Asap, image: Float[Tensor, "3 h w"], image_id: int = 0
) -> Explanation:
    """Run one image and say what the method did to it."""
    watched = _Watched.of(method)
    model = ReducedViT(backbone, watched)
    logits, trace = model(image[None], [image_id], return_trace=True)
    patches = model.trunk.anatomy.patches
    kept, prediction = _kept(trace), best_class(logits[0])
    if trace.stop_block[0] == 0:
        nothing = torch.full((patches,), float("nan"))
        return Explanation(trace, prediction, nothing, nothing, torch.full((patches,), -1), kept)
    matrix, row = _geometry(method, watched.maps)
    prefix, sink = model.trunk.anatomy.prefix, trace.sink.to(matrix.device)
    found = cluster(method, matrix, sink, prefix)
    seen, far, near = (t[0].cpu() for t in (row[:, prefix:], found.distance, found.index))
    return Explanation(trace, prediction, seen, far, near, kept)


def walk_at_stop(
    backbone: nn.Module, method: Asap, image: Float[Tensor, "3 h w"], image_id: int = 0
) -> tuple[Float[Tensor, "1 n n"], Int[Tensor, "1"]] | None:
    """P of one image in the block where it stops, and its anchor; None if it never stops."""
    watched = _Watched.of(method)
    model = ReducedViT(backbone, watched)
    _, trace = model(image[None], [image_id], return_trace=True)
    if trace.stop_block[0] == 0:
        return None
    matrix, _ = _geometry(method, watched.maps)
    return matrix, trace.sink.to(matrix.device)


def walk_per_block(
    backbone: nn.Module, method: Asap, image: Float[Tensor, "3 h w"], image_id: int = 0
) -> Float[Tensor, "blocks n n"]:
    """P of one image after every block, prefix tokens first: no stop and no reduction."""
    watched = _Watched.of(replace(method, overhead=True))
    ReducedViT(backbone, watched)(image[None], [image_id])
    first = watched.maps[0]
    walk = make_walk(method.order, method.alpha, True, 1, first.shape[-1], first)
    alone, found = torch.tensor([0], device=first.device), []
    for block, attention in enumerate(watched.maps):
        walk.advance(attention, alone, block)
        found.append(walk.matrix(alone)[0][0].clone())
    return torch.stack(found)


def _geometry(
    method: Asap, maps: list[Tensor]
) -> tuple[Float[Tensor, "1 n n"], Float[Tensor, "1 n"]]:
    """The matrix whose rows give distances, and its class row, from the maps of an image."""
    if not method.accumulate:
        return maps[-1], maps[-1][:, 0]
    walk = make_walk(method.order, method.alpha, method.overhead, 1, maps[0].shape[-1], maps[0])
    image = torch.tensor([0], device=maps[0].device)
    for block, attention in enumerate(maps):
        walk.advance(attention, image, block)
    return walk.matrix(image)[0], walk.class_row(image)


def _kept(trace: Trace) -> Bool[Tensor, "patches"]:
    """Patches that still are a token of their own."""
    held = trace.assignment[0]
    counts = torch.bincount(held + 1, minlength=int(held.max()) + 2)
    return (held >= 0) & (counts[held + 1] == 1)
