"""What torch does with a tensor before its operators are asked."""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from .device import PretendedDevice, Refused
from .tensor import CUDA, Pretended


class Functions(TorchFunctionMode):
    """Gives devices their number, and does what needs an address or all the numbers."""

    def __init__(self, device: PretendedDevice) -> None:
        super().__init__()
        self.device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.device:
            return func(*args, **(kwargs or {}))
        kwargs = {name: _numbered(value) for name, value in (kwargs or {}).items()}
        args = tuple(_numbered(value) for value in args)
        first: Any = args[0] if args else None
        if func is Tensor.is_pinned:
            return self.device.is_pinned(first)
        if func is Tensor.pin_memory and not isinstance(first, Pretended):
            return self.device.pin(first.clone())
        if func is Tensor.cuda:
            return first.to(CUDA, **kwargs)
        if isinstance(first, Pretended):
            if func is Tensor.tolist:
                return first.cpu().tolist()
            if func in (Tensor.numpy, Tensor.__array__):
                raise TypeError("can't convert cuda:0 device type tensor to numpy: use cpu() first")
            if func is Tensor.data_ptr:
                return first.numbers.data_ptr()
            if func is Tensor.untyped_storage:
                return first.numbers.untyped_storage()
            if func is Tensor.__deepcopy__:
                made = args[1].get(id(first))
                return first.clone() if made is None else made
        return func(*args, **kwargs)


def _numbered(value: Any) -> Any:
    """`cuda` is `cuda:0`, the only device."""
    if not (isinstance(value, torch.device) or (isinstance(value, str) and value[:4] == "cuda")):
        return value
    device = torch.device(value)
    if device.type == "cuda" and device.index not in (None, 0):
        raise Refused(f"{device}: invalid device ordinal")
    return CUDA if device.type == "cuda" else device
