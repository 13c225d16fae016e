"""The remaining blocks of each image after it leaves the shared prefix, up to its logits."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from asap.backbones.adapter import BackboneAdapter
from asap.core.packed import PackedTokens, Segment
from asap.engine.backend import Backend
from asap.engine.regroup import Answer
from asap.engine.steps import ForwardState, apply, count, run_rest
from asap.engine.trace import Trace
from asap.methods.base import Decision

MOST_COPIES = 4  # batches of tokens that run through the remaining blocks at once


@dataclass(frozen=True)
class Exit:
    """One image that leaves the prefix reduced: its place there, and where its tokens go.

    `weight` is None where nothing is averaged.
    """

    place: int
    target: Int[np.ndarray, "n"]
    weight: Float[np.ndarray, "n"] | None
    left: int

    @classmethod
    def all_of(cls, decided: Decision, places: Sequence[int]) -> "list[Exit]":
        """The exits of the images at these places, which a decision is about."""
        count, left = len(places), decided.left
        targets = decided.target.cpu().numpy()
        weights = [None] * count if decided.weight is None else decided.weight.cpu().numpy()
        lefts = [left] * count if isinstance(left, int) else left.tolist()
        return [cls(*one) for one in zip(places, targets, weights, lefts, strict=True)]

    @property
    def name(self) -> tuple:
        """Equal for exits whose suffixes are the same."""
        weight = None if self.weight is None else self.weight.tobytes()
        return self.place, self.target.tobytes(), weight


@dataclass
class Suffixes:
    """The results of every distinct suffix, by its number. All on the CPU."""

    adapter: BackboneAdapter
    most: int  # images in a dense batch
    backend: Backend
    logits: list[Float[Tensor, "k classes"]] = field(default_factory=list)
    assignment: list[Int[Tensor, "k patches"]] = field(default_factory=list)
    lengths: list[Int[Tensor, "k"]] = field(default_factory=list)
    macs: list[Int[Tensor, "k"]] = field(default_factory=list)  # of averaging
    numbered: int = 0

    def go_on(self, batch: PackedTokens, places: list[int], block: int) -> list[int]:
        """Run images unreduced from `block` on, with the backbone's own attention."""
        now = self._pass(batch, places)
        if block == self.adapter.anatomy.depth:
            count(block, now)
        run_rest(self.adapter, now, block, midway=False, proportional=False)
        return self._keep(now)

    def reduce(
        self, batch: PackedTokens, exits: list[Exit], block: int, midway: bool, proportional: bool
    ) -> list[int]:
        """Reduce images and run them from `block` on, from its MLP if `midway`.

        Those of similar length run together, as many as have the tokens of a dense batch.
        """
        numbers = [0] * len(exits)
        order = sorted(range(len(exits)), key=lambda i: exits[i].left)
        for chunk in self._chunks(order, exits):
            part = [exits[i] for i in chunk]
            now = self._pass(batch, [one.place for one in part])
            whole = Segment(now.batch.images, 0, 0, now.batch.lengths[0], False)
            apply(now, [Answer(whole, _decision(part, batch.rows.device), None)])
            run_rest(self.adapter, now, block, midway, proportional)
            for i, number in zip(chunk, self._keep(now), strict=True):
                numbers[i] = number
        return numbers

    def _chunks(self, order: list[int], exits: list[Exit]) -> list[list[int]]:
        """Neighbours in `order` that run together."""
        chunks: list[list[int]] = []
        space = 0
        for i in order:
            if not chunks or space < exits[i].left or len(chunks[-1]) == MOST_COPIES * self.most:
                chunks.append([])
                space = self.most * self.adapter.anatomy.tokens
            chunks[-1].append(i)
            space -= exits[i].left
        return chunks

    def _pass(self, batch: PackedTokens, places: list[int]) -> ForwardState:
        """Copies of some images as a separate batch without active images."""
        anatomy, device = self.adapter.anatomy, batch.rows.device
        layout = (len(places), anatomy.depth, anatomy.patches, anatomy.prefix)
        taken = replace(batch.of(places, renumbered=True), active=0)
        return ForwardState(taken, Trace.empty(*layout, device=device), self.backend)

    def _keep(self, now: ForwardState) -> list[int]:
        """Keep the results of a batch; returns the numbers of its suffixes."""
        self.logits.append(self.adapter.classify(now.batch).cpu())
        trace = now.trace.finished(now.batch.source)
        self.assignment.append(trace.assignment)
        self.lengths.append(trace.tokens[:, -1])
        self.macs.append(trace.macs_method)
        first, self.numbered = self.numbered, self.numbered + len(trace.tokens)
        return list(range(first, self.numbered))


def _decision(exits: Sequence[Exit], device: torch.device) -> Decision:
    """The decision about images that leave; either all of them average tokens or none."""

    def stacked(parts: list) -> Tensor:
        return torch.from_numpy(np.stack(parts)).to(device)

    return Decision(
        target=stacked([one.target for one in exits]),
        left=torch.tensor([one.left for one in exits], device=device),
        weight=None if exits[0].weight is None else stacked([one.weight for one in exits]),
        final=True,
    )
