"""How decisions change between neighbouring frames of a view, against how much the scene moves."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

NAN = float("nan")
# Means over the pairs of neighbouring frames of a clip; NaN where no pair has the quantity.
MOTION = (
    "frame_difference",  # mean absolute change of a pixel, 0 to 255
    "sink_distance",  # from sink to sink, in patches; 0: it stays
    "stop_changes",  # share of pairs whose frames stop in different blocks, or one of them never
    "kept_overlap",  # patches kept in both frames over those kept in either (Jaccard)
)


def changes(
    traces: Mapping[str, Tensor],
    frames: int,
    grid: tuple[int, int],
    difference: Float[Tensor, " pairs"] | None,
) -> dict[str, float]:
    """The quantities of `MOTION` for one clip.

    traces: values of its images, see `Task.answered`; difference: of the pixels of each pair. A
    clip none of whose frames is reduced has no sinks, stops or kept patches to compare.
    """
    found: dict[str, float] = dict.fromkeys(MOTION, NAN)
    if difference is not None and len(difference):
        found["frame_difference"] = float(difference.double().mean())
    kept = kept_patches(traces["assignment"])
    if frames < 2 or kept.all():
        return found
    if "sink" in traces:
        found["sink_distance"] = _mean(_distances(*_pairs(traces["sink"], frames), grid))
    before, after = _pairs(traces["stop_block"], frames)
    found["stop_changes"] = float((before != after).double().mean())
    before, after = _pairs(kept, frames)
    either = (before | after).sum(1).double()
    found["kept_overlap"] = _mean(((before & after).sum(1) / either)[either > 0])
    return found


def kept_patches(assignment: Int[Tensor, "images patches"]) -> Bool[Tensor, "images patches"]:
    """Patches that have a final token of their own: neither dropped nor averaged with others.

    `assignment`: the final token of each patch, -1 = dropped.
    """
    slots = assignment + 1  # 0 collects the dropped patches
    counts = torch.zeros(len(slots), int(slots.max()) + 1, dtype=torch.int64)
    counts.scatter_add_(1, slots, torch.ones_like(slots))
    return (slots > 0) & (counts.gather(1, slots) == 1)


def _pairs(values: Tensor, frames: int) -> tuple[Tensor, Tensor]:
    """The values of the first and of the second frame of every pair of neighbours in a view."""
    views = values.view(-1, frames, *values.shape[1:])
    return views[:, :-1].flatten(0, 1), views[:, 1:].flatten(0, 1)


def _distances(
    one: Int[Tensor, " pairs"], other: Int[Tensor, " pairs"], grid: tuple[int, int]
) -> Float[Tensor, " known"]:
    """Euclidean distances between patches, of the pairs in which both frames have a sink."""
    known = (one >= 0) & (other >= 0)
    one, other = one[known], other[known]
    down, across = (one // grid[1] - other // grid[1]), (one % grid[1] - other % grid[1])
    return torch.hypot(down.double(), across.double())


def _mean(values: Float[Tensor, " n"]) -> float:
    return float(values.mean()) if len(values) else NAN
