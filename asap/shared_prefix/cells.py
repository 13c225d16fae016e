"""What settings share, as state of one batch: a rule says when images stop, a cut what follows."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from asap.core.anatomy import Anatomy
from asap.core.packed import Run
from asap.engine.trace import Trace
from asap.methods.asap import Asap
from asap.methods.base import Decision

NONE = -1


@dataclass
class Rule:
    """When images stop, for all cells with equal stop options, and the trace up to there."""

    method: Asap
    alive: Bool[Tensor, "images"]  # not yet stopped
    stop: Int[Tensor, "images"]  # number of the stop block, 0 = never
    trace: Trace
    cells: set[int] = field(default_factory=set)

    @property
    def last(self) -> int:
        """Number of the last block that is looked at."""
        assert self.method.max_block is not None
        return self.method.max_block

    def look(
        self, index: int, run: Run, mass: Tensor, macs: int, depth: int
    ) -> Bool[Tensor, "images"]:
        """Test the largest masses of a run's images; which of them stop in block `index`."""
        images = torch.tensor(run.images)
        here = self.alive[images]
        shown = images[here]
        stopped = torch.zeros_like(self.alive)
        if not len(shown):
            return stopped
        seen = self.method.test(mass[here], index + 1, depth, macs)
        self.trace.write(shown, index, seen.macs, seen.diagnostics)
        if seen.chosen is None:
            return stopped
        gone = shown[seen.chosen]
        stopped[gone] = True
        self.alive[gone] = False
        self.stop[gone] = index + 1
        return stopped


@dataclass
class Cut:
    """What becomes of images that stop, for all cells with equal options, by image and block."""

    method: Asap
    rest: Int[Tensor, "images l_and_1"]  # number of the rest
    sink: Int[Tensor, "images l_and_1"]
    spent: Int[Tensor, "images l_and_1"]  # MACs
    margins: dict[str, Tensor]  # (images, l_and_1) each
    cells: set[int] = field(default_factory=set)

    def write(self, decided: Decision, run: Run, here: Tensor, number: int) -> None:
        """Keep the diagnostics of a decision about the images at rows `here` of a run."""
        images = torch.tensor(run.images)[here.cpu()]
        self.sink[images, number] = decided.diagnostics["sink"].cpu()
        self.spent[images, number] = torch.as_tensor(decided.macs).cpu()
        for name, held in self.margins.items():
            held[images, number] = decided.diagnostics[name].cpu().to(held.dtype)


def new_rule(method: Asap, images: int, anatomy: Anatomy) -> Rule:
    """A rule before the first block."""
    return Rule(
        method,
        torch.ones(images, dtype=torch.bool),
        torch.zeros(images, dtype=torch.int64),
        Trace.empty(images, anatomy.depth, anatomy.patches, anatomy.prefix, Asap.trace_columns),
    )


def new_cut(method: Asap, images: int, anatomy: Anatomy) -> Cut:
    """A cut before the first block."""
    none = torch.full((images, anatomy.depth + 1), NONE)
    margins = {n: torch.full(none.shape, float("nan")) for n in ("margin_sink", "margin_bin")}
    return Cut(method, none, none.clone(), torch.zeros_like(none), margins)
