"""Kernels compile for GPUs where there is none: one form here, all by `make test-kernels`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asap.engine.kernels import launch

ROOT = Path(__file__).parents[1]


@pytest.mark.process
@pytest.mark.skipif(not launch.INSTALLED, reason="Triton is not installed")
def test_every_kernel_compiles(tmp_path: Path) -> None:
    """A process of its own, since the tests' kernels are interpreted."""
    command = [sys.executable, "scripts/compile_kernels.py", "--dtypes", "float16"]
    command += ["--head-sizes", "64", "--arch", "90", "--once"]
    environment = {**os.environ, "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert lines[-1].endswith(" 0 failed")
    assert not [line for line in lines[:-1] if "spilled    0" not in line]
