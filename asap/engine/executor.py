"""Runs a backbone's blocks with a method: the backbone's layers, the method's decisions."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from asap.backbones.accepted import trunk_of
from asap.core.macs import backbone_macs
from asap.core.packed import Ragged, Run, pack
from asap.core.rows import rowwise
from asap.engine.attention import Attended, Heads, attend
from asap.engine.query_pruning import kept_products, shown_shares
from asap.engine.regroup import Answer, lengths_left
from asap.engine.steps import (
    Pass,
    add_attended,
    apply,
    ask,
    attention_half,
    count,
    heads_of,
    mlp_half,
    site_of,
)
from asap.engine.trace import Trace
from asap.methods.base import Method, Needs

NOTHING = Needs()


class ReducedViT(nn.Module):
    """A backbone whose forward pass reduces tokens as a method decides.

    backbone: an accepted ViT in evaluation mode; it is used, never modified.
    method: see `asap.methods`. Raises ValueError if the two do not fit.
    eager: explicit softmax attention everywhere instead of the fused kernel.
    """

    def __init__(self, backbone: nn.Module, method: Method, eager: bool = False) -> None:
        super().__init__()
        self.trunk = trunk_of(backbone)
        method.check(self.trunk.anatomy)
        method.check_weights(backbone)
        self.backbone = backbone
        self.method = method
        self.eager = eager

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
        done = self._run(images, image_ids)
        logits = self.trunk.classify(done.batch)
        return (logits, done.trace) if return_trace else logits

    @torch.no_grad()
    def features(
        self, images: Float[Tensor, "b 3 h w"], image_ids: Any = None
    ) -> tuple[Float[Tensor, "total dim"], Ragged, Trace]:
        """Normalised final tokens in packed order, the batch that says whose they are, trace."""
        done = self._run(images, image_ids)
        return self.trunk.features(done.batch), done.batch, done.trace

    def _run(self, images: Tensor, image_ids: Any) -> Pass:
        if self.backbone.training:
            raise ValueError("the backbone is in training mode: call backbone.eval() first")
        if not len(images):
            raise ValueError("an empty batch has no result: give at least one image")
        done = self._start(images, image_ids)
        for index, block in enumerate(self.trunk.blocks):
            self._block(index, block, done)
        self._finish(done)
        return done

    def _start(self, images: Tensor, image_ids: Any) -> Pass:
        ids = None if image_ids is None else [int(i) for i in image_ids]
        if self.method.draws and (ids is None or len(ids) != len(images)):
            raise ValueError(
                f"{type(self.method).__name__} draws at random: pass image_ids, one each"
            )
        batch = pack(self.trunk.embed(images))
        anatomy = self.trunk.anatomy
        trace = Trace.empty(
            len(images), anatomy.depth, anatomy.patches, anatomy.prefix, self.method.trace_columns
        )
        state = self.method.start(anatomy, len(images), batch.sizes)
        return Pass(batch, trace, state, ids, list(batch.runs()))

    def _block(self, index: int, block: Any, now: Pass) -> None:
        acts = now.batch.watched > 0 and self.method.acts_in(index, self.trunk.anatomy.depth)
        if acts and self.method.position == "before_block":
            self._reduce(index, now, None, None)
        count(index, now)
        eager, heads, attended = self.eager or not block.attn.fused_attn, None, None
        if acts and self.method.position == "in_attention":
            self._narrow(index, block, now, eager)
        else:
            needs = self.method.needs if acts else NOTHING
            proportional = self.method.proportional_attention
            heads, attended = attention_half(block, now, needs, proportional, eager)
        if acts and self.method.position == "after_attention":
            self._reduce(index, now, heads, attended)
        mlp_half(block, now)
        if acts and self.method.position == "after_block":
            self._reduce(index, now, heads, attended)

    def _narrow(self, index: int, block: Any, now: Pass, eager: bool) -> None:
        """The attention half of a block whose queries the method thins out."""
        method, hidden = self.method, rowwise(block.norm1, now.batch.rows)
        heads = heads_of(block, hidden)
        answers = {}
        for run in now.runs:
            if run.watched:
                shown = shown_shares(heads, now.batch, run, method)
                answers[run] = self._ask(index, run, now, heads, shown)
        outputs = []
        for run in now.runs:
            answer = answers.get(run)
            if run.watched:
                left = lengths_left(run, answer)
                decision = None if answer is None else answer.decision
                out = kept_products(heads, now.batch, run, method, decision, left)
            else:
                proportional = method.proportional_attention
                out = attend(heads, now.batch, [run], NOTHING, proportional, eager).rows
            outputs.append(out)
        attended, source = torch.cat(outputs), apply(now, list(answers.values()))
        if source is not None:
            attended, hidden = attended[source], hidden[source]
        add_attended(block, now, hidden, attended)

    def _reduce(
        self, index: int, now: Pass, heads: Heads | None, attended: Attended | None
    ) -> None:
        """Ask the method about every watched run and apply what it says."""
        answers = []
        for run in now.runs:
            if run.watched:
                shown = attended.shown.get(run) if attended else None
                answers.append(self._ask(index, run, now, heads, shown))
        apply(now, answers)

    def _ask(
        self, index: int, run: Run, now: Pass, heads: Heads | None, shown: Tensor | None
    ) -> Answer | None:
        """What the method says of a run, in the trace too; None: nothing changes."""
        with torch.autocast(now.batch.rows.device.type, enabled=False):  # decide in float32
            site = site_of(self.trunk, index, run, now, self.method.needs, heads, shown)
            return ask(self.method, site, run, now)

    def _finish(self, now: Pass) -> None:
        count(self.trunk.anatomy.depth, now)
        macs = backbone_macs(self.trunk.cost, now.trace.tokens.numpy(), self.method.position)
        now.trace.macs_backbone = torch.from_numpy(macs)
