"""The state of a batch that settings share: when images stop, and how they are reduced."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from asap.core.anatomy import Anatomy
from asap.engine.trace import Trace
from asap.methods.base import Decision, Method, Observation

NONE = -1


@dataclass
class StopRule:
    """When images stop, for all cells that observe alike, and the trace up to there."""

    method: Method  # `Sharing.observer`
    last: int  # number, from 1, of the last block that is observed; 0 = none
    alive: Bool[Tensor, "images"]  # not yet stopped
    stop: Int[Tensor, "images"]  # number of the stop block, 0 = never
    trace: Trace
    cells: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, method: Method, images: int, anatomy: Anatomy) -> "StopRule":
        """The rule before the first block."""
        depth = anatomy.depth
        return cls(
            method,
            max((b + 1 for b in range(depth) if method.acts_in(b, depth)), default=0),
            torch.ones(images, dtype=torch.bool),
            torch.zeros(images, dtype=torch.int64),
            Trace.empty(images, depth, anatomy.patches, anatomy.prefix, method.trace_columns),
        )

    def note(
        self, index: int, images: Int[Tensor, "k"], seen: Observation
    ) -> Bool[Tensor, "images"]:
        """Note an observation of some images in block `index`; returns which images stop there."""
        here = self.alive[images]
        stopped = torch.zeros_like(self.alive)
        self.trace.write(images, index, seen.macs, seen.diagnostics, here)
        if seen.chosen is not None:
            gone = images[here if seen.chosen is True else here & seen.chosen.cpu()]
            stopped[gone] = True
            self.alive[gone] = False
            self.stop[gone] = index + 1
        return stopped


@dataclass
class Reduction:
    """How images that stop are reduced, for all cells that reduce alike.

    By image and number of the block (0: never).
    """

    method: Method  # `Sharing.reducer`
    suffix: Int[Tensor, "images l_and_1"]  # its number
    spent: Int[Tensor, "images l_and_1"]  # MACs
    diagnostics: dict[str, Tensor] = field(default_factory=dict)  # (images, l_and_1) each
    cells: set[int] = field(default_factory=set)

    @classmethod
    def of(cls, method: Method, images: int, anatomy: Anatomy) -> "Reduction":
        """The reduction before the first block."""
        none = torch.full((images, anatomy.depth + 1), NONE)
        return cls(method, none, torch.zeros_like(none))

    def note(self, decided: Decision, images: Int[Tensor, "k"], number: int) -> None:
        """Note MACs and diagnostics of a decision about these images in block `number` (from 1)."""
        self.spent[images, number] = torch.as_tensor(decided.macs).cpu().expand(len(images))
        for name, value in decided.diagnostics.items():
            value = value.detach().cpu()
            if name not in self.diagnostics:
                missing = float("nan") if value.is_floating_point() else NONE
                self.diagnostics[name] = torch.full(self.spent.shape, missing, dtype=value.dtype)
            self.diagnostics[name][images, number] = value
