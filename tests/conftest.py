"""The environment of every test: no network, silent dashboards, few threads. See every_test.py."""

import os
import tempfile

import pytest

_scratch = tempfile.TemporaryDirectory(prefix="asap-tests-")
os.environ |= {
    "HF_HUB_OFFLINE": "1",  # a missing weight fails at once instead of after retries
    "MPLBACKEND": "Agg",
    "OMP_WAIT_POLICY": "passive",  # a thread that waits for another sleeps instead of spinning
    "MPLCONFIGDIR": _scratch.name,
    "WANDB_MODE": "offline",
    "WANDB_SILENT": "true",
    "WANDB_DIR": _scratch.name,
    "WANDB_DATA_DIR": _scratch.name,
    "WANDB_CACHE_DIR": _scratch.name,
    "WANDB_CONFIG_DIR": _scratch.name,
}
if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_configure(config: pytest.Config) -> None:
    """The process that only hands tests to workers imports nothing of the project."""
    if config.getoption("dist", "no") == "no":
        config.pluginmanager.import_plugin("every_test")


def pytest_unconfigure() -> None:
    _scratch.cleanup()
