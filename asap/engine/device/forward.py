"""A forward pass in which the device decides, with kernels and recorded work.

It does what the executor does, in another way: all images stay one site, in their order; where each
image's rows lie is a tensor (`offsets`), and a mask says which images are still watched. So a pass
with a fixed schedule never involves the host and is one recording.

Where the number of tokens depends on the image, a stage ends with the plan of the regrouping and
the number of rows on its way to the host. Projection, regrouping and norm need no number and run
meanwhile; then the host reads, and launches the next stage for as many rows, rounded up to a
bucket, so that few recordings are made. Rows behind the last one are computed with and never used.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from asap.backbones.adapter import BackboneAdapter
from asap.core.rows import in_chunks
from asap.engine.backend import Backend
from asap.engine.device import layers
from asap.engine.device.attend import attend
from asap.engine.device.decisions import decide, observes, site_at
from asap.engine.device.final_rows import FinalRows
from asap.engine.device.flow import Flow, Layout, NotOnDevice, Planned, Stop
from asap.engine.device.memory import Memory, ragged
from asap.engine.device.query_pruning import attend_kept, compute_heads, shown_shares
from asap.engine.graphs import Graphs
from asap.engine.host import Ahead
from asap.engine.kernels.launch import next_power_of_2
from asap.engine.kernels.regroup_rows import regroup_rows
from asap.engine.steps import Classified, heads_of, projected
from asap.methods.base import Method, Needs

T = TypeVar("T")
BUCKETS = 128  # numbers of rows that are told apart, about
FEWEST = 64  # rows of a bucket at least: products are cut into tiles of so many rows anyway
NEAR = 64  # lengths of the longest image are told apart by so many tokens
NOTHING = Needs(tokens=False)


class DevicePass:
    """Passes over batches of one shape, with their memory and recordings.

    images: how many a batch has. like: gives dtype and device of the tokens. `decisions.fits` says
    for which methods there is one.
    """

    def __init__(
        self, adapter: BackboneAdapter, method: Method, backend: Backend, images: int, like: Tensor
    ) -> None:
        self.adapter, self.method, self.backend, self.images = adapter, method, backend, images
        self.anatomy, wanted = adapter.anatomy, method.needs.attention
        maps = wanted is not None and (wanted.rows, wanted.heads) == ("all", "mean")
        self.inside = method.position == "in_attention"
        columns = method.trace_columns
        self.memory = Memory.of(self.anatomy, images, like, columns, maps, self.inside)
        self.state: Any = None
        if observes(method):
            with torch.inference_mode(False):
                self.state = method.kept_state(self.anatomy, images, self.memory.ones)
        self.drawn: Tensor | None = None
        self.ahead = Ahead(self.memory.plans[0].counts)
        self.graphs = None if backend.recorder is None else Graphs(backend.recorder)
        rows = images * self.anatomy.tokens
        self.bucket = next_power_of_2(rows // BUCKETS, FEWEST)

    def __call__(self, images: Float[Tensor, "b 3 h w"], drawn: Tensor | None) -> Classified:
        """Logits and trace, which the next call overwrites.

        NotOnDevice, in the first call, for a method whose answers do not allow it.
        """
        if drawn is not None:
            if self.drawn is None:
                with torch.inference_mode(False):
                    self.drawn = torch.empty_like(drawn)
            self.drawn.copy_(drawn)
        found = self._run("start", self._start, images)
        while isinstance(found, Stop):
            found = self._after(found)
        return found

    def _after(self, stop: Stop) -> Stop | Classified:
        """Regroup while the number of rows comes to the host, then go on with as many."""
        self.ahead.send(self.memory.plans[stop.layout.side ^ 1].counts)
        self._run(("regroup", stop), lambda: self._regroup(stop))
        layout = self._layout_after(stop, self.ahead.receive())
        return self._run(("rest", stop.block, layout), lambda: self._rest(stop.block, layout))

    def _run(self, key: Any, work: Callable[..., T], *inputs: Tensor) -> T:
        with in_chunks(self.backend.strict):
            return work(*inputs) if self.graphs is None else self.graphs.run(key, work, *inputs)

    def _layout_after(self, stop: Stop, counts: list[int]) -> Layout:
        """From total rows, images watched, tokens of the longest image and images reduced."""
        total, watching, longest, reduced = counts
        side = stop.layout.side ^ 1
        if not reduced:
            return replace(stop.layout, side=side)
        rows = min(-(-total // self.bucket) * self.bucket, self.images * self.anatomy.tokens)
        near = min(-(-longest // NEAR) * NEAR, self.anatomy.tokens)
        merged = stop.layout.merged or not self.inside
        return Layout(rows, near, None, watching > 0, merged, side)

    # ---- stages, which are recorded

    def _start(self, images: Tensor) -> Stop | Classified:
        """From the images to the first decision that the host has to wait for, or to the end."""
        memory, n = self.memory, self.anatomy.tokens
        memory.restart(self.anatomy.prefix)
        if observes(self.method):
            self.state.restart()
        else:
            self.state = self.method.start(self.anatomy, self.images, memory.ones)
        room = memory.tokens[0].rows, memory.hidden
        normed = layers.embed(self.adapter, images, self.adapter.blocks[0].norm1, *room)
        return self._blocks(0, Flow(Layout(self.images * n, n, n, True), normed=normed))

    def _regroup(self, stop: Stop) -> None:
        """What becomes of the rows after a decision."""
        if self.inside:
            self._keep_queries(stop.block, stop.layout)
            return
        memory, rows = self.memory, slice(stop.layout.rows)
        block, update, norm = self.adapter.blocks[stop.block], memory.attended[rows], None
        if self.method.position == "after_attention":
            update, norm = projected(block, memory.hidden[rows], update), block.norm2
        elif stop.block + 1 < self.anatomy.depth:
            norm = self.adapter.blocks[stop.block + 1].norm1
        flow = Flow(stop.layout, update)
        self._move(flow, memory.weight if stop.weighted else None, norm)

    def _rest(self, block: int, layout: Layout) -> Stop | Classified:
        """From where the rows were regrouped on."""
        if self.method.position == "after_block":
            return self._blocks(block + 1, Flow(layout, normed=block + 1 < self.anatomy.depth))
        flow = Flow(layout)
        if self.inside:
            self._project(block, flow)
        return self._mlp(block, flow) or self._blocks(block + 1, flow)

    def _blocks(self, first: int, flow: Flow) -> Stop | Classified:
        for index in range(first, self.anatomy.depth):
            stop = self._attention(index, flow) or self._mlp(index, flow)
            if stop is not None:
                return stop
        return self._classified(flow)

    # ---- halves of a block

    def _attention(self, index: int, flow: Flow) -> Stop | None:
        """The attention half, up to the norm before the MLP."""
        block, method, memory = self.adapter.blocks[index], self.method, self.memory
        acts = flow.layout.watching and method.acts_in(index, self.anatomy.depth)
        if acts and method.position == "before_block":
            self._at_once(index, flow, block.norm1)
        self._count(index, flow.layout)
        self._norm(flow, block.norm1)
        layout = flow.layout
        if acts and self.inside:
            return self._attention_inside(index, flow)
        hidden = memory.hidden[: layout.rows]
        heads = heads_of(block, hidden)
        needs = method.needs if acts else NOTHING
        out, shown = attend(heads, layout, method, needs, memory, self.backend)
        flow.seen = heads, shown
        acts = acts and method.position == "after_attention"
        if acts and not needs.tokens:
            planned = self._decide(index, flow)
            if planned is not None and planned.after is None:
                return self._stop(index, layout, planned, out)
            flow.update = projected(block, hidden, out)
            self._move_at_once(flow, planned, block.norm2)
        else:
            flow.update = projected(block, hidden, out)
            if acts:
                self._at_once(index, flow, block.norm2)
        self._norm(flow, block.norm2)
        return None

    def _attention_inside(self, index: int, flow: Flow) -> Stop | None:
        """The rest of that half in a block where the method drops queries."""
        layout = flow.layout
        hidden = self.memory.hidden[: layout.rows]
        heads = compute_heads(self.adapter.blocks[index], hidden, self.memory)
        flow.seen = heads, shown_shares(heads, layout, self.method, self.memory)
        planned = self._decide(index, flow)
        if planned is not None and planned.after is None:
            return self._stop(index, layout, planned, None)
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

    def _mlp(self, index: int, flow: Flow) -> Stop | None:
        """The MLP half; the norm of the next block too if the rows were regrouped."""
        method, layout = self.method, flow.layout
        block = self.adapter.blocks[index]
        flow.update = layers.mlp_update(block, self.memory.hidden[: layout.rows])
        acts = layout.watching and method.acts_in(index, self.anatomy.depth)
        if not (acts and method.position == "after_block"):
            return None
        if method.needs.tokens:
            self._settle(flow)
        planned = self._decide(index, flow)
        if planned is not None and planned.after is None:
            update = flow.update
            return self._stop(index, layout, planned, update)
        last = index + 1 == self.anatomy.depth
        self._move_at_once(flow, planned, None if last else self.adapter.blocks[index + 1].norm1)
        return None

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

    def _decide(self, index: int, flow: Flow) -> Planned | None:
        parts = self.adapter, self.method, self.memory, self.state, self.drawn
        return decide(site_at(index, flow, *parts), flow.layout, self.method, self.memory)

    def _at_once(self, index: int, flow: Flow, norm: Any) -> None:
        """A decision made from the tokens, before they go through the norm."""
        self._settle(flow)
        planned = self._decide(index, flow)
        if planned is not None and planned.after is None:
            raise NotOnDevice("a decision about each image that needs the tokens")
        self._move_at_once(flow, planned, norm)

    def _move_at_once(self, flow: Flow, planned: Planned | None, norm: Any) -> None:
        """Regroup by a plan whose outcome the host knows."""
        if planned is not None and planned.after is not None:
            self._move(flow, planned.weight, norm)
            flow.layout, flow.normed = planned.after, norm is not None

    def _stop(self, index: int, layout: Layout, planned: Planned, rows: Tensor | None) -> Stop:
        """End a stage; `rows`, of attention or MLP, and weights go where the next finds them."""
        if rows is not None and rows.data_ptr() != self.memory.attended.data_ptr():
            self.memory.attended[: layout.rows].copy_(rows)
        if planned.weight is not None:
            self.memory.weight.copy_(planned.weight)
        return Stop(index, layout, planned.weight is not None)
