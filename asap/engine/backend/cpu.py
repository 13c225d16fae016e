"""CPU: looking is free, and an image's bits must not depend on the images beside it.

The rules were found by measuring (`tests/test_contract_batch.py` holds them): some kernels give a
result other last bits for another number of images, another place in memory, or on another thread.
Those for rows alone are in `asap.core.rows`, as methods and backbones need them too.
"""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from asap.core import rows
from asap.engine.backend.base import Backend

SHORT = 16  # tokens: from this length on, images are computed together
FUSED_FROM = 32  # tokens: below, the fused kernel's bits depend on the thread it runs on


class CPU(Backend):
    """Slabs that stay in the processor's cache; short images one by one."""

    looks: ClassVar[bool] = True
    alone_below: ClassVar[int] = SHORT
    slab_bytes: ClassVar[int] = 2 << 20

    def fuses(self, q: Float[Tensor, "b h n d"]) -> bool:
        return q.shape[2] >= FUSED_FROM

    def own_memory(self, x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
        """Below `SHORT` tokens (one image) in its own memory, aligned alike for all images."""
        return x.contiguous() if x.shape[2] < SHORT else x

    def few_queries(self, q: Float[Tensor, "b h m d"]) -> Float[Tensor, "b h more d"]:
        """At least `rows.MIN_ROWS`, the others zero."""
        return F.pad(q, (0, 0, 0, max(0, rows.MIN_ROWS - q.shape[2])))
