"""Runs a backbone's blocks with a method: the backbone's layers, the method's decisions."""

from collections.abc import Set
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from asap.backbones.families import trunk_of
from asap.core.macs import backbone_macs
from asap.core.rows import rowwise
from asap.engine.attention import Attended, Heads, attend, split
from asap.engine.narrow import head_maps, kept_products, slabs
from asap.engine.regroup import plan, regroup
from asap.methods.base import Decision, Method, Need, Site
from asap.tokens import Ragged, Run, Trace, pack


@dataclass
class _Pass:
    """One forward pass: the batch now, the trace so far, the method's state."""

    batch: Ragged
    trace: Trace
    state: Any
    image_ids: list[int] | None
    runs: list[Run]


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

    def _run(self, images: Tensor, image_ids: Any) -> _Pass:
        if self.backbone.training:
            raise ValueError("the backbone is in training mode: call backbone.eval() first")
        if not len(images):
            raise ValueError("an empty batch has no result: give at least one image")
        done = self._start(images, image_ids)
        for index, block in enumerate(self.trunk.blocks):
            self._block(index, block, done)
        self._finish(done)
        return done

    def _start(self, images: Tensor, image_ids: Any) -> _Pass:
        ids = None if image_ids is None else [int(i) for i in image_ids]
        if self.method.draws and (ids is None or len(ids) != len(images)):
            raise ValueError(
                f"{type(self.method).__name__} draws at random: pass image_ids, one each"
            )
        batch = pack(self.trunk.embed(images))
        anatomy = self.trunk.anatomy
        trace = Trace.empty(len(images), anatomy.depth, anatomy.patches, anatomy.prefix)
        state = self.method.start(anatomy, len(images), batch.sizes)
        return _Pass(batch, trace, state, ids, list(batch.runs()))

    def _block(self, index: int, block: Any, now: _Pass) -> None:
        acts = now.batch.watched > 0 and self.method.acts_in(index, self.trunk.anatomy.depth)
        if acts and self.method.position == "before_block":
            self._reduce(index, now, None, None)
        self._count(index, now)
        hidden = rowwise(block.norm1, now.batch.rows)
        heads = _heads(block, hidden)
        fused, attended = block.attn.fused_attn and not self.eager, None
        if acts and self.method.position == "in_attention":
            rows, hidden = self._narrow(index, now, heads, hidden, fused)
        else:
            wanted = self.method.needs if acts else frozenset()
            attended = self._attend(now, now.runs, heads, fused, wanted)
            rows = attended.rows
        _add(now, block.drop_path1(block.ls1(_project(block, hidden, rows))))
        if acts and self.method.position == "after_attention":
            self._reduce(index, now, heads, attended)
        _add(now, block.drop_path2(block.ls2(_mlp(block, now.batch.rows))))
        if acts and self.method.position == "after_block":
            self._reduce(index, now, heads, attended)

    def _attend(
        self, now: _Pass, runs: list[Run], heads: Heads, fused: bool, wanted: Set[Need]
    ) -> Attended:
        proportional = self.method.proportional_attention
        return attend(heads, now.batch, runs, wanted, proportional, eager=not fused)

    def _narrow(
        self, index: int, now: _Pass, heads: Heads, hidden: Tensor, fused: bool
    ) -> tuple[Tensor, Tensor]:
        """Attention whose queries the method thins out: the rows left of it and of `hidden`."""
        outputs, decisions = [], []
        for run in now.runs:
            if not run.watched:
                outputs.append(self._attend(now, [run], heads, fused, frozenset()).rows)
                continue
            for slab in slabs(heads, run):
                maps = head_maps(heads, now.batch, slab, self.method)
                mean = maps.mean(1) if "attention" in self.method.needs else None
                decision = self._ask(index, slab, now, heads, mean, maps)
                outputs.append(kept_products(maps, heads, slab, decision))
                decisions.append((slab, decision))
        attended, source = torch.cat(outputs), self._regroup(now, decisions)
        return (attended, hidden) if source is None else (attended[source], hidden[source])

    def _reduce(
        self, index: int, now: _Pass, heads: Heads | None, attended: Attended | None
    ) -> None:
        """Ask the method about every watched run and apply what it says."""
        decisions = []
        for run in now.runs:
            if run.watched:
                mean = attended.maps.get(run) if attended else None
                each = attended.head_maps.get(run) if attended else None
                decisions.append((run, self._ask(index, run, now, heads, mean, each)))
        self._regroup(now, decisions)

    def _ask(
        self,
        index: int,
        run: Run,
        now: _Pass,
        heads: Heads | None,
        mean: Tensor | None,
        each: Tensor | None,
    ) -> Decision | None:
        """The method's decision about a run, its notes in the trace."""
        with torch.autocast(now.batch.rows.device.type, enabled=False):  # decide in float32
            decision = self.method.decide(self._site(index, run, now, heads, mean, each))
        if decision is not None:
            _note(index, run, decision, now.trace)
        return decision

    def _regroup(self, now: _Pass, decisions: list[tuple[Run, Decision | None]]) -> Tensor | None:
        """Regroup the batch; the old row of every new one, None if nothing changes."""
        moves = plan(now.batch, [(run, d) for run, d in decisions if d is not None])
        if moves is None:
            return None
        now.batch, averaged, source = regroup(now.batch, moves, now.trace)
        now.trace.macs_method += averaged * now.batch.rows.shape[1]
        now.runs = list(now.batch.runs())
        return source

    def _site(
        self,
        index: int,
        run: Run,
        now: _Pass,
        heads: Heads | None,
        mean: Tensor | None,
        each: Tensor | None,
    ) -> Site:
        rows, sizes = now.batch.rows[run.rows], now.batch.sizes[run.rows]
        needs = self.method.needs
        return Site(
            anatomy=self.trunk.anatomy,
            block=index,
            tokens=rows.view(len(run.images), run.length, -1),
            sizes=sizes.view(len(run.images), run.length),
            images=torch.tensor(run.images, device=rows.device),
            image_ids=None if now.image_ids is None else [now.image_ids[i] for i in run.images],
            attention=mean,
            attention_heads=each if "attention_heads" in needs else None,
            keys=split(heads.k, run) if heads and "keys" in needs else None,
            values=split(heads.v, run) if heads and "values" in needs else None,
            state=now.state,
        )

    def _count(self, index: int, now: _Pass) -> None:
        lengths = torch.tensor(now.batch.lengths)
        now.trace.tokens[torch.tensor(now.batch.images), index] = lengths

    def _finish(self, now: _Pass) -> None:
        self._count(self.trunk.anatomy.depth, now)
        macs = backbone_macs(self.trunk.cost, now.trace.tokens.numpy(), self.method.position)
        now.trace.macs_backbone = torch.from_numpy(macs)


