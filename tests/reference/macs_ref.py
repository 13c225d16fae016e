"""Multiply-accumulates of one image in closed form, as exact integers.

Counted: the patch convolution, every linear layer of every block on the tokens that were there,
Q K^T and A V, and the classifier. Not counted: norms, softmax, activations, biases, residuals.
"""

from collections.abc import Sequence

from timm.models.vision_transformer import VisionTransformer
from torch import nn

from .lvvit_ref import is_lvvit, outside_macs


def linear_macs(module: nn.Module) -> int:
    """MACs of one token through every linear layer inside `module`."""
    return sum(m.in_features * m.out_features for m in module.modules() if type(m) is nn.Linear)


def backbone_macs(
    model: VisionTransformer,
    n_attention: Sequence[int],
    n_mlp: Sequence[int],
    n_left: int | None = None,
) -> int:
    """MACs of the backbone's own layers on one image.

    Args:
        n_attention: tokens in the attention of each block, prefix included.
        n_mlp: tokens in the MLP of each block; fewer where a reduction lies between the two.
        n_left: tokens that leave the last block, if not those of its MLP. LV-ViT's second head
            sees them.
    """
    total = _outside_macs(model, n_mlp[-1] if n_left is None else n_left)
    for block, n_a, n_m in zip(model.blocks, n_attention, n_mlp, strict=True):
        attention_width = block.attn.num_heads * block.attn.head_dim
        total += n_a * linear_macs(block.attn)  # qkv, projection, and the gate where there is one
        total += 2 * n_a * n_a * attention_width  # Q K^T and A V, all heads
        total += n_m * linear_macs(block.mlp)
    return total


def _outside_macs(model: VisionTransformer, n_left: int) -> int:
    """Patch embedding and heads."""
    if is_lvvit(model):
        return outside_macs(model, n_left)
    conv = model.patch_embed.proj
    per_patch = conv.out_channels * conv.in_channels * conv.kernel_size[0] * conv.kernel_size[1]
    total = model.patch_embed.num_patches * per_patch
    total += linear_macs(model.head)
    if isinstance(getattr(model, "head_dist", None), nn.Module):
        total += linear_macs(model.head_dist)
    return total


def asap_macs(
    n: int,
    width: int,
    *,
    n_walked: int,
    stopped: bool,
    n_background: int = 0,
    n_patches: int = 0,
    n_columns: int = 0,
    pool: bool = True,
    accumulate: bool = True,
    order: str = "walk",
    overhead: bool = False,
    pca: bool = False,
    plugin: int = 0,
) -> dict[str, int]:
    """The method's own MACs on one image, by part; `total` is their sum.

    vectors: column mass and class row, one vector-matrix product each in every walked block. The
        rollout order has no such recursion and reads both off its matrix.
    matrix: P itself, one n x n x n product a block from the second on. In walk order only images
        that stop need it, and none without accumulation; in rollout order every walked block.
    distances: a square for every patch and column. pooling: one weighted sum over the background,
        unless that is the anchor alone, which is moved.
    anchor: the PCA centre, products of all patches' rows of P with each other.
    plugin: what its rounds computed, every distance as long as the vectors compared.

    Args:
        n: tokens before the reduction, prefix included.
        n_walked: blocks whose attention entered the walk.
    """
    needs_matrix = order == "rollout" or overhead or (stopped and accumulate)
    parts = {
        "vectors": 2 * n * n * n_walked if order == "walk" and not overhead else 0,
        "matrix": n**3 * max(n_walked - 1, 0) if needs_matrix else 0,
        "distances": n_patches * n_columns if stopped else 0,
        "pooling": n_background * width if stopped and pool and n_background > 1 else 0,
        "anchor": n_patches**2 * n if stopped and pca else 0,
        "plugin": plugin,
    }
    return {**parts, "total": sum(parts.values())}


def tome_macs(n_a: int, n_b: int, key_width: int, n_removed: int, width: int) -> dict[str, int]:
    """ToMe's own MACs in one block: the similarities, and the weighted sums of the sources."""
    parts = {"similarity": n_a * n_b * key_width, "merge": n_removed * width}
    return {**parts, "total": sum(parts.values())}
