"""What a model takes besides time: memory of the device, and energy where the driver tells it."""

import importlib
import logging
from collections.abc import Callable

import torch

log = logging.getLogger(__name__)
NO_MEMORY = "only CUDA tells the peak of its memory"
Meter = Callable[[], float]  # joules that the device has used since some fixed moment


def energy_meter(device: torch.device | str) -> tuple[Meter | None, str | None]:
    """A function that reads the energy counter of the device's driver, in joules; without one, None
    and the reason.
    """
    device = torch.device(device)
    if device.type != "cuda":
        return None, "no driver tells the energy of this device"
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        # By its UUID: NVML counts devices that CUDA_VISIBLE_DEVICES hides, too.
        name = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = nvml.nvmlDeviceGetHandleByUUID(name)

        def read() -> float:
            return nvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 1000  # from mJ

        read()
    except ImportError:
        return None, "pynvml is not installed: pip install nvidia-ml-py"
    except Exception as error:  # the driver library has its own error types
        log.info("the energy counter cannot be read: %s", error)
        return None, f"the driver tells no energy ({error})"
    return read, None


def peak_memory(device: torch.device, call: Callable[[], object]) -> int | None:
    """The most bytes that a model's first calls hold beside what was there before; None on CPU.

    Weights and timed images are there before and not counted. The first calls also record CUDA
    graphs where the engine has some, whose memory stays: it is counted.
    """
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
