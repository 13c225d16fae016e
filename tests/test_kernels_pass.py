"""Whole passes on the device with the kernels themselves: interpreted, or on a CUDA device."""

import copy

import pytest
import torch
from contract import backbone, pictures
from fake_graphs import FakeGraphs
from places import OnDevice
from schedules import ADAPTIVE, FIXED, KEY, stopping
from test_device_pass import FLOAT, assert_close
from torch import Tensor

import asap
from asap.core.accelerated import registered
from asap.engine.backend import CPU, backend_of
from asap.engine.kernels.registry import VERSIONS
from asap.engine.trace import Trace
from asap.methods import ATS, Asap, Method

COUNT = 32
# Few samples: how near they are to another patch is not in the trace.
INSIDE: dict[str, Method] = {"ats": ATS(samples=6, blocks=(2, 5))}
METHODS = [*FIXED, *ADAPTIVE, *INSIDE]


@pytest.mark.large
@pytest.mark.parametrize("name", ["tome", "evit", "pooling", "ats"])
def test_a_pass_is_recorded_with_nothing_of_the_host(name: str) -> None:
    method, key = (FIXED | INSIDE).get(name) or Asap(tau=1.5), "plain-p25"
    net, images = backbone(key, FLOAT), pictures(key, FLOAT, 2)
    theirs = asap.ReducedViT(net, method)(images, [1, 2], True)
    ours = asap.ReducedViT(net, method, backend=OnDevice(FakeGraphs()))
    with registered("cpu", VERSIONS):
        for _ in range(2):
            assert_close(ours(images, [1, 2], True), theirs)


def method_of(name: str) -> Method:
    return (FIXED | INSIDE).get(name) or stopping(ADAPTIVE[name], COUNT)


def decided_alike(ours: tuple[Tensor, Trace], theirs: tuple[Tensor, Trace]) -> None:
    """Images whose decisions were not within rounding of another one have the same results."""
    trace = theirs[1]
    clear = torch.ones(len(trace.tokens), dtype=torch.bool)
    for name in ("margin_mass", "margin_sink", "margin_bin"):
        if name in trace.columns:
            clear &= ~(trace.columns[name] < 1e-5)
    assert clear.sum() > len(clear) // 2
    for name in ("tokens", "stop_block", "assignment", "macs_method"):
        assert torch.equal(ours[1].values()[name][clear], trace.values()[name][clear]), name
    torch.testing.assert_close(ours[0].cpu()[clear], theirs[0].cpu()[clear], rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_a_pass_on_the_gpu_decides_as_on_the_cpu(name: str, graphs: bool) -> None:
    """In float32; and the same bits on every run, recorded or not."""
    device, method = torch.device("cuda"), method_of(name)
    net = copy.deepcopy(backbone(KEY, FLOAT)).cpu()
    images, ids = pictures(KEY, FLOAT, COUNT).cpu(), list(range(COUNT))
    theirs = asap.ReducedViT(net, method, backend=CPU())(images, ids, True)
    placed = copy.deepcopy(net).to(device)
    ours = asap.ReducedViT(placed, method, backend=backend_of(device, graphs))
    assert ours.path == ("graphs" if graphs else "launches")
    found = [ours(images.to(device), ids, True) for _ in range(4)]
    for one in found:
        decided_alike(one, theirs)
        assert torch.equal(one[0], found[0][0])
    if graphs:
        assert all(one.graphs.failed is None for one in ours._passes.values())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", METHODS)
def test_half_precision_runs_on_the_gpu(name: str, dtype: torch.dtype) -> None:
    net = copy.deepcopy(backbone(KEY, FLOAT)).to("cuda", dtype)
    ours = asap.ReducedViT(net, method_of(name))
    images, ids = pictures(KEY, FLOAT, COUNT).to("cuda", dtype), list(range(COUNT))
    for _ in range(3):
        logits, trace = ours(images, ids, True)
        assert logits.isfinite().all() and (trace.tokens > 0).all()


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("name", ["dense", "tome", "evit", "pooling", "pruning", "ats"])
def test_a_strict_pass_does_not_depend_on_the_batch(name: str, dtype: torch.dtype) -> None:
    device = torch.device("cuda")
    net = copy.deepcopy(backbone(KEY, FLOAT)).to(device, dtype)
    ours = asap.ReducedViT(net, method_of(name), backend=backend_of(device, strict=True))
    images = pictures(KEY, FLOAT, COUNT).to(device, dtype)
    together, trace = ours(images, list(range(COUNT)), True)
    for some in (slice(0, 1), slice(5, 12), slice(17, COUNT)):
        alone, found = ours(images[some], list(range(COUNT))[some], True)
        assert torch.equal(alone, together[some])
        assert torch.equal(found.assignment, trace.assignment[some])
