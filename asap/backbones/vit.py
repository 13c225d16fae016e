"""A timm ViT taken apart into embedding, blocks and head, without changing it.

Every layer that runs is timm's own submodule. Types that this file does not list are refused by
name: running an unknown block's parts in the wrong order would give wrong numbers, not an error.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from timm.layers import Attention, PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from asap.core.macs import BackboneCost, BlockCost
from asap.core.rows import rowwise
from asap.tokens import Anatomy, Ragged

MODELS = (VisionTransformer, VisionTransformerDistilled)
BLOCKS = (Block,)
ATTENTIONS = (Attention,)
EMBEDDINGS = (PatchEmbed,)
POOLS = ("token", "avg")


class Trunk:
    """A backbone's parts: `embed`, `blocks`, `features`, `classify`.

    Raises ValueError, naming the type, for a backbone that is not supported.
    """

    def __init__(self, backbone: nn.Module) -> None:
        _accept("backbone", backbone, MODELS)
        _accept("patch embedding", backbone.patch_embed, EMBEDDINGS)
        for index, block in enumerate(backbone.blocks):
            _accept(f"block {index + 1}", block, BLOCKS)
            _accept(f"attention of block {index + 1}", block.attn, ATTENTIONS)
        if getattr(backbone, "pool_include_prefix", False):
            raise ValueError("pool_include_prefix=True is not supported: prefix tokens stay apart")
        if backbone.attn_pool is not None or backbone.global_pool not in POOLS:
            pool = "map" if backbone.attn_pool is not None else backbone.global_pool
            raise ValueError(f"global_pool={pool!r} is not supported: use one of {POOLS}")
        self.backbone = backbone
        self.blocks: Sequence[Block] = list(backbone.blocks)
        self.anatomy = Anatomy(
            name=backbone.pretrained_cfg.get("architecture", type(backbone).__name__)
            if getattr(backbone, "pretrained_cfg", None)
            else type(backbone).__name__,
            depth=len(self.blocks),
            prefix=backbone.num_prefix_tokens,
            patches=backbone.patch_embed.num_patches,
            class_token=backbone.cls_token is not None,
        )
        self.grid: tuple[int, int] = tuple(backbone.patch_embed.grid_size)
        self.cost = _cost(backbone)

    def embed(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b n dim"]:
        """Everything before the first block. Raises ValueError for images of another size."""
        x = self.backbone.patch_embed(images)
        x = self.backbone._pos_embed(x)
        x = self.backbone.norm_pre(self.backbone.patch_drop(x))
        if x.shape[1] != self.anatomy.tokens:
            raise ValueError(
                f"{tuple(images.shape[-2:])} pixels give {x.shape[1]} tokens, not "
                f"{self.anatomy.tokens}: build the backbone with img_size={images.shape[-1]}"
            )
        return x

    def features(self, batch: Ragged) -> Float[Tensor, "total dim"]:
        """The final norm of every remaining token, in packed order."""
        return rowwise(self.backbone.norm, batch.rows)

    def classify(self, batch: Ragged) -> Float[Tensor, "b classes"]:
        """Logits per image, in the order of the batch."""
        if self.backbone.global_pool == "avg":
            pooled = self._pooled(batch)
            return rowwise(lambda x: self.backbone.head(self.backbone.fc_norm(x)), pooled)
        prefix = self._prefix(batch)
        flat = prefix.flatten(1)
        return rowwise(
            lambda x: self.backbone.forward_head(
                self.backbone.norm(x.view(len(x), *prefix.shape[1:]))
            ),
            flat,
        )

    def _prefix(self, batch: Ragged) -> Float[Tensor, "b prefix dim"]:
        """The prefix tokens of every image, in the order of the batch."""
        starts = _starts(batch)
        index = starts[:, None] + torch.arange(self.anatomy.prefix)
        return batch.rows[index.to(batch.rows.device)]

    def _pooled(self, batch: Ragged) -> Float[Tensor, "b dim"]:
        """Mean over patch tokens, weighted by size, in the order of the batch."""
        rows, skip = self.features(batch), self.anatomy.prefix
        pooled = rows.new_empty(len(batch.images), rows.shape[1])
        for run in batch.runs():
            patches = rows[run.rows].view(len(run.images), run.length, -1)[:, skip:]
            if batch.merged:
                sizes = batch.sizes[run.rows].view(len(run.images), run.length, 1)[:, skip:]
                mean = (patches * sizes).sum(1) / sizes.sum(1)
            else:
                mean = patches.mean(1)
            pooled[list(run.images)] = mean.to(rows.dtype)
        return pooled


def _starts(batch: Ragged) -> Tensor:
    """First row of every image of the batch."""
    starts, first = [0] * len(batch.images), 0
    for image, length in zip(batch.images, batch.lengths, strict=True):
        starts[image] = first
        first += length
    return torch.tensor(starts)


def _accept(role: str, module: nn.Module, types: tuple[type, ...]) -> None:
    if type(module) not in types:
        known = ", ".join(t.__name__ for t in types)
        raise ValueError(f"{role} of type {type(module).__name__} is not supported (only {known})")


def _weights(module: nn.Module | None) -> int:
    """Multiply-accumulates per token of a module's linear layers."""
    if module is None:
        return 0
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))


def _cost(backbone: nn.Module) -> BackboneCost:
    blocks = tuple(
        BlockCost(
            qkv=_weights(b.attn.qkv),
            proj=_weights(b.attn.gate) + _weights(b.attn.proj),  # both on the queries that remain
            mlp=_weights(b.mlp),
            attention_width=b.attn.attn_dim,
        )
        for b in backbone.blocks
    )
    heads = _weights(backbone.head) + _weights(getattr(backbone, "head_dist", None))
    embed = backbone.patch_embed.proj.weight.numel() * backbone.patch_embed.num_patches
    return BackboneCost(embed, heads, blocks)
