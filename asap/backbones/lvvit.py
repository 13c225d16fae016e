"""LV-ViT-S (Jiang et al., "All Tokens Matter: Token Labeling", NeurIPS 2021), on timm's parts.

Three things differ from a plain ViT: a stem of four convolutions; residual branches divided by 2;
and a second head over the patch tokens, whose class-wise maximum is added at half weight. The
division by 2 is folded into the last layer of each branch, weights and bias, so the blocks are
timm's own. Halving a float is exact; the state dict keeps the released layout, in which nothing is
halved, whichever way it goes. Written from a public description of the architecture and its
checkpoint's keys; the released file itself was not available to check.
"""

from functools import partial
from typing import Any, cast

import torch
from jaxtyping import Float
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers.norm import LayerNorm
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.nn import functional as F

from asap.backbones.adapter import BackboneAdapter, PatchLayer, accept, block_costs, weights_of
from asap.core.macs import BackboneCost
from asap.core.packed import PackedTokens
from asap.core.ragged import RaggedTokens
from asap.core.rows import imagewise, rowwise

RELEASE = (
    "https://github.com/zihangJiang/TokenLabeling/releases/download/1.0/"
    "lvvit_s-26M-224-83.3.pth.tar"
)
PREPROCESSING = {
    "input_size": (3, 224, 224),
    "interpolation": "bicubic",
    "crop_pct": 0.9,
    "mean": IMAGENET_DEFAULT_MEAN,
    "std": IMAGENET_DEFAULT_STD,
}
SKIP = 2  # what residual branches are divided by
AUX_WEIGHT = 0.5
HALVED = tuple(f"{m}.{p}" for m in ("attn.proj", "mlp.fc2") for p in ("weight", "bias"))


