"""A backbone's layers on packed rows: by kernels where these fit, else as the backbone has them.

Every function works on the first rows of buffers and never asks the device for a number.
"""

from functools import partial
from typing import Any

from jaxtyping import Float
from timm.layers.mlp import Mlp
from timm.layers.patch_embed import PatchEmbed
from torch import Tensor, nn
from torch.nn import functional as F

from asap.backbones.adapter import BackboneAdapter
from asap.core.rows import rowwise
from asap.engine.kernels.embed import patches_of
from asap.engine.kernels.embed_rows import embed_rows
from asap.engine.kernels.gelu import linear_gelu
from asap.engine.kernels.norm import add_norm


def embed(
    adapter: BackboneAdapter,
    images: Float[Tensor, "b 3 h w"],
    norm: Any,
    rows: Float[Tensor, "rows dim"],
    hidden: Float[Tensor, "rows dim"],
) -> bool:
    """Everything before the first block into `rows`; True if `hidden` has their norm too.

    Patches are embedded by a linear layer where a convolution did it: the same sums, for which the
    convolution takes 3 to 20 times as long (cuDNN, H200).
    """
    parts, known = adapter.sequence_parts(), parameters_of(norm)
    patches = _linear_patches(adapter.backbone.patch_embed, images)
    if parts is None or known is None or patches is None:
        rows.copy_(adapter.embed(images, _patches).flatten(0, 1))
        return False
    embed_rows(patches, *parts, *known, out_rows=rows, out_hidden=hidden)
    return True


def _patches(layer: Any, images: Tensor) -> Tensor:
    """What timm's PatchEmbed gives, (b, patches, dim)."""
    rows = _linear_patches(layer, images)
    return layer(images) if rows is None else rows.unflatten(0, (len(images), -1))


def _linear_patches(layer: Any, images: Tensor) -> Float[Tensor, "patches dim"] | None:
    """The embedded patches of all images by a linear layer; None if the layer does more."""
    projection = getattr(layer, "proj", None)
    if type(layer) is not PatchEmbed or not isinstance(projection, nn.Conv2d) or not layer.flatten:
        return None
    size, (side, other) = tuple(images.shape[-2:]), projection.kernel_size
    whole = side == other and size == layer.img_size and size[0] % side == size[1] % side == 0
    if not whole or projection.groups != 1 or not isinstance(layer.norm, nn.Identity):
        return None
    rows = patches_of(images.contiguous(), side)
    return rowwise(lambda part: F.linear(part, projection.weight.flatten(1), projection.bias), rows)


def normed(
    rows: Float[Tensor, "rows dim"],
    update: Float[Tensor, "rows dim"] | None,
    norm: Any,
    hidden: Float[Tensor, "rows dim"],
) -> None:
    """`rows += update`, and `hidden` becomes the norm of the rows."""
    if (parameters := parameters_of(norm)) is not None:
        add_norm(rows, update, *parameters, out_rows=rows, out_hidden=hidden)
        return
    if update is not None:
        rows += update
    hidden.copy_(norm(rows))


def parameters_of(norm: Any) -> tuple[Tensor, Tensor, float] | None:
    """Weight, bias and epsilon of a LayerNorm over rows; None for another norm."""
    plain = isinstance(norm, nn.LayerNorm) and len(norm.normalized_shape) == 1
    if not plain or norm.weight is None or norm.bias is None:
        return None
    return norm.weight, norm.bias, norm.eps


def mlp_update(block: Any, hidden: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
    """What the MLP adds to the rows."""
    return block.drop_path2(block.ls2(rowwise(partial(_mlp, block.mlp), hidden)))


def _mlp(mlp: Any, hidden: Float[Tensor, "rows dim"]) -> Float[Tensor, "rows dim"]:
    exact = type(mlp) is Mlp and isinstance(mlp.act, nn.GELU) and mlp.act.approximate == "none"
    if exact and isinstance(mlp.fc1, nn.Linear):
        return mlp.fc2(mlp.norm(linear_gelu(hidden, mlp.fc1.weight, mlp.fc1.bias)))
    return mlp(hidden)
