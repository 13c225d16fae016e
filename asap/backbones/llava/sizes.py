"""The sizes of the 7B models of the paper's tables, without weights: for costs in closed form."""

from types import SimpleNamespace

import torch

from asap.backbones.accepted import adapter_of
from asap.backbones.adapter import BackboneAdapter
from asap.backbones.llava.parts import clip_trunk
from asap.core.language_macs import LanguageCost

VICUNA_7B = LanguageCost(
    layers=32, width=4096, mlp=11008, heads=32, kv_heads=32, head_width=128, vocabulary=32064
)
NEXT_CROPS = 5  # of a picture of LLaVA-NeXT: two by two, and the whole one


def clip_large_336(left_out: int = 1) -> BackboneAdapter:
    """CLIP's ViT-L/14 of 336 pixels, 24 blocks without the last `left_out`, without weights."""
    sizes = SimpleNamespace(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16,
        image_size=336, patch_size=14, layer_norm_eps=1e-5,
    )  # fmt: skip
    with torch.device("meta"):
        return adapter_of(clip_trunk(sizes, left_out))


def parameters(tower: BackboneAdapter, language: LanguageCost) -> int:
    """Weights of tower, projector (with biases) and language model, as in a checkpoint."""
    width, d = tower.anatomy.width, language.width
    projector = language.projector(1, width) + 2 * d
    layers = language.layers * (language.row + 2 * d)
    ends = d + 2 * language.vocabulary * d  # the last norm, embedding and output layer
    return sum(p.numel() for p in tower.backbone.parameters()) + projector + layers + ends
