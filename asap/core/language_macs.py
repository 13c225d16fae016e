"""Multiply-accumulates (MACs) and cache size of a language model in closed form.

The convention of `macs.py`: linear layers, the two attention products (in full, not halved for the
causal mask) and the output layer; norms, softmax, activations and biases are left out.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LanguageCost:
    """Sizes of a Llama-like decoder: every layer has attention with shared heads and a gated MLP.

    width: channels of a row. mlp: channels inside the MLP. heads, kv_heads: of the queries, and of
    the keys and values, `head_width` channels each.
    """

    layers: int
    width: int
    mlp: int
    heads: int
    kv_heads: int
    head_width: int
    vocabulary: int

    @property
    def attention_width(self) -> int:
        """Channels of a row's queries: MACs of the product of one query row with one key row."""
        return self.heads * self.head_width

    @property
    def row(self) -> int:
        """MACs of the linear layers of one decoder layer for one row."""
        queries_and_output = 2 * self.width * self.attention_width
        keys_and_values = 2 * self.width * self.kv_heads * self.head_width
        return queries_and_output + keys_and_values + 3 * self.width * self.mlp

    def prefill(self, rows: Sequence[int]) -> int:
        """MACs up to the first logits. `rows[l]` rows enter layer l; logits of one row only."""
        layers = sum(n * self.row + 2 * n * n * self.attention_width for n in rows)
        return layers + self.width * self.vocabulary

    def decode(self, rows: Sequence[int]) -> int:
        """MACs of one further token; it attends to `rows[l]` keys in layer l, its own included."""
        layers = sum(self.row + 2 * n * self.attention_width for n in rows)
        return layers + self.width * self.vocabulary

    def kv_bytes(self, rows: Sequence[int], element: int) -> int:
        """Bytes of the keys and values of `rows[l]` cached rows in layer l.

        element: bytes of a number, 2 in half precision.
        """
        return 2 * sum(rows) * self.kv_heads * self.head_width * element

    def projector(self, rows: int, from_width: int) -> int:
        """MACs of LLaVA's projector, two linear layers, on visual rows of `from_width` channels."""
        return rows * (from_width * self.width + self.width * self.width)
