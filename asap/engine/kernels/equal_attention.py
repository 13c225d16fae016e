"""Attention of images of equal length, with its log-sum-exp, by the library's fastest kernel.

While no image has stopped, the library's kernels for equal lengths take about three quarters of the
time of one for any lengths. They do not promise that an image's bits are those of another batch.
"""

import logging

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.backends.cuda import SDPAParams, can_use_cudnn_attention, can_use_flash_attention

from asap.engine.kernels.attention import ragged_attention

log = logging.getLogger(__name__)
aten = torch.ops.aten
_refused: set[tuple] = set()  # a library and the shapes that it turned out not to take


def equal_attention(
    q: Float[Tensor, "rows heads d"],
    k: Float[Tensor, "rows heads d"],
    v: Float[Tensor, "rows heads d"],
    images: int,
    scale: float,
) -> tuple[Float[Tensor, "rows heads d"], Float32[Tensor, "images n heads"]]:
    """softmax(scale q k^T) v of every image, and the natural log of the softmax's sum by image,
    token and head, as `head_mean_map` takes it (in the library's strides).

    On CUDA in half precision by cuDNN, else by FlashAttention, where torch says that it takes these
    tensors and it does; otherwise by `ragged_attention`.
    """
    n = len(q) // images
    by_q, by_k, by_v = (x.unflatten(0, (images, n)).transpose(1, 2) for x in (q, k, v))
    given = SDPAParams(by_q, by_k, by_v, None, 0.0, False, False)
    for takes, attention in LIBRARIES:
        kind = attention, q.dtype, by_q.shape
        if kind in _refused or not takes(given):
            continue
        try:
            out, lse = attention(by_q, by_k, by_v, scale)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # cuDNN finds no plan, which torch has not foreseen
            if q.is_cuda and torch.cuda.is_current_stream_capturing():
                raise  # it is the recording that failed
            log.warning("another kernel computes the attention: %s", str(error).splitlines()[0])
            _refused.add(kind)
        else:
            return out.transpose(1, 2).flatten(0, 1), lse[:, :, :n].transpose(1, 2)
    offsets = torch.arange(images + 1, dtype=torch.int32, device=q.device) * n
    out, lse = ragged_attention(q, k, v, offsets, n, scale, lse=True)
    assert lse is not None
    return out, lse.view(images, n, -1)


def _cudnn_takes(given: SDPAParams) -> bool:
    return given.query.is_cuda and can_use_cudnn_attention(given)


def _flash_takes(given: SDPAParams) -> bool:
    return given.query.is_cuda and can_use_flash_attention(given)


def _cudnn(
    q: Float[Tensor, "b h n d"], k: Tensor, v: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    out, lse = aten._scaled_dot_product_cudnn_attention(q, k, v, None, True, scale=scale)[:2]
    return out, lse.squeeze(-1)


def _flash(
    q: Float[Tensor, "b h n d"], k: Tensor, v: Tensor, scale: float
) -> tuple[Tensor, Tensor]:
    return aten._scaled_dot_product_flash_attention(q, k, v, scale=scale)[:2]


LIBRARIES = ((_cudnn_takes, _cudnn), (_flash_takes, _flash))  # the faster one first
