"""Attention in which a method decides, between softmax and values, whose queries remain.

As `engine/query_pruning.py` has it, on packed rows of a batch whose layout stays on the device.
Queries, keys and values wait in fixed memory for the plan, since another recording reads them.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from asap.core.rows import rows_are_chunked, rowwise
from asap.engine.attention import Heads
from asap.engine.device.flow import Layout
from asap.engine.device.memory import Memory
from asap.engine.kernels.attention import ragged_attention
from asap.engine.kernels.class_row import class_row
from asap.engine.query_pruning import smoothed
from asap.methods.base import Method


def compute_heads(block: Any, hidden: Float[Tensor, "rows dim"], memory: Memory) -> Heads:
    """As `steps.heads_of`, in the memory for them."""
    attn, heads = block.attn, held_heads(block, len(hidden), memory)
    assert memory.qkv is not None
    _linear(attn.qkv, hidden, memory.qkv[: len(hidden)])
    for x, norm in ((heads.q, attn.q_norm), (heads.k, attn.k_norm)):
        if not isinstance(norm, nn.Identity):
            x.copy_(norm(x))
    return heads


def held_heads(block: Any, rows: int, memory: Memory) -> Heads:
    """The queries, keys and values that were computed last."""
    assert memory.qkv is not None
    attn = block.attn
    q, k, v = memory.qkv[:rows].view(rows, 3, attn.num_heads, attn.head_dim).unbind(1)
    return Heads(q, k, v, attn.scale)


def _linear(
    layer: Any, rows: Float[Tensor, "rows dim"], out: Float[Tensor, "rows outputs"]
) -> None:
    """`layer(rows)` into `out`, without a copy of so large a result where that is possible."""
    if type(layer) is not nn.Linear or rows_are_chunked():
        out.copy_(rowwise(layer, rows))
    elif layer.bias is None:
        torch.mm(rows, layer.weight.T, out=out)
    else:
        torch.addmm(layer.bias, rows, layer.weight.T, out=out)


def shown_shares(
    heads: Heads, layout: Layout, method: Method, memory: Memory
) -> Float[Tensor, "b *heads n"] | None:
    """The class row of the softmax attention, if the method needs it; 0 behind the last token."""
    wanted = method.needs.attention
    if wanted is None:
        return None
    offsets = memory.plans[layout.side].offsets
    row = class_row(heads.q, heads.k, offsets, layout.longest, heads.scale)
    if method.softmax_epsilon:
        lengths = offsets.diff()[:, None, None]
        row = smoothed(row, method.softmax_epsilon, lengths)
        known = torch.arange(layout.longest, device=row.device) < lengths
        row = row.masked_fill(~known, 0.0)
    return row.mean(1) if wanted.heads == "mean" else row


def attend_kept(block: Any, layout: Layout, drops: bool, epsilon: float, memory: Memory) -> None:
    """Attention of the queries that the last plan keeps (not `drops`: all), in their new places.

    The rows after the norm, which a gate reads, go there too.
    """
    rows, plan = layout.rows, memory.plans[layout.side ^ 1] if drops else None
    heads, offsets = held_heads(block, rows, memory), memory.plans[layout.side].offsets
    q, k, v, scale = heads.q, heads.k, heads.v, heads.scale
    ragged_attention(
        *(q, k, v, offsets, layout.longest, scale),
        out=memory.attended[:rows].view(q.shape),
        plan=plan,
        epsilon=epsilon,
    )
    if plan is not None and block.attn.gate is not None:
        old = plan.members.index_select(0, plan.begin[:rows])
        memory.hidden[:rows] = memory.hidden.index_select(0, old)
