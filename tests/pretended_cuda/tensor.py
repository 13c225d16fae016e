"""A tensor that says it is on `cuda:0` and keeps its numbers in a tensor on the CPU."""

from typing import Any

import torch
from torch import Tensor

CUDA = torch.device("cuda", 0)


class Pretended(Tensor):
    """What a tensor on the device looks like from outside; `numbers` has them."""

    numbers: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, numbers: Tensor) -> "Pretended":
        made = Tensor._make_wrapper_subclass(
            cls,
            numbers.shape,
            strides=numbers.stride(),
            storage_offset=numbers.storage_offset(),
            dtype=numbers.dtype,
            device=CUDA,
        )
        made.numbers = numbers
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func}: a tensor on the pretended device is used after its test")

    def __repr__(self, **_: Any) -> str:
        return f"Pretended({tuple(self.shape)}, {self.dtype})"

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        """Makes `nn.Module.to` exchange parameters as it does for a device."""
        return ["numbers"], None

    @staticmethod
    def __tensor_unflatten__(parts: dict[str, Tensor], *_: Any) -> "Pretended":
        return Pretended(parts["numbers"])


def numbers_of(value: Any) -> Any:
    """The CPU tensor of a pretended one; anything else as it is."""
    return value.numbers if isinstance(value, Pretended) else value


def is_cuda(device: Any) -> bool:
    """Whether an argument `device` names a CUDA device."""
    return device is not None and torch.device(device).type == "cuda"


def garbage(tensor: Tensor) -> None:
    """What memory may hold that nobody has written: NaN, and numbers that are no index."""
    if tensor.is_floating_point():
        tensor.fill_(float("nan"))
    elif tensor.dtype != torch.bool and tensor.dtype != torch.uint8:
        tensor.fill_(torch.iinfo(tensor.dtype).max // 3)
    else:
        tensor.fill_(1)
