"""Logits and trace of every cell, put together from what the cells share."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from asap.core.macs import backbone_macs
from asap.engine.trace import Trace
from asap.methods.base import Method
from asap.shared_prefix.cells import Cut, Rule
from asap.shared_prefix.suffixes import Rests


@dataclass
class Answers:
    """`answers[i]`: what `ReducedViT(backbone, methods[i])` would give for the batch."""

    methods: list[Method]
    failed: dict[int, Exception]
    rests: Rests
    rules: dict[int, Rule]  # by cell; a dense one has none
    cuts: dict[int, Cut]
    left: dict[int, Tensor]  # block -> (images,) numbers of the rests without reduction
    images: int

    def __post_init__(self) -> None:
        r = self.rests
        if not r.logits:  # every cell has failed
            return
        self._logits, self._assignment = torch.cat(r.logits), torch.cat(r.assignment)
        self._lengths, self._macs = torch.cat(r.lengths), torch.cat(r.macs)

    def __getitem__(self, cell: int) -> tuple[Tensor, Trace]:
        """Logits and trace on the CPU. Raises what the cell's own decisions raised."""
        if cell in self.failed:
            raise self.failed[cell]
        anatomy, every = self.rests.trunk.anatomy, torch.arange(self.images)
        if cell in self.rules:
            rule, cut = self.rules[cell], self.cuts[cell]
            stop = rule.stop
            trace = replace(rule.trace, columns=dict(rule.trace.columns))
            never = self.left.get(rule.last)
            number = cut.rest[every, stop]
            if never is not None:
                number = torch.where(stop > 0, number, never)
            trace.stop_block = stop.clone()
            trace.columns["sink"] = cut.sink[every, stop]
            trace.columns["margin_sink"] = cut.margins["margin_sink"][every, stop]
            trace.columns["margin_bin"] = cut.margins["margin_bin"][every, stop]
            trace.macs_method = trace.macs_method + cut.spent[every, stop] + self._macs[number]
        else:
            trace = Trace.empty(self.images, anatomy.depth, anatomy.patches, anatomy.prefix)
            stop, number = trace.stop_block, self.left[0]
        self._after(trace, stop, number, self.methods[cell].position)
        return self._logits[number], trace

    def _after(self, trace: Trace, stop: Tensor, number: Tensor, position: str) -> None:
        """What an image's rest says: its patches' places, and the tokens of all blocks."""
        anatomy = self.rests.trunk.anatomy
        trace.assignment = self._assignment[number]
        blocks = torch.arange(anatomy.depth + 1)
        before = (stop == 0)[:, None] | (blocks < stop[:, None])
        trace.tokens = torch.where(before, anatomy.tokens, self._lengths[number][:, None])
        macs = backbone_macs(self.rests.trunk.cost, trace.tokens.numpy(), position)
        trace.macs_backbone = torch.from_numpy(macs)
