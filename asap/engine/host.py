"""The one place where the host reads the device, which makes it wait."""

import torch
from jaxtyping import Int
from torch import Tensor

_reads = 0


def to_host(values: Tensor) -> Tensor:
    """The values on the host, which waits until the device has them. Nothing else in the engine
    reads the device, so that a test can count how often it does.
    """
    global _reads
    _reads += 1
    return values.cpu()


class Ahead:
    """Numbers that are copied while the device has other work, so that reading them waits less."""

    def __init__(self, like: Int[Tensor, "k"]) -> None:
        on_device = like.device.type == "cuda"
        with torch.inference_mode(False):
            self.held = torch.empty(like.shape, dtype=like.dtype, pin_memory=on_device)
        self.event = torch.cuda.Event() if on_device else None

    def send(self, values: Int[Tensor, "k"]) -> None:
        """Copy the values behind the work that is in the queue now."""
        self.held.copy_(values, non_blocking=True)
        if self.event is not None:
            self.event.record()

    def receive(self) -> list[int]:
        """The values that were sent; waits until they are there."""
        global _reads
        _reads += 1
        if self.event is not None:
            self.event.synchronize()
        return self.held.tolist()


def reads() -> int:
    """How often the host has read so far; work during which it does cannot be recorded."""
    return _reads
