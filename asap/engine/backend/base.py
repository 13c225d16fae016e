"""What a device decides about how a batch is computed."""

from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from asap.engine.graphs import Recorder


class Backend:
    """How a device computes a batch. The defaults need nothing special.

    looks: reading flags on the device is free, so the engine looks which images are chosen and
    shows a method these alone. Else it asks for all, and reads once a block how many tokens are
    left. alone_below: images of fewer tokens are computed one by one. slab_bytes: attention scores
    held at once. recorder: records work that needs nothing from the host, to be launched at once;
    None: every kernel is launched by itself. eager: explicit softmax attention everywhere, by slabs
    of images, instead of the fused kernel. strict: passes on the device use the same kernels on the
    same number of rows whatever the batch, so that an image's bits do not depend on it; elsewhere
    it changes nothing (on a CPU they never do).
    """

    looks: ClassVar[bool] = False
    alone_below: ClassVar[int] = 0
    slab_bytes: ClassVar[int] = 256 << 20

    def __init__(
        self, recorder: Recorder | None = None, eager: bool = False, strict: bool = False
    ) -> None:
        self.recorder, self.eager, self.strict = recorder, eager, strict

    def decides(self, like: Float[Tensor, "*shape"]) -> bool:
        """Whether passes over such tokens run by `engine/device`, where a method allows it."""
        return False

    def fuses(self, q: Float[Tensor, "b h n d"]) -> bool:
        """Whether the fused attention kernel may be used."""
        return not self.eager

    def own_memory(self, x: Float[Tensor, "b h n d"]) -> Float[Tensor, "b h n d"]:
        """Keys or values as a product needs them."""
        return x

    def few_queries(self, q: Float[Tensor, "b h m d"]) -> Float[Tensor, "b h more d"]:
        """Some queries, filled up to as many as a product needs."""
        return q

    def images_at_once(self, q: Float[Tensor, "b h n d"]) -> int:
        """How many images' attention scores are held at once."""
        _, h, n, _ = q.shape
        return max(1, self.slab_bytes // (h * n * n * q.element_size()))
