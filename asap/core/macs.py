"""Multiply-accumulates (MACs) of a backbone in closed form, from the token counts of its blocks.

The convention of the token-reduction papers, which call them FLOPs: patch embedding, every linear
layer, the two attention products and the classifier. LayerNorm, softmax, GELU and biases are left
out.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class BlockCost:
    """MACs per token of a block's linear layers, and the width its attention products run over.

    `proj` is everything between the attention and the residual, a gate included.
    """

    qkv: int
    proj: int
    mlp: int
    attention_width: int


@dataclass(frozen=True)
class BackboneCost:
    """MACs of one image outside the blocks, and of each block.

    `head` is counted once per image, `patch_head` for every token left after the `prefix` tokens.
    """

    embed: int
    head: int
    blocks: tuple[BlockCost, ...]
    patch_head: int = 0
    prefix: int = 0


def backbone_macs(
    cost: BackboneCost,
    tokens: Int[np.ndarray, "images blocks_and_1"],
    position: str,
    attention_products: bool = True,
) -> Int[np.ndarray, "images"]:
    """MACs per image. `tokens[:, l]` tokens enter block l, `tokens[:, -1]` leave the last one.

    `position` is where the reduction happened: between a block's attention and its MLP
    ("after_attention"), inside its attention ("in_attention": dropped queries), or outside it.
    """
    tokens = tokens.astype(np.int64)
    total = np.full(len(tokens), cost.embed + cost.head, dtype=np.int64)
    total += (tokens[:, -1] - cost.prefix) * cost.patch_head
    for index, block in enumerate(cost.blocks):
        entering, leaving = tokens[:, index], tokens[:, index + 1]
        late = leaving if position in ("after_attention", "in_attention") else entering
        queries = leaving if position == "in_attention" else entering
        total += entering * block.qkv + queries * block.proj + late * block.mlp
        if attention_products:
            total += (entering + queries) * entering * block.attention_width
    return total
