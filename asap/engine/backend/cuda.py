"""CUDA: the host must not wait for the device, so it reads as few values as possible.

With Triton, methods run by `engine/device` where they can. Else images of equal length are computed
together, one attention call for each length.
"""

from jaxtyping import Float
from torch import Tensor

from asap.engine.backend.base import Backend
from asap.engine.graphs import Recorder
from asap.engine.kernels.launch import runs
from asap.engine.kernels.registry import register_kernels


class CUDA(Backend):
    """The defaults: methods are shown all images with a mask, counts are read once a block."""

    def __init__(
        self, recorder: Recorder | None = None, eager: bool = False, strict: bool = False
    ) -> None:
        super().__init__(recorder, eager, strict)
        register_kernels()

    def decides(self, like: Float[Tensor, "*shape"]) -> bool:
        return not self.eager and like.is_cuda and runs(like)
