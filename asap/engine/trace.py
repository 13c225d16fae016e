"""What happened to each image of a batch."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass
class Trace:
    """What happened to each image of a batch (B images, L blocks, n patches).

    All tensors are on the CPU. `stop_block` counts from 1 and 0 means never; `sink` is a patch
    index, -1 if there is none; `assignment` is the final token that each patch ended in, -1 if it
    was dropped. `mass` is NaN after the stop. A margin says how far a decision was from falling
    otherwise: `margin_mass` min |largest column mass - tau| over the blocks tested, `margin_sink`
    the lead of the sink over the next patch, `margin_bin` the distance of the nearest patch to the
    edge of the background; NaN where there was no such decision.
    """

    tokens: Int[Tensor, "b l_and_1"]
    stop_block: Int[Tensor, "b"]
    sink: Int[Tensor, "b"]
    mass: Float[Tensor, "b l"]
    assignment: Int[Tensor, "b patches"]
    macs_backbone: Int[Tensor, "b"]
    macs_method: Int[Tensor, "b"]
    margin_mass: Float[Tensor, "b"]
    margin_sink: Float[Tensor, "b"]
    margin_bin: Float[Tensor, "b"]

    @classmethod
    def empty(cls, images: int, blocks: int, patches: int, prefix: int) -> "Trace":
        """The trace before the first block."""
        zero = torch.zeros(images, dtype=torch.int64)
        nan = torch.full((images,), float("nan"))
        return cls(
            tokens=torch.zeros(images, blocks + 1, dtype=torch.int64),
            stop_block=zero.clone(),
            sink=zero - 1,
            mass=torch.full((images, blocks), float("nan")),
            assignment=(torch.arange(patches) + prefix).repeat(images, 1),
            macs_backbone=zero.clone(),
            macs_method=zero.clone(),
            margin_mass=nan.clone(),
            margin_sink=nan.clone(),
            margin_bin=nan.clone(),
        )

    def take(self, images: Int[Tensor, "k"]) -> "Trace":
        """The trace of some images of the batch."""
        return Trace(**{f.name: getattr(self, f.name)[images] for f in fields(self)})
