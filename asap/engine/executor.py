"""Runs a backbone's blocks with a method: the backbone's layers, the method's decisions."""

import logging
from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from asap.backbones.accepted import adapter_of
from asap.core.macs import backbone_macs
from asap.core.packed import PackedTokens, Segment, pack
from asap.core.rows import rowwise
from asap.engine.attention import Attended, Heads
from asap.engine.backend import Backend, backend_device, backend_of
from asap.engine.device.decisions import fits, why_step_by_step
from asap.engine.device.forward import DevicePass
from asap.engine.graphs import Graphs
from asap.engine.query_pruning import attended_rows, shown_shares
from asap.engine.regroup import Answer, outcome_of
from asap.engine.steps import (
    Classified,
    ForwardState,
    add_attended,
    apply,
    ask,
    attention_half,
    count,
    drawn_of,
    heads_of,
    mlp_half,
    site_of,
)
from asap.engine.trace import Trace
from asap.methods.base import Method, Needs

log = logging.getLogger(__name__)
NOTHING = Needs()
MOST_SHAPES = 4  # batch shapes whose memory and recordings are kept


class ReducedViT(nn.Module):
    """A backbone whose forward pass reduces tokens as a method decides.

    backbone: an accepted ViT in evaluation mode; it is used, never modified.
    method: see `asap.methods`. Raises ValueError if the two do not fit.
    eager: explicit softmax attention everywhere instead of the fused kernel.
    backend: how the device computes a batch; None = as its type asks for.

    On a GPU a model runs one batch at a time, in memory that stays: threads need a model each.
    """

    def __init__(
        self,
        backbone: nn.Module,
        method: Method,
        eager: bool = False,
        backend: Backend | None = None,
    ) -> None:
        super().__init__()
        self.adapter = adapter_of(backbone)
        method.check(self.adapter.anatomy)
        method.check_weights(backbone)
        self.backbone = backbone
        self.method = method
        self.eager = eager
        self.backend = backend
        self._graphs: Graphs | None = None
        self._passes: dict[Hashable, DevicePass] = {}

    @property
    def path(self) -> str:
        """How a pass runs where the backbone is; part of the key of throughput records.

        "graphs": kernels of ours in CUDA graphs; "launches": the same, launched one by one; with
        "strict" before it if the backend is, and ", decisions step by step" after it if these are
        made by themselves, between recorded parts. "torch": torch's operators, images of equal
        length together; "recorded torch": those in CUDA graphs, as far as a batch does not depend
        on the images.
        """
        backend = self.backend or backend_of(self._weight.device)
        if self._decides_on_device(backend):
            way = "launches" if backend.recorder is None else "graphs"
            like = torch.empty(0, device=self._weight.device)
            apart = why_step_by_step(self.adapter, self.method, like) is not None
            way += ", decisions step by step" * apart
            return f"strict {way}" if backend.strict else way
        return "torch" if backend.recorder is None else "recorded torch"

    @property
    def unrecorded(self) -> str | None:
        """Why a piece of a pass, which `path` says is recorded, could not be; None: all were."""
        kept = (self._graphs, *(one.graphs for one in self._passes.values()))
        return next((one.failed for one in kept if one is not None and one.failed), None)

    def _apply(self, fn: Any, recurse: bool = True) -> "ReducedViT":
        self._passes, self._graphs = {}, None  # recordings know the weights by their addresses
        return super()._apply(fn, recurse)

    @torch.no_grad()
    def forward(
        self,
        images: Float[Tensor, "b 3 h w"],
        image_ids: Any = None,
        return_trace: bool = False,
    ) -> Float[Tensor, "b classes"] | tuple[Float[Tensor, "b classes"], Trace]:
        """Logits like the backbone's own; with `return_trace` also what happened to each image.

        `image_ids`: integers that name the images, for methods that draw at random; ValueError
        without them.
        """
        with backend_device(images.device):
            done = self._classified(images, image_ids)
        return (done.logits, self._trace(done.trace, done.source)) if return_trace else done.logits

    @torch.no_grad()
    def features(
        self, images: Float[Tensor, "b 3 h w"], image_ids: Any = None
    ) -> tuple[Float[Tensor, "total dim"], PackedTokens, Trace]:
        """Normalised final tokens in packed order, the batch with their layout, and the trace."""
        with backend_device(images.device):
            ids, drawn = self._given(images, image_ids)
            done = self._on_device(images, drawn, ids)
            if done is not None and done.final is not None:
                trace = self._trace(done.trace, done.source)
                batch = done.final.packed(trace.tokens[:, -1])
            else:
                now = self._run(images, ids, drawn)
                batch, trace = now.batch, self._trace(now.trace, now.batch.source)
            return self.adapter.features(batch), batch, trace

    def _given(self, images: Tensor, image_ids: Any) -> tuple[list[int] | None, Tensor | None]:
        """The images' names, and what the method draws for them. ValueError for a bad call."""
        if self.backbone.training:
            raise ValueError("the backbone is in training mode: call backbone.eval() first")
        if not len(images):
            raise ValueError("an empty batch has no result: give at least one image")
        ids = None if image_ids is None else [int(i) for i in image_ids]
        if self.method.draws and (ids is None or len(ids) != len(images)):
            kind = type(self.method).__name__
            raise ValueError(f"{kind} draws at random: pass image_ids, one each")
        return ids, drawn_of(self.method, self.adapter.anatomy, ids, images.device)

    def _classified(self, images: Tensor, image_ids: Any) -> Classified:
        """The pass up to the logits: on the device, or recorded as a whole, or as it is."""
        ids, drawn = self._given(images, image_ids)
        if (done := self._on_device(images, drawn, ids)) is not None:
            return replace(done, logits=done.logits.clone())
        inputs = (images,) if drawn is None else (images, drawn)
        named = self.method.draws and drawn is None  # it will ask for the images' names
        autocast = torch.is_autocast_enabled(images.device.type)
        graphs = None if named or autocast else self._recording(images)

        def work(images: Tensor, *drawn: Tensor) -> Classified:
            names = ids if graphs is None else None  # another batch has other ones
            now = self._run(images, names, *drawn)
            return Classified(self.adapter.classify(now.batch), now.trace, now.batch.source)

        if graphs is None:
            return work(*inputs)
        key = images.shape, images.dtype, images.device, self._weight.data_ptr()
        done = graphs.run(key, work, *inputs)
        return replace(done, logits=done.logits.clone())

    def _on_device(
        self, images: Tensor, drawn: Tensor | None, ids: list[int] | None
    ) -> Classified | None:
        """What a pass on the device gives, until the next one; None where there is no such pass."""
        if torch.is_autocast_enabled(images.device.type):
            return None
        try:
            one = self._device_pass(images)
            return None if one is None else one(images, drawn, ids)
        except torch.OutOfMemoryError:  # a smaller batch may come, which needs the memory
            self._passes.clear()
            raise

    @property
    def _weight(self) -> Tensor:
        """A weight that tells where the backbone is, and in which precision."""
        return self.adapter.blocks[0].attn.qkv.weight

    def _decides_on_device(self, backend: Backend) -> bool:
        """Whether passes run by `engine/device`."""
        eager = self.eager or not all(block.attn.fused_attn for block in self.adapter.blocks)
        return not eager and backend.decides(self._weight) and fits(self.adapter, self.method)

    def _device_pass(self, images: Tensor) -> DevicePass | None:
        """The pass on the device for such a batch; None if the executor's own steps run."""
        backend, weight = self.backend or backend_of(images.device), self._weight
        key = images.shape, images.dtype, images.device, weight.data_ptr()
        key += backend.recorder, backend.strict
        found = self._passes.pop(key, None)
        if found is None:
            if images.dtype != weight.dtype or not self._decides_on_device(backend):
                return None
            found = DevicePass(self.adapter, self.method, backend, len(images), weight)
        self._passes[key] = found
        if len(self._passes) > MOST_SHAPES:
            self._passes.pop(next(iter(self._passes)))
        return found

    def _recording(self, images: Tensor) -> Graphs | None:
        """The recordings of this model's own steps; None where nothing is to be recorded."""
        recorder = (self.backend or backend_of(images.device)).recorder
        if recorder and (self._graphs is None or self._graphs.recorder is not recorder):
            self._graphs = Graphs(recorder)
        return self._graphs if recorder else None

    def _run(
        self, images: Tensor, image_ids: list[int] | None, drawn: Tensor | None = None
    ) -> ForwardState:
        done = self._start(images, image_ids, drawn)
        for index, block in enumerate(self.adapter.blocks):
            self._block(index, block, done)
        count(self.adapter.anatomy.depth, done)
        return done

    def _start(
        self, images: Tensor, image_ids: list[int] | None, drawn: Tensor | None
    ) -> ForwardState:
        backend, anatomy = self.backend or backend_of(images.device), self.adapter.anatomy
        batch = pack(self.adapter.embed(images), anatomy.prefix, backend.alone_below)
        layout = (len(images), anatomy.depth, anatomy.patches, anatomy.prefix)
        trace = Trace.empty(*layout, self.method.trace_columns, images.device)
        state = self.method.start(anatomy, len(images), batch.sizes)
        return ForwardState(batch, trace, backend, state, image_ids, drawn)

    def _block(self, index: int, block: Any, now: ForwardState) -> None:
        acts = now.batch.active > 0 and self.method.acts_in(index, self.adapter.anatomy.depth)
        if acts and self.method.position == "before_block":
            self._reduce(index, now, None, None)
        count(index, now)
        eager, heads, attended = self.eager or not block.attn.fused_attn, None, None
        if acts and self.method.position == "in_attention":
            self._prune_queries(index, block, now, eager)
        else:
            asked = self.method.needs if acts else NOTHING, self.method.proportional_attention
            heads, attended = attention_half(block, now, *asked, eager)
        if acts and self.method.position == "after_attention":
            self._reduce(index, now, heads, attended)
        mlp_half(block, now)
        if acts and self.method.position == "after_block":
            self._reduce(index, now, heads, attended)

    def _prune_queries(self, index: int, block: Any, now: ForwardState, eager: bool) -> None:
        """The attention half of a block in which the method drops queries.

        The method decides about all images first, so that the device is read once; then attention
        is computed for the remaining queries only.
        """
        method, batch, hidden = self.method, now.batch, rowwise(block.norm1, now.batch.rows)
        heads = heads_of(block, hidden)
        answers: dict[Segment, Answer] = {}
        for segment in batch.segments:
            if segment.active:
                shown = shown_shares(heads, batch, segment, method, now.backend)
                answer = self._ask(index, segment, now, heads, shown)
                answers |= {} if answer is None else {segment: answer}
        outcome = outcome_of(batch, list(answers.values()))
        attended = attended_rows(heads, batch, answers, outcome, method, eager, now.backend)
        source = apply(now, list(answers.values()), outcome, averages=False)
        if source is not None:
            attended, hidden = attended[source], hidden[source]
        add_attended(block, now, hidden, attended)

    def _reduce(
        self, index: int, now: ForwardState, heads: Heads | None, attended: Attended | None
    ) -> None:
        """Ask the method about every active segment and apply its decisions."""
        answers = []
        for segment in now.batch.segments:
            if segment.active:
                shown = attended.shown.get(segment) if attended else None
                answers.append(self._ask(index, segment, now, heads, shown))
        apply(now, [answer for answer in answers if answer is not None])

    def _ask(
        self,
        index: int,
        segment: Segment,
        now: ForwardState,
        heads: Heads | None,
        shown: Tensor | None,
    ) -> Answer | None:
        """The method's answer for a segment, also written to the trace; None: nothing changes."""
        with torch.autocast(now.batch.rows.device.type, enabled=False):  # decide in float32
            site = site_of(self.adapter, index, segment, now, self.method.needs, heads, shown)
            return ask(self.method, site, segment, now.trace)

    def _trace(self, trace: Trace, source: Int[Tensor, "b patches"]) -> Trace:
        """The trace on the host, with the backbone's MACs."""
        trace = trace.finished(source)
        macs = backbone_macs(self.adapter.cost, trace.tokens.numpy(), self.method.position)
        trace.macs_backbone = torch.from_numpy(macs)
        return trace
