"""What differs between devices: on CPU the rules for equal bits, on CUDA never to wait."""

import torch

from asap.engine.backend.base import Backend
from asap.engine.backend.cpu import CPU
from asap.engine.backend.cuda import CUDA

BACKENDS: dict[str, Backend] = {"cpu": CPU(), "cuda": CUDA()}


def backend_of(device: torch.device) -> Backend:
    """The backend of a device; a type without its own backend gets that of CUDA."""
    return BACKENDS.get(device.type, BACKENDS["cuda"])