def _heads(block: Any, hidden: Tensor) -> Heads:
    attn = block.attn
    qkv = rowwise(attn.qkv, hidden).view(len(hidden), 3, attn.num_heads, attn.head_dim)
    q, k, v = qkv.unbind(1)
    return Heads(attn.q_norm(q), attn.k_norm(k), v, attn.scale)


def _project(block: Any, hidden: Tensor, attended: Tensor) -> Tensor:
    attn = block.attn
    x = attn.norm(attended)
    if attn.gate is not None:
        x = x * rowwise(attn.gate, hidden).sigmoid()
    return attn.proj_drop(rowwise(attn.proj, x))


def _mlp(block: Any, rows: Tensor) -> Tensor:
    return rowwise(lambda x: block.mlp(block.norm2(x)), rows)


def _add(now: _Pass, update: Tensor) -> None:
    now.batch = replace(now.batch, rows=now.batch.rows + update)


def _note(index: int, run: Run, decision: Decision, trace: Trace) -> None:
    """Write a decision's diagnostics into the trace."""
    images = torch.tensor(run.images)
    trace.macs_method[images] += torch.as_tensor(decision.macs).cpu()
    if decision.target is not None:
        reduced = decision.reduced
        changed = images if reduced is None else images[reduced.cpu()]
        first = trace.stop_block[changed] == 0
        trace.stop_block[changed[first]] = index + 1
    for name, value in decision.notes.items():
        value = value.detach().cpu()
        if name == "mass":
            trace.mass[images, index] = value.to(trace.mass.dtype)
        elif name == "sink":
            trace.sink[images] = torch.where(value >= 0, value, trace.sink[images])
        else:  # a margin: the smallest one seen
            held: Tensor = getattr(trace, name)
            held[images] = torch.fmin(held[images], value.to(held.dtype))
