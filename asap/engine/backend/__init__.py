"""What a device needs, and no other: the rules behind equal bits on CPU, no waiting on CUDA."""

import torch

from asap.engine.backend.base import Backend
from asap.engine.backend.cpu import CPU
from asap.engine.backend.cuda import CUDA

BACKENDS: dict[str, Backend] = {"cpu": CPU(), "cuda": CUDA()}


def backend_of(device: torch.device) -> Backend:
    """The backend of a device; a type without one of its own is taken as CUDA is."""
    return BACKENDS.get(device.type, BACKENDS["cuda"])
