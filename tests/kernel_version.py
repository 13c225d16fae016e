"""Which version of a kernel a test runs on: the kernel itself, or its plain version."""

import pytest
import torch

from asap.engine.kernels import launch

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(params=["kernel", "plain"])
def version(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Runs the test twice: the kernel is interpreted, or on the CUDA device if there is one."""
    if request.param == "plain":
        monkeypatch.setattr(launch, "DEVICES", set())
    elif not launch.INSTALLED:
        pytest.skip("Triton is not installed")
    assert launch.runs(torch.zeros(1, device=DEVICE)) == (request.param == "kernel")
    return request.param
