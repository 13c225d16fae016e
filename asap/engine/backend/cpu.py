"""CPU: looking is free, and an image's bits must not depend on the images beside it.

The rules were found by measuring, and `tests/test_contract_batch.py` checks them: the last bits of
some kernels' results depend on the number of images, the place in memory or the thread. The rules
for rows are in `asap.core.rows`, since methods and backbones need them too.
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
    slab_bytes: ClassVar[int] = 1 << 19

    def fuses(self, q: Float[Tensor, "b h n d"]) -> bool:
        return not self.eager and q.shape[2] >= FUSED_FROM

    def own_memory(self, x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
        """A copy if below `SHORT` tokens (one image), so that all images are aligned alike."""
        return x.contiguous() if x.shape[2] < SHORT else x

    def few_queries(self, q: Float[Tensor, "b h m d"]) -> Float[Tensor, "b h more d"]:
        """The queries, filled up with zeros to at least `rows.MIN_ROWS`."""
        return F.pad(q, (0, 0, 0, max(0, rows.MIN_ROWS - q.shape[2])))
