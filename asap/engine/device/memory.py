"""The fixed memory of passes over batches of one shape, which recorded work reads and writes."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from asap.core.anatomy import Anatomy
from asap.core.ragged import RaggedTokens
from asap.engine.device.flow import Layout
from asap.engine.kernels.head_mean_map import map_dtype
from asap.engine.kernels.launch import pitch_of
from asap.engine.kernels.regroup_plan import RegroupPlan
from asap.engine.kernels.regroup_rows import RegroupedRows
from asap.engine.trace import Trace
from asap.methods.base import Column


@dataclass(frozen=True)
class Memory:
    """Memory for B images of n tokens. Work that is recorded knows it by its addresses, so whoever
    owns the recordings owns this too.

    tokens: the packed tokens on two sides, since regrouping reads one and writes the other; both
    share `hidden`, the rows after the norm. plans: what regrouping does, likewise; the last one has
    the images' offsets and which of them are watched. attended: rows between attention and
    projection. qkv: queries, keys and values where a decision is made inside the attention, else
    None. maps: head-averaged attention, zero-padded, None if it is not needed. weight: of a
    decision's averages. trace: what happened, as in any pass.
    """

    tokens: tuple[RegroupedRows, RegroupedRows]
    plans: tuple[RegroupPlan, RegroupPlan]
    attended: Float[Tensor, "rows dim"]
    qkv: Float[Tensor, "rows dim_3"] | None
    maps: Float[Tensor, "b pitch pitch"] | None
    weight: Float[Tensor, "b n"]
    ones: Float[Tensor, "b n"]
    source: Int[Tensor, "b patches"]
    trace: Trace

    @staticmethod
    def of(
        anatomy: Anatomy,
        images: int,
        like: Tensor,
        columns: tuple[Column, ...],
        with_maps: bool,
        with_heads: bool,
    ) -> "Memory":
        """Memory for a batch; `like` gives dtype and device of the tokens."""
        n, device = anatomy.tokens, like.device
        with torch.inference_mode(False):
            rows = torch.zeros(images * n, anatomy.width, dtype=like.dtype, device=device)
            ones = torch.ones(images, n, device=device)
            sides = [RegroupedRows.empty(rows, ones.flatten(), norm=True) for _ in range(2)]
            sides[1] = _with_hidden_of(sides[1], sides[0])
            plan = RegroupPlan.empty(images * n, images, anatomy.patches, device)
            pitch = pitch_of(n)
            maps = torch.zeros(
                images if with_maps else 0, pitch, pitch, dtype=map_dtype(like.dtype), device=device
            )
            made = Memory(
                tokens=(sides[0], sides[1]),
                plans=(plan, _other(plan)),
                attended=torch.zeros_like(rows),
                qkv=rows.new_zeros(len(rows), 3 * anatomy.width) if with_heads else None,
                maps=maps if with_maps else None,
                weight=torch.ones_like(ones),
                ones=ones,
                source=plan.source,
                trace=Trace.empty(
                    images, anatomy.depth, anatomy.patches, anatomy.prefix, columns, device
                ),
            )
        for held in (sides[0].rows, sides[1].rows, made.hidden):
            held.zero_()  # rows behind the last one are computed with, though never used
        return made

    @property
    def hidden(self) -> Float[Tensor, "rows dim"]:
        """The rows after the last norm."""
        hidden = self.tokens[0].hidden
        assert hidden is not None
        return hidden

    def weights(self, layout: Layout) -> Float[Tensor, "b m"]:
        """The room for a decision's weights, m for each image: as many as its targets."""
        n = layout.longest if layout.length is None else layout.length
        return self.weight.flatten()[: len(self.weight) * n].view(len(self.weight), n)

    def restart(self, prefix: int) -> None:
        """As before the first block: every image whole and watched."""
        n = self.ones.shape[1]
        first = self.tokens[0]
        first.sizes.fill_(1)
        first.log_sizes.zero_()
        first.positions.view(-1, n).copy_(torch.arange(n, device=self.ones.device))
        self.source.copy_(torch.arange(prefix, n, device=self.ones.device))
        plan = self.plans[0]
        torch.arange(0, (len(self.ones) + 1) * n, n, out=plan.offsets)
        plan.watched.fill_(True)
        self.trace.restart()


def ragged(memory: Memory, layout: Layout) -> RaggedTokens:
    """The tokens as a head wants them."""
    tokens, rows = memory.tokens[layout.side], slice(layout.rows)
    offsets, merged = memory.plans[layout.side].offsets, layout.merged
    shape = layout.longest, layout.length, merged, memory.source
    return RaggedTokens(tokens.rows[rows], tokens.sizes[rows], offsets, *shape)


def _with_hidden_of(side: RegroupedRows, other: RegroupedRows) -> RegroupedRows:
    return RegroupedRows(side.rows, other.hidden, side.sizes, side.log_sizes, side.positions)


def _other(plan: RegroupPlan) -> RegroupPlan:
    """A plan with memory of its own for what a plan is made from and so may not overwrite."""
    return RegroupPlan(
        offsets=torch.zeros_like(plan.offsets),
        members=plan.members,
        begin=plan.begin,
        end=plan.end,
        reduced=plan.reduced,
        watched=torch.zeros_like(plan.watched),
        source=plan.source,
        averaged=plan.averaged,
        counts=torch.zeros_like(plan.counts),
    )
