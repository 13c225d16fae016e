"""The one place where the host reads the device, which makes it wait."""

from torch import Tensor

_reads = 0


def to_host(values: Tensor) -> Tensor:
    """The values on the host, which waits until the device has them. Nothing else in the engine
    reads the device, so that a test can count how often it does.
    """
    global _reads
    _reads += 1
    return values.cpu()


def reads() -> int:
    """How often the host has read so far; work during which it does cannot be recorded."""
    return _reads
