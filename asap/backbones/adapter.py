"""A backbone taken apart into embedding, blocks and head, without changing it.

Every layer that runs is the backbone's own submodule. Types that no family lists are refused by
name: running an unknown block's parts in the wrong order would give wrong numbers, not an error.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from timm.layers.attention import Attention
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from asap.core.anatomy import Anatomy
from asap.core.macs import BackboneCost, BlockCost
from asap.core.packed import PackedTokens
from asap.core.ragged import RaggedTokens
from asap.core.rows import rowwise

PatchLayer = Callable[[nn.Module, Tensor], Tensor]
BLOCKS = (Block,)
ATTENTIONS = (Attention,)


class BackboneAdapter(ABC):
    """A backbone's parts: `embed`, `blocks`, `features`, `classify`, and its layout and cost.

    One subclass per family of backbones (`models`, exact types), listed in `accepted.py`. A
    backbone has timm's attributes: blocks, norm, patch_embed, num_prefix_tokens, cls_token and,
    optionally, pretrained_cfg, and blocks_left_out (how many blocks of an encoder stand behind its
    own and are never run). Raises ValueError, naming the type, for a part that is not supported.
    """

    models: ClassVar[tuple[type[nn.Module], ...]]

    def __init__(self, backbone: Any) -> None:  # a module: its attributes are timm's
        accept("backbone", backbone, self.models)
        for index, block in enumerate(backbone.blocks):
            accept(f"block {index + 1}", block, BLOCKS)
            accept(f"attention of block {index + 1}", block.attn, ATTENTIONS)
        self._check(backbone)
        self.backbone = backbone
        self.blocks: Sequence[Any] = list(backbone.blocks)
        known = getattr(backbone, "pretrained_cfg", None) or {}
        self.anatomy = Anatomy(
            name=known.get("architecture", type(backbone).__name__),
            depth=len(self.blocks),
            prefix=backbone.num_prefix_tokens,
            patches=backbone.patch_embed.num_patches,
            class_token=backbone.cls_token is not None,
            width=backbone.embed_dim,
            attention_width=self.blocks[0].attn.attn_dim,
            left_out=getattr(backbone, "blocks_left_out", 0),
        )
        self.grid: tuple[int, int] = tuple(backbone.patch_embed.grid_size)
        self.cost = self._cost()

    @abstractmethod
    def _check(self, backbone: Any) -> None:
        """Raise ValueError for an embedding or a head that this family does not support."""

    @abstractmethod
    def _embed(
        self, images: Float[Tensor, "b 3 h w"], patches: PatchLayer
    ) -> Float[Tensor, "b n dim"]:
        """Everything before the first block."""

    @abstractmethod
    def classify(self, batch: PackedTokens) -> Float[Tensor, "b classes"]:
        """Logits per image, in the order of the batch."""

    @abstractmethod
    def classify_ragged(self, tokens: RaggedTokens) -> Float[Tensor, "b classes"]:
        """Logits per image of tokens whose layout stays on the device."""

    def sequence_parts(self) -> tuple[Float[Tensor, "prefix dim"], Float[Tensor, "n dim"]] | None:
        """Prefix tokens and every token's position (0 where it has none), if the sequence is the
        prefix, then the embedded patches, with positions added and nothing else; None otherwise.
        """
        return None

    @abstractmethod
    def _cost(self) -> BackboneCost:
        """What the backbone's layers cost; `block_costs(self.blocks)` for the blocks."""

    def embed(
        self, images: Float[Tensor, "b 3 h w"], patches: PatchLayer = nn.Module.__call__
    ) -> Float[Tensor, "b n dim"]:
        """Everything before the first block. Raises ValueError for images of another size.

        `patches(layer, images)` runs the patch embedding.
        """
        try:
            x = self._embed(images, patches)
        except AssertionError as error:  # timm's own check of a fixed size
            raise ValueError(
                f"images of {tuple(images.shape[-2:])} pixels do not fit the backbone "
                f"({error}): build it with img_size={images.shape[-1]}"
            ) from None
        if x.shape[1] != self.anatomy.tokens:
            raise ValueError(
                f"{tuple(images.shape[-2:])} pixels give {x.shape[1]} tokens, not "
                f"{self.anatomy.tokens}: build the backbone with img_size={images.shape[-1]}"
            )
        return x

    def features(self, batch: PackedTokens) -> Float[Tensor, "total dim"]:
        """The final norm of every remaining token, in packed order."""
        return rowwise(self.backbone.norm, batch.rows)

    def prefix_of(
        self, rows: Float[Tensor, "total dim"], batch: PackedTokens
    ) -> Float[Tensor, "b prefix dim"]:
        """The prefix tokens of every image among `rows`, in the order of the batch."""
        first = torch.arange(self.anatomy.prefix, device=rows.device)
        return rows[batch.starts()[:, None] + first]


def accept(role: str, module: nn.Module, types: tuple[type, ...]) -> None:
    """Raise ValueError, naming the type, unless the module is of exactly one of the types."""
    if type(module) not in types:
        known = ", ".join(t.__name__ for t in types)
        raise ValueError(f"{role} of type {type(module).__name__} is not supported (only {known})")


def weights_of(module: nn.Module | None) -> int:
    """Multiply-accumulates per token of a module's linear layers."""
    if module is None:
        return 0
    return sum(m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))


def block_costs(blocks: Sequence[Any]) -> tuple[BlockCost, ...]:
    """The cost of each block."""
    return tuple(
        BlockCost(
            qkv=weights_of(b.attn.qkv),
            proj=weights_of(b.attn.gate) + weights_of(b.attn.proj),  # both on remaining queries
            mlp=weights_of(b.mlp),
            attention_width=b.attn.attn_dim,
        )
        for b in blocks
    )
