"""A CUDA device that is pretended: what a GPU would refuse is refused, and numbers are the CPU's.

Torch's operators see tensors that say they are on `cuda:0` (`tensor.py`). Every operator is checked
(`rules.py`) and runs on the CPU (`device.py`); `torch.cuda` answers as with one device (`api.py`);
a CUDA graph is its operators run again on the same memory (`recording.py`); kernels are checked
where they are launched, and their plain versions compute (`launches.py`).
"""

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch

from asap.core import constants
from asap.engine import graphs

from . import gradients
from .api import Api, guarded
from .device import PretendedDevice, Refused
from .functions import Functions
from .launches import Launches
from .tensor import Pretended

__all__ = ["Pretended", "PretendedCuda", "Refused", "pretending"]


@dataclass(frozen=True)
class PretendedCuda:
    """The machine: its device, its `torch.cuda`, and what launches kernels."""

    device: PretendedDevice
    api: Api
    launches: Launches


@contextmanager
def pretending() -> Iterator[PretendedCuda]:
    """Inside, there is a CUDA device."""
    device = PretendedDevice()
    api, launches = Api(device), Launches(device)
    lifted = torch._C._only_lift_cpu_tensors()
    with pytest.MonkeyPatch.context() as patch, guarded(), Functions(device), device:
        patch.setattr(constants, "_kept", OrderedDict())  # nothing is on the device yet
        patch.setattr(graphs, "_of_thread", threading.local())  # and nothing is recorded
        patch.setattr(torch.autograd, "grad", gradients.grad)
        api.put_in_place(patch)
        launches.put_in_place(patch)
        torch._C._set_only_lift_cpu_tensors(True)
        try:
            yield PretendedCuda(device, api, launches)
        finally:
            torch._C._set_only_lift_cpu_tensors(lifted)
