"""Where the engine runs in a test: on the CPU, as on CUDA but on CPU tensors, and on CUDA."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import pytest
import torch
from torch import Tensor

from asap.core import accelerated
from asap.engine.backend import CUDA, Backend, backend_of
from asap.engine.kernels import launch
from asap.engine.kernels.registry import VERSIONS

T = TypeVar("T")
ON_CUDA = pytest.param("cuda", marks=pytest.mark.gpu)  # skipped where there is no device
PLACES = ["cpu", pytest.param("as_on_cuda", marks=pytest.mark.slow), ON_CUDA]


class OnDevice(CUDA):
    """As on CUDA with Triton, on CPU tensors."""

    def decides(self, like: Tensor) -> bool:
        return not self.eager and like.dtype in launch.DTYPES


@dataclass(frozen=True)
class Place:
    """The device of the tensors, and how the engine runs there."""

    device: torch.device
    backend: Backend

    def some(self, draws: Sequence[T]) -> Sequence[T]:
        """All of them where the executor runs on the CPU, every third elsewhere."""
        return draws if self.backend.looks else draws[::3]


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """The test runs in each of the places, without recording.

    as_on_cuda: passes by `asap.engine.device`, with what is registered for CUDA devices, and the
    plain versions of the kernels, since interpreting Triton takes long (test_kernels_pass.py).
    """
    if request.param != "as_on_cuda":
        device = torch.device(request.param)
        yield Place(device, backend_of(device, graphs=False))
        return
    monkeypatch.setattr(launch, "DEVICES", set())
    with accelerated.registered("cpu", VERSIONS):
        yield Place(torch.device("cpu"), OnDevice())
