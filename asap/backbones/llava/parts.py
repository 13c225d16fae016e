"""The vision tower, the projector and the newline row of a LLaVA as modules without weights."""

from typing import Any

import torch
from jaxtyping import Float
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn


class Projector(nn.Module):
    """Two linear layers with GELU between them: a visual row becomes a row of the language model.

    The layers have Hugging Face's names.
    """

    def __init__(self, vision_width: int, width: int, bias: bool = True) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(vision_width, width, bias=bias)
        self.linear_2 = nn.Linear(width, width, bias=bias)

    def forward(self, rows: Float[Tensor, "m vision"]) -> Float[Tensor, "m dim"]:
        """The rows of one picture, whose bits depend on no other picture."""
        return self.linear_2(nn.functional.gelu(self.linear_1(rows)))


class Newline(nn.Module):
    """LLaVA-NeXT's row of the language model that ends a line of patches, by its name there."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.image_newline = nn.Parameter(torch.empty(width))


def clip_trunk(config: Any, left_out: int = 1) -> VisionTransformer:
    """CLIP's encoder without its last blocks, as timm's ViT without a final norm and a head.

    config: transformers' `CLIPVisionConfig`. The output of a trunk with one block left out is
    `hidden_states[-2]`. The attribute `blocks_left_out` says how many blocks are missing.
    """
    width = config.hidden_size
    trunk: Any = VisionTransformer(
        img_size=config.image_size,
        patch_size=config.patch_size,
        embed_dim=width,
        depth=config.num_hidden_layers - left_out,
        num_heads=config.num_attention_heads,
        mlp_ratio=(config.intermediate_size + 0.5) / width,  # timm rounds the product down
        num_classes=0,
        pre_norm=True,
        final_norm=False,
        norm_layer=lambda n, **kind: LayerNorm(n, eps=config.layer_norm_eps, **kind),
        act_layer="quick_gelu",
        weight_init="skip",
    )
    trunk.blocks_left_out = left_out
    trunk.pretrained_cfg = {"architecture": "llava_clip_vit"}
    return trunk
