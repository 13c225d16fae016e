"""Weights of size-weighted means: each token's size over the sum of its output's, one launch.

One program compares the outputs of one image's tokens with each other, so that no two programs add
to the same number. Sizes are whole numbers, whose sums are exact in any order.
"""

from typing import no_type_check

import torch
from jaxtyping import Float, Float32, Int
from torch import Tensor

from asap.engine.kernels.launch import jit, next_power_of_2, runs, tl

MOST = 4096


@jit(do_not_specialize=["n"])
@no_type_check
def _weights_kernel(sizes, target, out, n, WIDTH: tl.constexpr, CHUNK: tl.constexpr):
    """Weights of one image's tokens."""
    first = tl.program_id(0).to(tl.int64) * n
    place = tl.arange(0, WIDTH)
    to = tl.load(target + first + place, mask=place < n, other=-1).to(tl.int32)
    total = tl.zeros((WIDTH,), tl.float32)
    for start in range(0, n, CHUNK):
        others = start + tl.arange(0, CHUNK)
        at = tl.load(target + first + others, mask=others < n, other=-1).to(tl.int32)
        size = tl.load(sizes + first + others, mask=others < n, other=0.0)
        total += tl.sum(tl.where(to[:, None] == at[None, :], size[None, :], 0.0), 1)
    own = tl.load(sizes + first + place, mask=place < n, other=0.0)
    share = tl.div_rn(own, tl.where(total > 0, total, 1.0))
    tl.store(out + first + place, tl.where(to >= 0, share, 0.0), mask=place < n)


def mean_weights(
    sizes: Float[Tensor, "b n"], target: Int[Tensor, "b n"]
) -> Float32[Tensor, "b n"] | None:
    """As `asap.core.pooling.mean_weights`; None where the kernel does not take the sizes."""
    b, n = sizes.shape
    if not runs(sizes) or sizes.dtype != torch.float32 or n > MOST:
        return None
    out, width = torch.empty(b, n, dtype=torch.float32, device=sizes.device), next_power_of_2(n, 16)
    chunk = max(1, 8192 // width)
    packed = sizes.contiguous(), target.contiguous()
    _weights_kernel[(b,)](*packed, out, n, WIDTH=width, CHUNK=chunk, num_warps=8)
    return out
