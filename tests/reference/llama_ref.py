"""A decoder layer of Llama on all rows of a sequence, in float64, head by head, without a cache.

Only the weights are read from the model's modules; its code is not run. Angles of the rotation are
rounded to float32 before their cosine and sine are taken in float32, as the models do.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Attended:
    rows: Tensor  # (n, D) behind the layer
    shares: Tensor  # (heads, n, n): of the query row (second) over the key rows (third)


def norm(module, rows: Tensor) -> Tensor:
    """Divide by the root of the mean square, in float32 as in every precision, times the weight."""
    single = rows.float()
    mean = single.pow(2).mean(1, keepdim=True)
    return module.weight.double() * (single * torch.rsqrt(mean + module.variance_epsilon)).double()


def linear(module, rows: Tensor) -> Tensor:
    out = rows @ module.weight.double().T
    return out if module.bias is None else out + module.bias.double()


def rotate(x: Tensor, positions: Sequence[int], base: float) -> Tensor:
    """Pairs (i, i + d/2) of a head turned by position * base^(-2i/d)."""
    d = x.shape[1]
    out = torch.empty_like(x)
    for i in range(d // 2):
        exponent = torch.tensor(2 * i, dtype=torch.float32) / d
        frequency = 1.0 / torch.tensor(base, dtype=torch.float32) ** exponent
        angle = torch.tensor(list(positions), dtype=torch.float32) * frequency
        cos, sin = angle.cos().double(), angle.sin().double()
        first, second = x[:, i], x[:, i + d // 2]
        out[:, i] = first * cos - second * sin
        out[:, i + d // 2] = second * cos + first * sin
    return out


def attend(
    config, layer, rows: Tensor, positions: Sequence[int], hidden: Sequence[int] = ()
) -> Attended:
    """The layer on rows (n, D) at their positions; nobody sees the key rows `hidden`.

    A hidden row sees itself, so that its softmax is defined; its output is not used.
    """
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    base = config.rope_parameters["rope_theta"]
    n = len(rows)
    x = norm(layer.input_layernorm, rows)
    q, k, v = (linear(getattr(layer.self_attn, f"{name}_proj"), x) for name in "qkv")
    d = q.shape[1] // heads
    seen = torch.ones(n, n, dtype=torch.bool).tril()
    seen[:, list(hidden)] = False
    seen |= torch.eye(n, dtype=torch.bool)
    out, shares = [], []
    for head in range(heads):
        shared = head // (heads // kv_heads)
        query = rotate(q[:, head * d : (head + 1) * d], positions, base)
        key = rotate(k[:, shared * d : (shared + 1) * d], positions, base)
        scores = (query @ key.T / d**0.5).masked_fill(~seen, -torch.inf)
        weights = torch.exp(scores - scores.amax(1, keepdim=True))
        weights = weights / weights.sum(1, keepdim=True)
        shares.append(weights)
        out.append(weights @ v[:, shared * d : (shared + 1) * d])
    rows = rows + linear(layer.self_attn.o_proj, torch.cat(out, dim=1))
    y = norm(layer.post_attention_layernorm, rows)
    gate = linear(layer.mlp.gate_proj, y)
    inner = gate / (1 + torch.exp(-gate)) * linear(layer.mlp.up_proj, y)
    return Attended(rows + linear(layer.mlp.down_proj, inner), torch.stack(shares))


def logits(model, rows: Tensor) -> Tensor:
    """Of the last row."""
    return linear(model.lm_head, norm(model.model.norm, rows[-1:]))[0]
