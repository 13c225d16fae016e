"""The stages of a pass on the device: work that can be recorded.

A stage ends with the logits, with a decision that the host has to wait for (`Stop`), or before one
that is made step by step (`Question`). It knows its memory by addresses, and nothing of the host.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from asap.backbones.adapter import BackboneAdapter
from asap.engine.backend import Backend
from asap.engine.device import layers
from asap.engine.device.attend import attend
from asap.engine.device.decisions import decide, observes, reads_heads, why_step_by_step
from asap.engine.device.final_rows import FinalRows
from asap.engine.device.flow import Flow, Layout, Planned, Question, Stop
from asap.engine.device.memory import Memory, ragged
from asap.engine.device.query_pruning import attend_kept, compute_heads, shown_shares
from asap.engine.device.sites import Asked, site_at
from asap.engine.graphs import Unrecordable
from asap.engine.kernels.regroup_rows import regroup_rows
from asap.engine.steps import Classified, heads_of, projected
from asap.methods.base import Method, Needs

End = Stop | Question
NOTHING = Needs(tokens=False)


class Stages:
    """The stages of passes over batches of one shape, with their memory and the method's state.

    images: how many a batch has. like: gives dtype and device of the tokens. recording: whether
    work is being recorded now.
    """

    def __init__(
        self,
        adapter: BackboneAdapter,
        method: Method,
        backend: Backend,
        images: int,
        like: Tensor,
        recording: Callable[[], bool],
    ) -> None:
        self.adapter, self.method, self.backend, self.images = adapter, method, backend, images
        self.recording = recording
        self.anatomy, wanted = adapter.anatomy, method.needs.attention
        maps = wanted is not None and (wanted.rows, wanted.heads) == ("all", "mean")
        self.inside = method.position == "in_attention"
        columns = method.trace_columns
        ones = torch.empty(0, device=like.device)
        self.step_by_step = why_step_by_step(adapter, method, ones) is not None
        heads = self.inside or (self.step_by_step and reads_heads(method))
        self.memory = Memory.of(self.anatomy, images, like, columns, maps, heads)
        self.state: Any = None
        if observes(method) and not self.step_by_step:
            with torch.inference_mode(False):
                self.state = method.kept_state(self.anatomy, images, self.memory.ones)
        self.drawn: Tensor | None = None

    @property
    def asked(self) -> Asked:
        return Asked(self.adapter, self.method, self.memory, self.state, self.drawn)

    def draw(self, drawn: Tensor | None) -> None:
        """Put what was drawn for a batch where its stages find it."""
        if drawn is None:
            return
        if self.drawn is None:
            with torch.inference_mode(False):
                self.drawn = torch.empty_like(drawn)
        self.drawn.copy_(drawn)

    def start(self, images: Tensor) -> End | Classified:
        """From the images to the first decision that the host has to wait for, or to the end."""
        memory, n = self.memory, self.anatomy.tokens
        memory.restart(self.anatomy.prefix)
        if observes(self.method) and not self.step_by_step and self.state is not None:
            self.state.restart()
        elif not self.step_by_step:
            self.state = self.method.start(self.anatomy, self.images, memory.ones)
        room = memory.tokens[0].rows, memory.hidden
        normed = layers.embed(self.adapter, images, self.adapter.blocks[0].norm1, *room)
        return self._blocks(0, Flow(Layout(self.images * n, n, n, True), normed=normed))

    def regroup(self, stop: Stop) -> None:
        """What becomes of the rows after a decision."""
        if self.inside:
            self._keep_queries(stop.block, stop.layout)
            return
        memory, rows = self.memory, slice(stop.layout.rows)
        block, update = self.adapter.blocks[stop.block], memory.attended[rows]
        if self.method.position == "after_attention" and not stop.settled:
            update = projected(block, memory.hidden[rows], update)
        flow = Flow(stop.layout, None if stop.settled else update)
        weight = memory.weights(stop.layout) if stop.weighted else None
        self._move(flow, weight, self._next_norm(stop.block))

    def _next_norm(self, index: int) -> Any:
        """The norm that comes after the decision of a block; None after the last block."""
        if self.method.position == "after_block":
            last = index + 1 == self.anatomy.depth
            return None if last else self.adapter.blocks[index + 1].norm1
        block = self.adapter.blocks[index]
        return block.norm1 if self.method.position == "before_block" else block.norm2

    def rest(self, block: int, layout: Layout) -> End | Classified:
        """From where the rows were regrouped on."""
        if self.method.position == "before_block":
            return self._blocks(block, Flow(layout, normed=True), asked=True)
        if self.method.position == "after_block":
            return self._blocks(block + 1, Flow(layout, normed=block + 1 < self.anatomy.depth))
        flow = Flow(layout)
        if self.inside:
            self._project(block, flow)
        return self._mlp(block, flow) or self._blocks(block + 1, flow)

    def _blocks(self, first: int, flow: Flow, asked: bool = False) -> End | Classified:
        """asked: the decision before the first of these blocks has been made."""
        for index in range(first, self.anatomy.depth):
            before = None if asked and index == first else self._before(index, flow)
            end = before or self._attention(index, flow) or self._mlp(index, flow)
            if end is not None:
                return end
        return self._classified(flow)

    # ---- halves of a block

    def _acts(self, index: int, flow: Flow) -> bool:
        return flow.layout.watching and self.method.acts_in(index, self.anatomy.depth)

    def _before(self, index: int, flow: Flow) -> End | None:
        """The decision before a block."""
        if self.method.position != "before_block" or not self._acts(index, flow):
            return None
        flow.seen = None, None
        return self._decide(index, flow, None)

    def _attention(self, index: int, flow: Flow) -> End | None:
        """The attention half, up to the norm before the MLP."""
        block, method, memory = self.adapter.blocks[index], self.method, self.memory
        acts = self._acts(index, flow)
        self._count(index, flow.layout)
        self._norm(flow, block.norm1)
        layout = flow.layout
        if acts and self.inside:
            return self._attention_inside(index, flow)
        hidden = memory.hidden[: layout.rows]
        # What is read between two recordings lies in fixed memory: what a recording gives stays its
        # own for as long as it is kept, and queries, keys and values of all of them would be many.
        kept = acts and memory.qkv is not None
        heads = compute_heads(block, hidden, memory) if kept else heads_of(block, hidden)
        needs = method.needs if acts else NOTHING
        parts = heads, layout, method, needs, memory, self.backend, self.step_by_step
        out, shown = attend(*parts)
        flow.seen = heads, shown
        if not (acts and method.position == "after_attention"):
            flow.update = projected(block, hidden, out)
        elif needs.tokens:
            flow.update = projected(block, hidden, out)
            if (end := self._decide(index, flow, None)) is not None:
                return end
        elif (end := self._decide(index, flow, out)) is not None:
            return end
        self._norm(flow, block.norm2)
        return None

    def _attention_inside(self, index: int, flow: Flow) -> End | None:
        """The rest of that half in a block where the method drops queries."""
        layout = flow.layout
        hidden = self.memory.hidden[: layout.rows]
        heads = compute_heads(self.adapter.blocks[index], hidden, self.memory)
        if self.step_by_step:
            return Question(index, layout, False, (heads, None))
        flow.seen = heads, shown_shares(heads, layout, self.method, self.memory)
        planned = self._planned(index, flow)
        if planned is not None and planned.after is None:
            return self.stop(index, layout, planned, False)
        self._keep_queries(index, layout, planned is not None)
        if planned is not None and planned.after is not None:
            flow.layout = planned.after
        self._project(index, flow)
        return None

    def _keep_queries(self, index: int, layout: Layout, drops: bool = True) -> None:
        """Attention of the queries that the last plan keeps (not `drops`: all), in new places."""
        block, epsilon = self.adapter.blocks[index], self.method.softmax_epsilon
        attend_kept(block, layout, drops, epsilon, self.memory)
        if drops:
            self._move(Flow(layout), None, None)

    def _project(self, index: int, flow: Flow) -> None:
        """From the attention's output to the norm before the MLP."""
        block, rows = self.adapter.blocks[index], slice(flow.layout.rows)
        flow.update = projected(block, self.memory.hidden[rows], self.memory.attended[rows])
        self._norm(flow, block.norm2)

    def _mlp(self, index: int, flow: Flow) -> End | None:
        """The MLP half; the norm of the next block too if the rows were regrouped."""
        block, rows = self.adapter.blocks[index], slice(flow.layout.rows)
        flow.update = layers.mlp_update(block, self.memory.hidden[rows])
        if self.method.position != "after_block" or not self._acts(index, flow):
            return None
        return self._decide(index, flow, None if self.method.needs.tokens else flow.update)

    def _classified(self, flow: Flow) -> Classified:
        memory, layout = self.memory, flow.layout
        self._settle(flow)
        self._count(self.anatomy.depth, layout)
        if not observes(self.method):
            self.state = None  # it was this pass's alone
        tokens = ragged(memory, layout)
        final = FinalRows(tokens, memory.tokens[layout.side].positions[: layout.rows])
        return Classified(self.adapter.classify_ragged(tokens), memory.trace, memory.source, final)

    # ---- rows

    def _count(self, index: int, layout: Layout) -> None:
        """Write the tokens that enter block `index` into the trace."""
        offsets = self.memory.plans[layout.side].offsets
        torch.sub(offsets[1:], offsets[:-1], out=self.memory.trace.tokens[:, index])

    def _norm(self, flow: Flow, norm: Any) -> None:
        """Add the residual and norm the rows, unless that was done with the regrouping."""
        if not flow.normed:
            rows = slice(flow.layout.rows)
            held = self.memory.tokens[flow.layout.side].rows[rows]
            layers.normed(held, flow.update, norm, self.memory.hidden[rows])
        flow.update, flow.normed = None, False

    def _settle(self, flow: Flow) -> None:
        """Add the residual alone."""
        if flow.update is not None:
            self.memory.tokens[flow.layout.side].rows[: flow.layout.rows] += flow.update
            flow.update = None

    def _move(self, flow: Flow, weight: Tensor | None, norm: Any) -> None:
        """Residual, regrouping by the last plan, and the norm (None: none)."""
        memory, layout, rows = self.memory, flow.layout, slice(flow.layout.rows)
        old, new = memory.tokens[layout.side], memory.tokens[layout.side ^ 1]
        known = None if norm is None else layers.parameters_of(norm)
        plan, offsets = memory.plans[layout.side ^ 1], memory.plans[layout.side].offsets
        tokens = old.rows[rows], flow.update, old.sizes[rows], old.positions[rows]
        regroup_rows(plan, offsets, layout.longest, *tokens, weight, known, out=new)
        flow.update = None
        if norm is not None and known is None:
            layers.normed(new.rows[rows], None, norm, memory.hidden[rows])

    # ---- decisions

    def _decide(self, index: int, flow: Flow, rows: Tensor | None) -> End | None:
        """Ask the method and regroup, or end the stage.

        rows: of attention or MLP, which are not part of the tokens yet; None: the method sees the
        tokens with all that was added to them.
        """
        layout = flow.layout
        if rows is None:
            self._settle(flow)
        planned = None if self.step_by_step else self._planned(index, flow)
        if self.step_by_step or (planned is not None and planned.after is None):
            if rows is not None and rows.data_ptr() != self.memory.attended.data_ptr():
                self.memory.attended[: layout.rows].copy_(rows)
            if planned is None:
                heads = flow.seen[0] if self.memory.qkv is not None else None
                return Question(index, layout, rows is None, (heads, flow.seen[1]))
            return self.stop(index, layout, planned, rows is None)
        if rows is not None and self.method.position == "after_attention":
            hidden = self.memory.hidden[: layout.rows]
            flow.update = projected(self.adapter.blocks[index], hidden, rows)
        if planned is not None and planned.after is not None:
            norm = self._next_norm(index)
            self._move(flow, planned.weight, norm)
            flow.layout, flow.normed = planned.after, norm is not None
        return None

    def _planned(self, index: int, flow: Flow) -> Planned | None:
        """The decision about all images. Unrecordable if it cannot be recorded with the rest."""
        site = site_at(index, flow.layout, flow.seen, self.asked)
        try:
            return decide(site, flow.layout, self.method, self.memory)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or not self.recording():
                raise
            raise Unrecordable(str(error).splitlines()[0]) from error

    def stop(self, index: int, layout: Layout, planned: Planned, settled: bool) -> Stop:
        """End a stage after a decision, whose weights go where the next stage finds them."""
        if planned.weight is not None:
            self.memory.weights(layout).copy_(planned.weight)
        return Stop(index, layout, planned.weight is not None, settled)
