"""A tiny ViT with the layout of CLIP's image tower: a class token, a norm before the blocks."""

from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer

PREPROCESSING = {"input_size": (3, 32, 32), "crop_pct": 1.0, "interpolation": "bicubic"}


def clip_vit(seed: int = 0, patch: int = 8, depth: int = 3, **args: Any) -> VisionTransformer:
    """32 pixels, a token for every `patch`, width 32, 5 outputs in the place of a projection."""
    torch.manual_seed(seed)
    shape = {"img_size": 32, "patch_size": patch, "embed_dim": 32, "num_heads": 2, "depth": depth}
    clip = {"pre_norm": True, "act_layer": "quick_gelu", "num_classes": 5}
    model: Any = VisionTransformer(**{**shape, **clip, **args}).eval()
    with torch.no_grad():
        for block in model.blocks:
            block.attn.qkv.weight *= 4  # peaked attention, as trained models have it
    model.pretrained_cfg = {"architecture": "tiny_clip", **PREPROCESSING}
    return model
