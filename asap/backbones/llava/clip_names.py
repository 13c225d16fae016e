"""Hugging Face's names of CLIP's vision tower, for the tensors of timm's ViT.

timm converts OpenAI's original names, not these. The last blocks of the encoder and the norm
behind them are left out: LLaVA reads the output of an earlier block.
"""

import re
from collections.abc import Iterable

EMBEDDING = {
    "cls_token": "embeddings.class_embedding",
    "pos_embed": "embeddings.position_embedding.weight",
    "patch_embed.proj.weight": "embeddings.patch_embedding.weight",
    "norm_pre.weight": "pre_layrnorm.weight",  # spelt so in every checkpoint
    "norm_pre.bias": "pre_layrnorm.bias",
}
LAYER = {
    "norm1": ("layer_norm1",),
    "attn.qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attn.proj": ("self_attn.out_proj",),
    "norm2": ("layer_norm2",),
    "mlp.fc1": ("mlp.fc1",),
    "mlp.fc2": ("mlp.fc2",),
}


def trunk_sources(depth: int) -> dict[str, tuple[str, ...]]:
    """For every tensor of a trunk of `depth` blocks, the tensors of the checkpoint it consists of.

    Several are concatenated along the first axis. Names are those behind `vision_tower.` and an
    optional `vision_model.`; a class or position embedding lacks the trunk's leading axes.
    """
    found: dict[str, tuple[str, ...]] = {ours: (theirs,) for ours, theirs in EMBEDDING.items()}
    for block in range(depth):
        for ours, theirs in LAYER.items():
            for kind in ("weight", "bias"):
                found[f"blocks.{block}.{ours}.{kind}"] = tuple(
                    f"encoder.layers.{block}.{name}.{kind}" for name in theirs
                )
    return found


def left_out(names: Iterable[str], depth: int, layers: int) -> set[str]:
    """The names among these that belong to the encoder behind a trunk of `depth` blocks.

    layers: of the encoder. They are its later blocks and the final norm. Buffers that old
    checkpoints hold (the numbers of the positions) count too: they are no weights.
    """
    last = "|".join(str(block) for block in range(depth, layers))
    behind = rf"encoder\.layers\.({last})\..+|post_layernorm\..+|embeddings\.position_ids"
    return {name for name in names if re.fullmatch(behind, name)}
