"""timm's plain ViTs: embedding, prefix tokens and the heads that timm gives them."""

from typing import Any

import torch
from jaxtyping import Float, Int
from timm.layers.patch_embed import PatchEmbed
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from asap.backbones.adapter import BackboneAdapter, PatchLayer, accept, block_costs, weights_of
from asap.backbones.frame_encoder import QuadrantMeans
from asap.core.macs import BackboneCost
from asap.core.packed import PackedTokens
from asap.core.ragged import RaggedTokens
from asap.core.rows import rowwise

EMBEDDINGS = (PatchEmbed,)
POOLS = ("token", "avg")


class ViTAdapter(BackboneAdapter):
    """timm's VisionTransformer, with or without class, distillation and register tokens."""

    models = (VisionTransformer, VisionTransformerDistilled)

    def _check(self, backbone: Any) -> None:
        accept("patch embedding", backbone.patch_embed, EMBEDDINGS)
        if (channels := backbone.patch_embed.proj.in_channels) != 3:
            raise ValueError(f"in_chans={channels} is not supported: pictures have 3 channels")
        if backbone.patch_embed.dynamic_img_pad:
            raise ValueError(
                "dynamic_img_pad=True is not supported: patches that are padding would be counted "
                "and ranked with the picture's"
            )
        if getattr(backbone, "pool_include_prefix", False):
            raise ValueError("pool_include_prefix=True is not supported: prefix tokens stay apart")
        quadrants = isinstance(backbone.head, QuadrantMeans)
        pools = ("",) if quadrants else POOLS
        if backbone.attn_pool is not None or backbone.global_pool not in pools:
            pool = "map" if backbone.attn_pool is not None else backbone.global_pool
            raise ValueError(f"global_pool={pool!r} is not supported: use one of {POOLS}")

    def _embed(
        self, images: Float[Tensor, "b 3 h w"], patches: PatchLayer
    ) -> Float[Tensor, "b n dim"]:
        x = patches(self.backbone.patch_embed, images)
        x = self.backbone._pos_embed(x)
        return self.backbone.norm_pre(self.backbone.patch_drop(x))

    def sequence_parts(self) -> tuple[Float[Tensor, "prefix dim"], Float[Tensor, "n dim"]] | None:
        backbone, positions = self.backbone, self.backbone.pos_embed
        plain = all(isinstance(m, nn.Identity) for m in (backbone.norm_pre, backbone.patch_drop))
        if positions is None or backbone.dynamic_img_size or not plain:
            return None
        held = (getattr(backbone, f"{name}_token", None) for name in ("cls", "dist", "reg"))
        found = [token[0] for token in held if token is not None]
        first = torch.cat(found) if found else positions[0, :0]
        positions = positions[0]
        if backbone.no_embed_class and found:
            positions = torch.cat([torch.zeros_like(first), positions])
        fits = (len(first), len(positions)) == (self.anatomy.prefix, self.anatomy.tokens)
        return (first.contiguous(), positions.contiguous()) if fits else None

    def classify(self, batch: PackedTokens) -> Float[Tensor, "b classes"]:
        """Logits per image, in the order of the batch."""
        if isinstance(self.backbone.head, QuadrantMeans):
            return self._quadrants(batch.rows, batch.starts(), batch.source)
        if self.backbone.global_pool == "avg":
            return self._classify_pooled(self._pooled(batch))
        return self._classify_prefix(self.prefix_of(batch.rows, batch))

    def classify_ragged(self, tokens: RaggedTokens) -> Float[Tensor, "b classes"]:
        """Logits per image of tokens whose layout stays on the device."""
        if isinstance(self.backbone.head, QuadrantMeans):
            return self._quadrants(tokens.rows, tokens.offsets[:-1], tokens.source)
        if self.backbone.global_pool == "avg":
            return self._classify_pooled(self._pooled_ragged(tokens))
        return self._classify_prefix(tokens.first(tokens.rows, self.anatomy.prefix))

    def _classify_pooled(self, pooled: Float[Tensor, "b dim"]) -> Float[Tensor, "b classes"]:
        return rowwise(lambda x: self.backbone.head(self.backbone.fc_norm(x)), pooled)

    def _classify_prefix(self, prefix: Float[Tensor, "b prefix dim"]) -> Float[Tensor, "b classes"]:
        return rowwise(
            lambda x: self.backbone.forward_head(
                self.backbone.norm(x.view(len(x), *prefix.shape[1:]))
            ),
            prefix.flatten(1),
        )

    def _quadrants(
        self,
        rows: Float[Tensor, "total dim"],
        starts: Int[Tensor, "b"],
        source: Int[Tensor, "b patches"],
    ) -> Float[Tensor, "b four_dim"]:
        """Means over quadrants of the token that each patch ended in, in the order of the batch."""
        rows = rowwise(lambda x: self.backbone.fc_norm(self.backbone.norm(x)), rows)
        held = torch.where(source >= 0, source + starts[:, None], -1)
        return self.backbone.head.means(rows, held)

    def _pooled(self, batch: PackedTokens) -> Float[Tensor, "b dim"]:
        """Mean over patch tokens, weighted by size, in the order of the batch."""
        rows, skip = self.features(batch), self.anatomy.prefix
        pooled = rows.new_empty(len(batch.images), rows.shape[1])
        for segment in batch.segments:
            patches = rows[segment.rows].view(len(segment.images), segment.length, -1)[:, skip:]
            if batch.merged:
                sizes = batch.sizes[segment.rows].view(len(segment.images), segment.length, 1)[
                    :, skip:
                ]
                mean = (patches * sizes).sum(1) / sizes.sum(1)
            else:
                mean = patches.mean(1)
            pooled[batch.index[segment.places]] = mean.to(rows.dtype)
        return pooled

    def _pooled_ragged(self, tokens: RaggedTokens) -> Float[Tensor, "b dim"]:
        """The same of tokens whose layout stays on the device."""
        rows = rowwise(self.backbone.norm, tokens.rows)
        patches, known = tokens.behind(rows, self.anatomy.prefix)
        if known is None and not tokens.merged:
            return patches.mean(1)
        sizes = tokens.behind(tokens.sizes, self.anatomy.prefix)[0]
        if known is not None:
            patches, sizes = patches.masked_fill(~known[..., None], 0), sizes.masked_fill(~known, 0)
        mean = (patches * sizes[..., None]).sum(1) / sizes.sum(1, keepdim=True)
        return mean.to(rows.dtype)

    def _cost(self) -> BackboneCost:
        model = self.backbone
        embed = model.patch_embed.proj.weight.numel() * model.patch_embed.num_patches
        head = weights_of(model.head) + weights_of(getattr(model, "head_dist", None))
        return BackboneCost(embed, head, block_costs(self.blocks))
