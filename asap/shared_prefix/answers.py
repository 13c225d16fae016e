"""Logits and trace of every cell, put together from what the cells share."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from asap.core.macs import backbone_macs
from asap.engine.trace import Trace, combined
from asap.methods.base import Method
from asap.shared_prefix.rules import Reduction, StopRule
from asap.shared_prefix.suffixes import Suffixes


@dataclass
class Answers:
    """`answers[i]`: what `ReducedViT(backbone, methods[i])` would give for the batch."""

    methods: list[Method]
    failed: dict[int, Exception]
    suffixes: Suffixes
    rule_of: dict[int, StopRule]  # by cell
    reduction_of: dict[int, Reduction]
    unreduced: dict[int, Tensor]  # block number -> (images,) numbers of suffixes not reduced

    def __post_init__(self) -> None:
        found = self.suffixes
        if not found.logits:  # every cell has failed
            return
        self._logits, self._assignment = torch.cat(found.logits), torch.cat(found.assignment)
        self._lengths, self._macs = torch.cat(found.lengths), torch.cat(found.macs)

    def __getitem__(self, cell: int) -> tuple[Tensor, Trace]:
        """Logits and trace on the CPU. Raises the error of the cell's decisions if they failed."""
        if cell in self.failed:
            raise self.failed[cell]
        rule, reduction = self.rule_of[cell], self.reduction_of[cell]
        stop, every = rule.stop, torch.arange(len(rule.stop))
        number = reduction.suffix[every, stop]
        never = self.unreduced.get(rule.last)
        if never is not None:
            number = torch.where(stop > 0, number, never)
        trace = replace(rule.trace, stop_block=stop.clone())
        trace.columns = self._columns(rule, reduction)
        trace.macs_method = trace.macs_method + reduction.spent[every, stop] + self._macs[number]
        trace.assignment = self._assignment[number]
        anatomy = self.suffixes.adapter.anatomy
        before = (stop == 0)[:, None] | (torch.arange(anatomy.depth + 1) < stop[:, None])
        trace.tokens = torch.where(before, anatomy.tokens, self._lengths[number][:, None])
        position = self.methods[cell].position
        macs = backbone_macs(self.suffixes.adapter.cost, trace.tokens.numpy(), position)
        trace.macs_backbone = torch.from_numpy(macs)
        return self._logits[number], trace

    def _columns(self, rule: StopRule, reduction: Reduction) -> dict[str, Tensor]:
        """The method's columns: of the observations, and of the reduction in the stop block."""
        columns = dict(rule.trace.columns)
        stopped = rule.stop.nonzero()[:, 0]
        for column in rule.trace.declared:
            if column.name in reduction.diagnostics:
                stop = rule.stop[stopped]
                found = reduction.diagnostics[column.name][stopped, stop]
                place = (stopped, stop - 1) if column.per_block else stopped
                held = columns[column.name].clone()
                found = found.to(held.dtype)
                held[place] = combined(column, held[place], found)
                columns[column.name] = held
        return columns
