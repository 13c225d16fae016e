"""A forward pass over a ragged batch in steps: halves of a block, and what a method sees."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from asap.backbones.adapter import Trunk
from asap.core.packed import Ragged, Run
from asap.core.rows import rowwise
from asap.engine.attention import Attended, Heads, attend, split
from asap.engine.regroup import Answer, plan, regroup
from asap.engine.trace import Trace
from asap.methods.base import Decision, Method, Needs, Site


@dataclass
class Pass:
    """One forward pass: the batch now, the trace so far, the method's state."""

    batch: Ragged
    trace: Trace
    state: Any
    image_ids: list[int] | None
    runs: list[Run]


def attention_half(
    block: Any, now: Pass, needs: Needs, proportional: bool, eager: bool
) -> tuple[Heads, Attended]:
    """Norm, attention and residual of all rows; what is needed of the watched runs."""
    hidden = rowwise(block.norm1, now.batch.rows)
    heads = heads_of(block, hidden)
    attended = attend(heads, now.batch, now.runs, needs, proportional, eager)
    add_attended(block, now, hidden, attended.rows)
    return heads, attended


def mlp_half(block: Any, now: Pass) -> None:
    """Norm, MLP and residual of all rows."""
    update = rowwise(lambda x: block.mlp(block.norm2(x)), now.batch.rows)
    _add(now, block.drop_path2(block.ls2(update)))


def run_rest(trunk: Trunk, now: Pass, block: int, midway: bool, proportional: bool) -> None:
    """The blocks from `block` on, the first from its MLP if `midway`, with nothing watched."""
    for index in range(block, trunk.anatomy.depth):
        layers = trunk.blocks[index]
        if not (midway and index == block):
            count(index, now)
            eager = not layers.attn.fused_attn
            attention_half(layers, now, Needs(), proportional, eager)
        mlp_half(layers, now)
    count(trunk.anatomy.depth, now)


def heads_of(block: Any, hidden: Float[Tensor, "total dim"]) -> Heads:
    """Queries, keys and values of all rows, as the backbone's attention uses them."""
    attn = block.attn
    qkv = rowwise(attn.qkv, hidden).view(len(hidden), 3, attn.num_heads, attn.head_dim)
    q, k, v = qkv.unbind(1)
    return Heads(attn.q_norm(q), attn.k_norm(k), v, attn.scale)


def add_attended(
    block: Any,
    now: Pass,
    hidden: Float[Tensor, "total dim"],
    attended: Float[Tensor, "total width"],
) -> None:
    """Projection and residual of what the attention gave."""
    attn = block.attn
    x = attn.norm(attended)
    if attn.gate is not None:
        x = x * rowwise(attn.gate, hidden).sigmoid()
    _add(now, block.drop_path1(block.ls1(attn.proj_drop(rowwise(attn.proj, x)))))


def _add(now: Pass, update: Tensor) -> None:
    now.batch = replace(now.batch, rows=now.batch.rows + update)


def count(index: int, now: Pass) -> None:
    """Write the tokens that enter block `index` into the trace."""
    lengths = torch.tensor(now.batch.lengths)
    now.trace.tokens[torch.tensor(now.batch.images), index] = lengths


def apply(now: Pass, answers: Sequence[Answer | None]) -> Tensor | None:
    """Regroup the batch; the old row of every new one, None if nothing changes."""
    moves = plan(now.batch, answers)
    if moves is None:
        return None
    now.batch, averaged, source = regroup(now.batch, moves, now.trace)
    now.trace.macs_method += averaged * now.batch.rows.shape[1]
    now.runs = list(now.batch.runs())
    return source


def site_of(
    trunk: Trunk,
    index: int,
    run: Run,
    now: Pass,
    needs: Needs,
    heads: Heads | None,
    shown: Tensor | None,
) -> Site:
    """What a method with these needs sees of a run at block `index`; `shown`: of its attention."""
    rows, sizes = now.batch.rows[run.rows], now.batch.sizes[run.rows]
    return Site(
        anatomy=trunk.anatomy,
        block=index,
        tokens=rows.view(len(run.images), run.length, -1),
        sizes=sizes.view(len(run.images), run.length),
        images=torch.tensor(run.images, device=rows.device),
        image_ids=None if now.image_ids is None else [now.image_ids[i] for i in run.images],
        attention=shown,
        keys=split(heads.k, run) if heads and needs.keys else None,
        values=split(heads.v, run) if heads and needs.values else None,
        state=now.state,
        looks=rows.device.type == "cpu",
    )


def ask(method: Method, site: Site, run: Run, now: Pass) -> Answer | None:
    """The two questions about a run, what is said noted in the trace; None: nothing changes.

    Where looking is free, the method is shown the chosen images alone.
    """
    seen = method.observe(site)
    if seen is None:
        decision = method.reduce(site, None)
        return None if decision is None else answer_of(run, site.block, decision, None, now)
    now.trace.write(site.images, site.block, seen.macs, seen.diagnostics)
    if seen.chosen is None:
        return None
    if not site.looks:
        decision = method.reduce(site, seen.chosen)
        return None if decision is None else answer_of(run, site.block, decision, seen.chosen, now)
    here = seen.chosen.nonzero()[:, 0]
    if not len(here):
        return None
    decision = method.reduce(site if len(here) == len(site.images) else site.of(here), None)
    if decision is None:
        return None
    whole = for_all(decision, here, site)
    return answer_of(run, site.block, whole, seen.chosen, now)


def for_all(decision: Decision, here: Int[Tensor, "k"], site: Site) -> Decision:
    """A decision about the images at places `here` of a site as one about all of them."""
    count = len(site.images)
    if len(here) == count:
        return decision

    def spread(values: Any, fill: Any) -> Any:
        if not isinstance(values, Tensor):
            return values
        return values.new_full((count, *values.shape[1:]), fill).index_put((here,), values)

    found = {name: spread(value, 0) for name, value in decision.diagnostics.items()}
    return replace(
        decision,
        target=spread(decision.target, 0),
        left=spread(decision.left, 0),
        weight=spread(decision.weight, 1),
        macs=spread(decision.macs, 0),
        diagnostics=found,
    )


def answer_of(run: Run, block: int, decision: Decision, chosen: Tensor | None, now: Pass) -> Answer:
    """A decision about a run, noted in the trace."""
    images = torch.tensor(run.images)
    now.trace.write(images, block, decision.macs, decision.diagnostics, chosen)
    now.trace.reduced(images, block, chosen)
    return Answer(run, decision, chosen)
