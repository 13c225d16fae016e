"""What differs between devices: on CPU the rules for equal bits, on CUDA never to wait."""

from contextlib import AbstractContextManager, nullcontext

import torch

from asap.engine.backend.base import Backend
from asap.engine.backend.cpu import CPU
from asap.engine.backend.cuda import CUDA
from asap.engine.graphs import cuda_graphs

BACKENDS: dict[str, type[Backend]] = {"cpu": CPU, "cuda": CUDA}


def backend_of(
    device: torch.device, graphs: bool = True, eager: bool = False, strict: bool = False
) -> Backend:
    """The backend of a device; a type without its own backend gets that of CUDA.

    graphs: record CUDA graphs where the device has them. eager, strict: see `Backend`.
    """
    recorder = cuda_graphs(device) if graphs and device.type == "cuda" else None
    return BACKENDS.get(device.type, CUDA)(recorder, eager, strict)


def backend_device(device: torch.device) -> AbstractContextManager[object]:
    """Makes a GPU the current one: kernels are launched, and events recorded, on that."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


def explicit_attention(asked: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether attention is an explicit softmax everywhere; `asked`: auto | fused | eager.

    auto: where that is faster, in bfloat16 on a CPU (`docs/architecture.md`, "Slabs").
    """
    return asked == "eager" or (
        asked == "auto" and device.type == "cpu" and dtype == torch.bfloat16
    )
