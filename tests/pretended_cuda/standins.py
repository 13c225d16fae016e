"""What computes, on the CPU, operators that a CUDA device has and the CPU has not."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def softmax(x: Tensor, dim: int, half_to_float: bool) -> Tensor:
    """The softmax of half precision in float32."""
    return aten._softmax(x.float() if half_to_float else x, dim, False)


def _attention(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> tuple[Tensor, Tensor]:
    """Attention of (b, h, n, d), its strides as the library's kernels have them; log-sum-exp."""
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    scores = factor * q.float() @ k.float().transpose(-2, -1)
    found = (scores.softmax(-1) @ v.float()).to(q.dtype)
    return found.transpose(1, 2).contiguous().transpose(1, 2), scores.logsumexp(-1)


def cudnn_attention(
    q: Tensor, k: Tensor, v: Tensor, bias: None, with_lse: bool, *, scale: float | None = None
) -> tuple[Any, ...]:
    assert bias is None and with_lse and q.dtype in (torch.float16, torch.bfloat16)
    found, lse = _attention(q, k, v, scale)
    return found, lse[..., None], *_unused(q, k)


def flash_attention(
    q: Tensor, k: Tensor, v: Tensor, *, scale: float | None = None
) -> tuple[Any, ...]:
    assert q.dtype in (torch.float16, torch.bfloat16)
    return *_attention(q, k, v, scale), *_unused(q, k)


def _unused(q: Tensor, k: Tensor) -> tuple[Any, ...]:
    """Results that nobody asks for: sequences, lengths, random state and a map."""
    none = torch.empty(0)
    return none, none, q.shape[2], k.shape[2], none, none, none


STANDINS: dict[Any, Callable[..., Any]] = {
    aten._softmax.default: softmax,
    aten._scaled_dot_product_cudnn_attention.default: cudnn_attention,
    aten._scaled_dot_product_flash_attention.default: flash_attention,
}
