"""A forward pass over a packed batch in steps: halves of a block, and the questions to a method."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from asap.backbones.adapter import BackboneAdapter
from asap.core.anatomy import Anatomy
from asap.core.packed import PackedTokens, Segment
from asap.core.ranking import value_norms
from asap.core.rows import rowwise
from asap.engine.attention import Attended, Heads, attend, split
from asap.engine.backend import Backend
from asap.engine.checks import observed, reduced
from asap.engine.device.final_rows import FinalRows
from asap.engine.regroup import Answer, Outcome, outcome_of, regroup
from asap.engine.trace import Trace
from asap.methods.base import Decision, Method, Needs, Site


@dataclass
class ForwardState:
    """One forward pass: the batch now, the trace so far, the method's state."""

    batch: PackedTokens
    trace: Trace
    backend: Backend
    state: Any = None
    image_ids: list[int] | None = None
    drawn: Tensor | None = None  # by the method, for every image of the batch


@dataclass(frozen=True)
class Classified:
    """A finished pass: logits, and the trace with the token that holds each patch; of a pass on the
    device also the rows that it left.
    """

    logits: Float[Tensor, "n outputs"]
    trace: Trace
    source: Int[Tensor, "b patches"]
    final: FinalRows | None = None


def drawn_of(
    method: Method,
    anatomy: Anatomy,
    image_ids: Sequence[int] | None,
    device: torch.device,
) -> Tensor | None:
    """What the method draws for these images before the pass, on the device."""
    if not method.draws or image_ids is None:
        return None
    drawn = method.draw(anatomy, image_ids)
    return None if drawn is None else drawn.to(device, non_blocking=True)


def attention_half(
    block: Any, now: ForwardState, needs: Needs, proportional: bool, eager: bool
) -> tuple[Heads, Attended]:
    """Norm, attention and residual of all rows; for active segments the attention in `needs`."""
    hidden = rowwise(block.norm1, now.batch.rows)
    heads = heads_of(block, hidden)
    attended = attend(heads, now.batch, now.batch.segments, needs, proportional, eager, now.backend)
    add_attended(block, now, hidden, attended.rows)
    return heads, attended


def mlp_half(block: Any, now: ForwardState) -> None:
    """Norm, MLP and residual of all rows."""
    update = rowwise(lambda x: block.mlp(block.norm2(x)), now.batch.rows, _activated(block.mlp))
    _add(now, block.drop_path2(block.ls2(update)))


def _activated(mlp: Any) -> int:
    """How wide an MLP's activations are, if their last bits may depend on their place; else 0."""
    steady = isinstance(mlp.act, nn.ReLU) or getattr(mlp.act, "approximate", "") == "none"
    return 0 if steady else mlp.fc2.in_features


def run_rest(
    adapter: BackboneAdapter, now: ForwardState, block: int, midway: bool, proportional: bool
) -> None:
    """The blocks from `block` on, the first from its MLP if `midway`, with no image active."""
    for index in range(block, adapter.anatomy.depth):
        layers = adapter.blocks[index]
        if not (midway and index == block):
            count(index, now)
            eager = not layers.attn.fused_attn
            attention_half(layers, now, Needs(), proportional, eager)
        mlp_half(layers, now)
    count(adapter.anatomy.depth, now)


def heads_of(block: Any, hidden: Float[Tensor, "total dim"]) -> Heads:
    """Queries, keys and values of all rows, as the backbone's attention uses them."""
    attn = block.attn
    qkv = rowwise(attn.qkv, hidden).view(len(hidden), 3, attn.num_heads, attn.head_dim)
    q, k, v = qkv.unbind(1)
    return Heads(attn.q_norm(q), attn.k_norm(k), v, attn.scale)


def add_attended(
    block: Any,
    now: ForwardState,
    hidden: Float[Tensor, "total dim"],
    attended: Float[Tensor, "total width"],
) -> None:
    """Add the projected attention output to the rows."""
    _add(now, projected(block, hidden, attended))


def projected(
    block: Any, hidden: Float[Tensor, "total dim"], attended: Float[Tensor, "total width"]
) -> Float[Tensor, "total dim"]:
    """What the attention adds to the rows; `hidden` are the rows that it saw."""
    attn = block.attn
    x = attn.norm(attended)
    if attn.gate is not None:
        x = x * rowwise(attn.gate, hidden).sigmoid()
    return block.drop_path1(block.ls1(attn.proj_drop(rowwise(attn.proj, x))))


