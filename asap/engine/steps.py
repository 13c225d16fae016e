"""A forward pass over a ragged batch in steps: halves of a block, and what a method sees."""

from collections.abc import Set
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from asap.backbones.adapter import Trunk
from asap.core.packed import Ragged, Run
from asap.core.rows import rowwise
from asap.engine.attention import Attended, Heads, attend, split
from asap.engine.regroup import plan, regroup
from asap.engine.trace import Trace
from asap.methods.base import Decision, Need, Site


@dataclass
class Pass:
    """One forward pass: the batch now, the trace so far, the method's state."""

    batch: Ragged
    trace: Trace
    state: Any
    image_ids: list[int] | None
    runs: list[Run]


def attention_half(
    block: Any, now: Pass, wanted: Set[Need], proportional: bool, eager: bool
) -> tuple[Heads, Attended]:
    """Norm, attention and residual of all rows; the maps that are wanted of the watched runs."""
    hidden = rowwise(block.norm1, now.batch.rows)
    heads = heads_of(block, hidden)
    attended = attend(heads, now.batch, now.runs, wanted, proportional, eager)
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
            attention_half(layers, now, frozenset(), proportional, eager)
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


def apply(now: Pass, decisions: list[tuple[Run, Decision | None]]) -> Tensor | None:
    """Regroup the batch; the old row of every new one, None if nothing changes."""
    moves = plan(now.batch, [(run, d) for run, d in decisions if d is not None])
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
    needs: Set[Need],
    heads: Heads | None,
    mean: Tensor | None,
    each: Tensor | None,
) -> Site:
    """What a method with these needs sees of a run at block `index`; `mean`, `each`: its maps."""
    rows, sizes = now.batch.rows[run.rows], now.batch.sizes[run.rows]
    return Site(
        anatomy=trunk.anatomy,
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


def note(index: int, run: Run, decision: Decision, trace: Trace) -> None:
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
