"""What every test runs under: no programs, no painting, repeatable draws; and which are slow.

A plugin of the processes that run tests: see conftest.py.
"""

import gc

gc.disable()  # while everything is imported, which makes hardly any garbage: a quarter of the time

import logging
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

import torch

if not torch.cuda.is_available():  # read when Triton is imported: kernels run on CPU tensors
    os.environ["TRITON_INTERPRET"] = "1"

import checked
import jaxtyping

# On a GPU torch rounds a convolution's float32 to 11 bits unless it is told not to.
torch.backends.cudnn.allow_tf32 = False

jaxtyping.jaxtyped = checked.jaxtyped  # what the import hook of pyproject.toml puts on asap

import asap  # first: it makes torchvision importable
import asap.records.schema
import hypothesis
import pytest
from matplotlib.figure import Figure

hypothesis.settings.register_profile(
    "asap",
    deadline=None,  # the first call of a torch operator takes long
    derandomize=bool(os.environ.get("CI")),
    database=None,
)
hypothesis.settings.load_profile("asap")


def pytest_collection_finish() -> None:
    """From here on garbage is collected, but not looked for in what is imported: it stays."""
    gc.freeze()
    gc.enable()


# Modules whose tests do whole runs in this process, from a command line or a spec to files: they
# are neither units nor contracts, and take most of the time.
_NAMES = """
apart arguments bad_input calibrate calibrate_methods common_images compare crop_cache drawn
example figures golden_run imagenet imagenet_targets memory multirun nonfinite open_schema
original overview page parquet preprocessing printed read_again resume show sinks slices sweep
throughput weights
"""
WHOLE_RUNS = {f"test_{name}" for name in _NAMES.split()}


def _repeats(item: pytest.Item) -> bool:
    """Whether another variant asks the same on one thread, in float32, or on the smallest model."""
    if not (isinstance(item, pytest.Function) and hasattr(item, "callspec")):
        return False
    given, file = item.callspec.params, item.path.name
    other_dtype = given.get("dtype", torch.float32) != torch.float32
    other_model = "-p" in str(given.get("key")) and not str(given["key"]).endswith("-p25")
    return (
        given.get("threads", 1) != 1
        or (file.startswith("test_contract") and other_dtype)
        or (file.startswith("test_methods") and other_model)
    )


def _on_cuda(item: pytest.Item) -> bool:
    """Whether `make test-gpu` runs this test, which is not marked `gpu`.

    The contracts, but for those of batches (that an image's bits do not depend on its batch is
    promised on a CPU), of MACs (a counter of operators does not see kernels), and what is refused
    before a device is asked. Every method in every precision, with fewer kinds of backbones than on
    a CPU. Of the kernels' tests, those that launch them.
    """
    file, given = item.path.stem, {}
    if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        given = item.callspec.params
    if file.startswith("test_kernels"):
        return given.get("kernel_or_plain") != "plain"
    if not file.startswith("test_contract") or file in ON_CPU:
        return False
    if "refuse" in item.name or "needs_a_class_token" in item.name:
        return False
    if "kind" in given and "dtype" in given:  # numbered method by method, precisions in turn
        return item.callspec.indices["kind"] % 3 == 0  # type: ignore[attr-defined]
    return not str(given.get("key")).endswith("-p36")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Variants that repeat another are slow; on a CUDA device more tests are tests of it."""
    device = os.environ.get("ASAP_TEST_DEVICE", "cpu")
    for item in items:
        if _repeats(item):
            item.add_marker(pytest.mark.slow)
        if item.path.stem in WHOLE_RUNS:
            item.add_marker(pytest.mark.whole_run)
        if device != "cpu" and _on_cuda(item):
            item.add_marker(pytest.mark.gpu)
        if item.get_closest_marker("large") and not (
            torch.cuda.is_available() or "ASAP_TEST_LARGE" in os.environ
        ):
            item.add_marker(pytest.mark.skip(reason="takes minutes: make test-kernels"))
        if item.get_closest_marker("gpu") and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="no CUDA device here"))


platform.platform()  # Python starts a program for it, once
ON_CPU = ("test_contract_batch", "test_contract_macs")
EMPTY = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"></svg>'


@pytest.fixture(scope="module", autouse=True)
def _draws_empty_pictures(request: pytest.FixtureRequest) -> Iterator[None]:
    """A figure is made but not painted, which takes longer than a run on a few images, except in
    a module marked `painted`.
    """

    def save(figure: Figure, target: str | Path | TextIO, **_: object) -> None:
        if isinstance(target, str | Path):
            Path(target).write_text(EMPTY, "utf-8")
        else:
            target.write(EMPTY)

    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("painted") is None:
            patch.setattr(Figure, "savefig", save)
        yield


@pytest.fixture(scope="module", autouse=True)
def _checks_first_calls() -> None:
    checked.begin_file()


@pytest.fixture(autouse=True)
def _starts_no_process(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a test marked `process` starts a program: `make check` leaves these out. Git too, which
    every record asks for the package's commit.
    """

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("this test starts a program: mark it with pytest.mark.process")

    if request.node.get_closest_marker("process") is None:
        monkeypatch.setattr(asap.records.schema, "_commit", lambda: None)
        if not torch.cuda.is_available():  # where it is, Triton starts a compiler and an assembler
            monkeypatch.setattr(subprocess.Popen, "__init__", refuse)


@pytest.fixture(autouse=True)
def _log_as_in_a_fresh_process() -> None:
    """Commands set the log up for a terminal: what a test sees must not depend on those before."""
    log = logging.getLogger("asap")
    log.handlers.clear()
    log.setLevel(logging.NOTSET)
    log.propagate = True


@pytest.fixture(params=["kernel", "plain"])
def kernel_or_plain(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which version runs: the kernel (on the CUDA device, else interpreted) or plain torch."""
    from asap.engine.kernels import launch

    if request.param == "plain":
        monkeypatch.setattr(launch, "DEVICES", set())
    elif not launch.INSTALLED:
        pytest.skip("Triton is not installed")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    assert launch.runs(torch.zeros(1, device=device)) == (request.param == "kernel")
    return request.param


@pytest.fixture
def cuda() -> Iterator[Any]:
    """A machine with one CUDA device, which is pretended: see `tests/pretended_cuda`."""
    if torch.cuda.is_available() or sys.platform != "linux":
        pytest.skip("a CUDA device is pretended on Linux, where there is none")
    from pretended_cuda import pretending

    with pretending() as machine:
        yield machine


@pytest.fixture
def set_threads() -> Iterator[Callable[[int], None]]:
    """`set_threads(n)` makes torch compute on n threads until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
