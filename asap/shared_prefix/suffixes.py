"""The rests of the images' ways, from where they leave the trunk to their logits."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from asap.backbones.adapter import Trunk
from asap.core.packed import Ragged, Run
from asap.engine.regroup import Answer
from asap.engine.steps import Pass, apply, count, run_rest
from asap.engine.trace import Trace
from asap.methods.base import Decision

MOST_COPIES = 4  # batches of tokens on their way out at once


@dataclass(frozen=True)
class Leaving:
    """One image that leaves the trunk reduced: its place there, and where its tokens go."""

    place: int
    target: Int[np.ndarray, "n"]
    weight: Float[np.ndarray, "n"]
    length: int


@dataclass
class Rests:
    """What became of every distinct rest, by its number. All on the CPU."""

    trunk: Trunk
    most: int  # images in a dense batch
    logits: list[Float[Tensor, "k classes"]] = field(default_factory=list)
    assignment: list[Int[Tensor, "k patches"]] = field(default_factory=list)
    lengths: list[Int[Tensor, "k"]] = field(default_factory=list)
    macs: list[Int[Tensor, "k"]] = field(default_factory=list)  # of averaging
    numbered: int = 0

    def leave(self, batch: Ragged, places: list[int], block: int) -> list[int]:
        """Images of the trunk go on densely from `block` on, with the backbone's own attention."""
        now = self._pass(batch, places)
        if block == self.trunk.anatomy.depth:
            count(block, now)
        run_rest(self.trunk, now, block, midway=False, proportional=False)
        return self._keep(now, range(len(places)))

    def reduce(
        self, batch: Ragged, leaving: list[Leaving], block: int, midway: bool, proportional: bool
    ) -> list[int]:
        """Images of the trunk are reduced and go on from `block`, from its MLP if `midway`.

        Those of like length go together, so many at a time as make a dense batch's tokens.
        """
        numbers = [0] * len(leaving)
        order = sorted(range(len(leaving)), key=lambda i: leaving[i].length)
        for chunk in self._chunks(order, leaving):
            part = [leaving[i] for i in chunk]
            now = self._pass(batch, [one.place for one in part])
            apply(now, [Answer(whole(now.batch), decision(part, batch.rows.device), None)])
            run_rest(self.trunk, now, block, midway, proportional)
            for i, number in zip(chunk, self._keep(now, range(len(part))), strict=True):
                numbers[i] = number
        return numbers

    def _chunks(self, order: list[int], leaving: list[Leaving]) -> list[list[int]]:
        chunks: list[list[int]] = []
        room = 0
        for i in order:
            if not chunks or room < leaving[i].length or len(chunks[-1]) == MOST_COPIES * self.most:
                chunks.append([])
                room = self.most * self.trunk.anatomy.tokens
            chunks[-1].append(i)
            room -= leaving[i].length
        return chunks

    def _pass(self, batch: Ragged, places: list[int]) -> Pass:
        """Copies of some of the trunk's images as a batch of its own."""
        anatomy, tokens = self.trunk.anatomy, self.trunk.anatomy.tokens
        index = torch.tensor(places, device=batch.rows.device)
        taken = replace(
            batch,
            rows=batch.rows.view(-1, tokens, batch.rows.shape[1])[index].flatten(0, 1),
            sizes=batch.sizes.view(-1, tokens)[index].flatten(),
            lengths=(tokens,) * len(places),
            images=tuple(range(len(places))),
            watched=0,
        )
        trace = Trace.empty(len(places), anatomy.depth, anatomy.patches, anatomy.prefix)
        return Pass(taken, trace, None, None, list(taken.runs()))

    def _keep(self, now: Pass, images: range) -> list[int]:
        self.logits.append(self.trunk.classify(now.batch).cpu())
        self.assignment.append(now.trace.assignment)
        self.lengths.append(now.trace.tokens[:, -1])
        self.macs.append(now.trace.macs_method)
        first, self.numbered = self.numbered, self.numbered + len(images)
        return list(range(first, self.numbered))


def whole(batch: Ragged) -> Run:
    """All images of a batch of one length."""
    return Run(batch.images, 0, batch.lengths[0], False)


def decision(leaving: list[Leaving], device: torch.device) -> Decision:
    """What becomes of the tokens of images that leave."""
    return Decision(
        target=torch.from_numpy(np.stack([one.target for one in leaving])).to(device),
        weight=torch.from_numpy(np.stack([one.weight for one in leaving])).to(device),
        left=torch.tensor([one.length for one in leaving], device=device),
        final=True,
    )