def _add(now: ForwardState, update: Tensor) -> None:
    """Add to the rows, in the memory of the update, which nothing else reads."""
    rows, same = now.batch.rows, update.dtype == now.batch.rows.dtype
    now.batch = now.batch.with_rows(update.add_(rows) if same else rows + update)


def count(index: int, now: ForwardState) -> None:
    """Write the tokens that enter block `index` into the trace."""
    now.trace.tokens[now.batch.index, index] = now.batch.counts


def apply(
    now: ForwardState,
    answers: Sequence[Answer],
    outcome: Outcome | None = None,
    averages: bool = True,
) -> Tensor | None:
    """Regroup the batch; the old row of every new one, None if nothing changes."""
    if not answers:
        return None
    outcome = outcome_of(now.batch, answers) if outcome is None else outcome
    now.batch, averaged, source = regroup(now.batch, answers, outcome, now.backend, averages)
    now.trace.macs_method += averaged * now.batch.rows.shape[1]
    return source


def site_of(
    adapter: BackboneAdapter,
    index: int,
    segment: Segment,
    now: ForwardState,
    needs: Needs,
    heads: Heads | None,
    shown: Tensor | None,
) -> Site:
    """The site of a segment at a block, for a method with these needs; `shown`: its attention."""
    rows, sizes = now.batch.rows[segment.rows], now.batch.sizes[segment.rows]
    images = now.batch.index[segment.places]
    return Site(
        anatomy=adapter.anatomy,
        block=index,
        tokens=rows.view(len(segment.images), segment.length, -1),
        sizes=sizes.view(len(segment.images), segment.length),
        images=images,
        image_ids=None if now.image_ids is None else [now.image_ids[i] for i in segment.images],
        attention=shown,
        keys=split(heads.k, segment) if heads and needs.keys else None,
        values=split(heads.v, segment) if heads and needs.values else None,
        value_norms=_norms(adapter, heads, segment) if heads and needs.value_norms else None,
        drawn=None if now.drawn is None else now.drawn[images],
        state=now.state,
        looks=now.backend.looks,
    )


def _norms(adapter: BackboneAdapter, heads: Heads, segment: Segment) -> Float[Tensor, "b patches"]:
    return value_norms(split(heads.v, segment).transpose(1, 2)[:, adapter.anatomy.prefix :])


def ask(method: Method, site: Site, segment: Segment, trace: Trace) -> Answer | None:
    """Ask both questions about a segment and trace the answers; None: nothing changes.

    Where looking is free, `reduce` gets the chosen images alone. WrongDecision for an answer
    of a user's own method that cannot be applied.
    """
    seen = observed(method, site)
    if seen is None:
        decision, chosen = reduced(method, site, None), None
    else:
        trace.write(site.images, site.block, seen.macs, seen.diagnostics)
        if seen.chosen is None:
            return None
        chosen = None if seen.chosen is True else seen.chosen
        if site.looks and chosen is not None:
            return _ask_chosen(method, site, segment, chosen, trace)
        decision = reduced(method, site, chosen)
    if decision is None:
        return None
    trace.write_reduced(site.images, site.block, decision, chosen)
    return Answer(segment, decision, chosen)


def _ask_chosen(
    method: Method, site: Site, segment: Segment, chosen: Tensor, trace: Trace
) -> Answer | None:
    """Ask `reduce` about the chosen images alone."""
    here = chosen.nonzero()[:, 0]
    if not len(here):
        return None
    shown = site if len(here) == len(site.images) else site.of(here)
    decision = reduced(method, shown, None)
    if decision is None:
        return None
    trace.write_reduced(shown.images, site.block, decision, None)
    return Answer(segment, _for_all(decision, here, len(site.images)), chosen)


def _for_all(decision: Decision, here: Int[Tensor, "k"], count: int) -> Decision:
    """A decision about some of `count` images as one about all; the engine ignores the others."""
    if len(here) == count:
        return decision

    def spread(values: Any) -> Any:
        if not isinstance(values, Tensor):
            return values
        return values.new_ones(count, *values.shape[1:]).index_put((here,), values)

    return replace(
        decision,
        target=spread(decision.target),
        left=spread(decision.left),
        weight=spread(decision.weight),
        macs=0,  # already in the trace, like the diagnostics
        diagnostics={},
    )
