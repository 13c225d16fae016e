"""One decoder layer: over all rows of a prompt, or over one new row beside cached ones."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

Rotation = tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]  # cosine and sine, row by row


@dataclass
class LayerCache:
    """Rotated keys and values of one layer, with room for the rows that are generated.

    length: rows that are there. position: of the next row in this layer.
    """

    keys: Float[Tensor, "1 kv_heads room d"]
    values: Float[Tensor, "1 kv_heads room d"]
    length: int
    position: int

    @classmethod
    def of(cls, keys: Tensor, values: Tensor, position: int, room: int) -> "LayerCache":
        """The rows of a prompt, and space for `room` more."""
        n = keys.shape[2]
        shape = (*keys.shape[:2], n + room, keys.shape[3])
        cache = cls(keys.new_empty(shape), values.new_empty(shape), n, position)
        cache.keys[:, :, :n] = keys
        cache.values[:, :, :n] = values
        return cache

    def add(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add one row; returns all keys and values."""
        end = self.length + 1
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length, self.position = end, self.position + 1
        return self.keys[:, :, :end], self.values[:, :, :end]


@dataclass(frozen=True)
class Heads:
    """Rotated queries and keys, and values of some rows, by head."""

    queries: Float[Tensor, "1 heads n d"]
    keys: Float[Tensor, "1 kv_heads n d"]
    values: Float[Tensor, "1 kv_heads n d"]


def heads_of(layer: Any, rows: Float[Tensor, "1 n dim"], rotation: Rotation) -> Heads:
    """Queries, keys and values of rows, by the layer's own norm and projections."""
    attention, x = layer.self_attn, layer.input_layernorm(rows)

    def by_head(projection: torch.nn.Module) -> Tensor:
        return projection(x).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)

    q, k, v = map(by_head, (attention.q_proj, attention.k_proj, attention.v_proj))
    return Heads(_rotate(q, rotation), _rotate(k, rotation), v)


def _rotate(x: Float[Tensor, "1 heads n d"], rotation: Rotation) -> Float[Tensor, "1 heads n d"]:
    """Rotate the pairs (i, i + d / 2) of every head."""
    cos, sin = rotation
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin


def output_of(
    layer: Any, rows: Float[Tensor, "1 n dim"], queries: Tensor, keys: Tensor, values: Tensor
) -> Float[Tensor, "1 n dim"]:
    """The layer's output from its input `rows` and their heads.

    Several query rows attend to the keys up to themselves, a single one to all keys.
    """
    attended = F.scaled_dot_product_attention(
        queries, keys, values, is_causal=queries.shape[2] > 1, scale=layer.self_attn.scaling,
        enable_gqa=queries.shape[1] != keys.shape[1],
    )  # fmt: skip
    rows = rows + layer.self_attn.o_proj(attended.transpose(1, 2).flatten(2))
    return rows + layer.mlp(layer.post_attention_layernorm(rows))


def attention_rows(
    heads: Heads, index: Int[Tensor, "r"], scale: float
) -> Float[Tensor, "heads r n"]:
    """Softmax shares of the query rows `index`, each over the keys up to itself and 0 behind.

    Computed anew beside the fused attention: r rows instead of an n x n map. float32, or float64
    of float64 heads.
    """
    kind = torch.promote_types(heads.queries.dtype, torch.float32)
    q, k = heads.queries[0, :, index].to(kind), heads.keys[0].to(kind)
    by_key_head = q.unflatten(0, (len(k), -1)).flatten(1, 2)  # heads that share keys, side by side
    scores = (by_key_head @ k.transpose(1, 2)).view(*q.shape[:2], -1) * scale
    behind = torch.arange(scores.shape[-1], device=q.device) > index[:, None]
    return scores.masked_fill(behind, -torch.inf).softmax(-1)