class Stem(nn.Module):
    """Three convolutions at half resolution, each with batch norm and ReLU, then the patches."""

    def __init__(self, img_size: int, patch_size: int, width: int, embed_dim: int) -> None:
        super().__init__()
        side = img_size // patch_size
        self.img_size, self.grid_size, self.num_patches = (img_size,) * 2, (side,) * 2, side**2
        self.patch_size = (patch_size,) * 2
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.proj = nn.Conv2d(width, embed_dim, patch_size // 2, stride=patch_size // 2)

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b patches dim"]:
        if images.shape[-2:] != self.img_size:
            raise ValueError(
                f"images of {tuple(images.shape[-2:])} pixels do not fit: build the backbone with "
                f"img_size={images.shape[-1]}"
            )
        x = F.relu(self.bn1(self.conv1(images)))
        x = F.relu(self.bn2(self.conv2(x)))
        x = F.relu(self.bn3(self.conv3(x)))
        return self.proj(x).flatten(2).transpose(1, 2)

    def macs(self) -> int:
        """Multiply-accumulates of one image."""
        half = (self.img_size[0] // 2) * (self.img_size[1] // 2)
        early = sum(conv.weight.numel() for conv in (self.conv1, self.conv2, self.conv3))
        return early * half + self.proj.weight.numel() * self.num_patches


class LVViT(nn.Module):
    """An LV-ViT. The sizes are arguments; raises ValueError where they do not fit each other."""

    num_prefix_tokens, has_class_token = 1, True

    def __init__(
        self,
        img_size: int = 224,
        patch_size: int = 16,
        embed_dim: int = 384,
        depth: int = 16,
        num_heads: int = 6,
        mlp_ratio: float = 3.0,
        num_classes: int = 1000,
        stem_width: int = 64,
    ) -> None:
        super().__init__()
        if patch_size < 4 or patch_size % 2 or img_size < patch_size or img_size % patch_size:
            raise ValueError(
                f"patch_size={patch_size} is not possible: it must be even, at least 4 and divide "
                f"img_size={img_size}"
            )
        self.embed_dim, self.num_classes = embed_dim, num_classes
        self.patch_embed = Stem(img_size, patch_size, stem_width, embed_dim)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + self.patch_embed.num_patches, embed_dim))
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, qkv_bias=False, norm_layer=cast(Any, _norm))
            for _ in range(depth)
        )
        self.norm = _norm(embed_dim)
        self.head = nn.Linear(embed_dim, num_classes)
        self.aux_head = nn.Linear(embed_dim, num_classes)
        _initialise(self)
        self.register_state_dict_post_hook(_double)
        self.register_load_state_dict_pre_hook(_halve)

    def forward_features(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n dim"]:
        """All tokens after the final norm."""
        x = self.embed(self.patch_embed(images))
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def embed(self, patches: Float[Tensor, "b patches dim"]) -> Float[Tensor, "b n dim"]:
        """The class token in front, then positions."""
        first = self.cls_token.expand(len(patches), -1, -1)
        return torch.cat([first, patches], dim=1) + self.pos_embed

    def forward(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b classes"]:
        x = self.forward_features(images)
        return self.head(x[:, 0]) + AUX_WEIGHT * self.aux_head(x[:, 1:]).amax(1)


def _norm(width: int, **options: Any) -> nn.Module:
    return LayerNorm(width, eps=1e-5, **options)


@torch.no_grad()
def _initialise(model: Any) -> None:
    """Small random weights, as the released layout is initialised, then halved branches."""
    for token in (model.cls_token, model.pos_embed):
        nn.init.trunc_normal_(token, std=0.02)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for block in model.blocks:
        for layer in (block.attn.proj, block.mlp.fc2):
            layer.weight /= SKIP


def _halved_keys(model: Any, prefix: str) -> list[str]:
    return [f"{prefix}blocks.{i}.{name}" for i in range(len(model.blocks)) for name in HALVED]


def _double(model: nn.Module, state: dict[str, Any], prefix: str, _metadata: Any) -> None:
    """Parameters to released layout, after `state_dict`."""
    for key in _halved_keys(model, prefix):
        state[key] = state[key] * SKIP


def _halve(model: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Released layout to parameters, before `load_state_dict` copies."""
    for key in _halved_keys(model, prefix):
        if key in state:  # a missing one is reported by torch
            state[key] = state[key] / SKIP


def lvvit_s(**model_args: Any) -> LVViT:
    """LV-ViT-S: 16 blocks, width 384, 6 heads, 26.2 million parameters."""
    model: Any = LVViT(**model_args)
    size = model.patch_embed.img_size
    model.pretrained_cfg = {
        "architecture": "lvvit_s", "num_classes": model.num_classes,
        **PREPROCESSING, "input_size": (3, *size), "url": RELEASE,
    }  # fmt: skip
    return model


class LVViTAdapter(BackboneAdapter):
    """LV-ViT. Its second head sees every patch token that is left; none is weighted by size."""

    models = (LVViT,)

    def _check(self, backbone: Any) -> None:
        accept("patch embedding", backbone.patch_embed, (Stem,))

    def _embed(
        self, images: Float[Tensor, "b 3 h w"], patches: PatchLayer
    ) -> Float[Tensor, "b n dim"]:
        stem = partial(patches, self.backbone.patch_embed)
        return self.backbone.embed(imagewise(stem, images))

    def classify(self, batch: PackedTokens) -> Float[Tensor, "b classes"]:
        """Logits per image, in the order of the batch.

        An image without any patch token left has those of the class token alone.
        """
        rows, skip = self.features(batch), self.anatomy.prefix
        logits = rowwise(self.backbone.head, self.prefix_of(rows, batch)[:, 0])
        for segment in batch.segments:
            patches = rows[segment.rows].view(len(segment.images), segment.length, -1)[:, skip:]
            if patches.shape[1]:
                scores = rowwise(self.backbone.aux_head, patches.flatten(0, 1))
                best = scores.view(*patches.shape[:2], -1).amax(1)
                logits[batch.index[segment.places]] += AUX_WEIGHT * best
        return logits

    def classify_ragged(self, tokens: RaggedTokens) -> Float[Tensor, "b classes"]:
        """Logits per image of tokens whose layout stays on the device."""
        rows, skip = rowwise(self.backbone.norm, tokens.rows), self.anatomy.prefix
        logits = rowwise(self.backbone.head, tokens.first(rows, skip)[:, 0])
        scores, known = tokens.behind(rowwise(self.backbone.aux_head, rows), skip)
        if not scores.shape[1]:
            return logits
        if known is None:
            return logits + AUX_WEIGHT * scores.amax(1)
        best = scores.masked_fill(~known[..., None], float("-inf")).amax(1)
        return logits + AUX_WEIGHT * best.masked_fill(~known.any(1, keepdim=True), 0)

    def _cost(self) -> BackboneCost:
        model = self.backbone
        return BackboneCost(
            embed=model.patch_embed.macs(),
            head=weights_of(model.head),
            blocks=block_costs(self.blocks),
            patch_head=weights_of(model.aux_head),
            prefix=model.num_prefix_tokens,
        )
