"""How often the host waits for the device in a forward pass: counted operator by operator.

On a GPU every read by the host stops the pipeline. A fixed schedule must do without; a method that
looks at its images may read once in a block that it watches. Both the executor's own steps and the
pass on the device run as they do on CUDA, on CPU tensors, and on CUDA itself where there is one.
"""

import sys
from collections import Counter
from collections.abc import Callable
from copy import deepcopy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from contract import backbone, pictures
from places import ON_CUDA, OnDevice
from schedules import ADAPTIVE, COUNT, FIXED, KEY, stopping
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import asap
from asap.engine import host as gateway
from asap.engine.backend import CUDA, backend_of
from asap.engine.kernels import kept_walk, launch
from asap.methods import ATS, Asap, Method, ToMe

aten = torch.ops.aten
READS = (  # operators whose result, or its shape, the host needs
    aten._local_scalar_dense,
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.bincount,
    aten.equal,
    aten.is_nonzero,
)
STATIC: dict[str, Any] = {"binning": "rank", "miss": "force", "min_block": 3, "max_block": 3}
STATICS: dict[str, Method] = {
    "pooling": Asap(**STATIC),
    "pruning": Asap(pool=False, clusters=40, background=39, **STATIC),
    "quiet": Asap(anchor="quiet", distance="self_aligned", **STATIC),
    "rollout": Asap(anchor="mass", order="rollout", position="after_block", **STATIC),
    "budget": Asap(max_tokens=8, **STATIC),
    "plugin": Asap(max_tokens=8, plugin="keys", per_round=2, **STATIC),
}
SCHEDULED = FIXED | {f"static_{name}": made for name, made in STATICS.items()}
SCHEDULED["tome_until_nothing_is_left"] = ToMe(25)
DEVICES = ["cpu", ON_CUDA]
KERNEL_FILES = {str(file) for file in Path(launch.__file__).parent.glob("*.py")}
KERNEL_FILES -= {kept_walk.__file__}  # a walk that launches kernels, not one


class Reads(TorchDispatchMode):
    """Counts what makes the host wait: reads through the gateway, and any others by name.

    `ahead`: the bytes of each read of numbers that were sent ahead. What the plain version of a
    kernel does is not counted: it stands for a launch.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.read, self.ahead, self.others, self.inside = 0, list[int](), Counter(), False
        to_host, send, receive = gateway.to_host, gateway.Ahead.send, gateway.Ahead.receive

        def counted(values: Tensor) -> Tensor:
            self.read += 1
            return self._uncounted(to_host, values)

        def received(one: gateway.Ahead) -> list[int]:
            self.ahead.append(one.held.nbytes)
            return self._uncounted(receive, one)

        for module in (gateway, asap.engine.regroup, asap.engine.trace):
            patch.setattr(module, "to_host", counted)
        patch.setattr(gateway.Ahead, "send", lambda *given: self._uncounted(send, *given))
        patch.setattr(gateway.Ahead, "receive", received)

    def _uncounted(self, work: Callable[..., Any], *given: Any) -> Any:
        self.inside = True
        found = work(*given)
        self.inside = False
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.inside:
            self._count(func, args, kwargs)
        return func(*args, **kwargs)

    def _count(self, func: Any, args: Any, kwargs: Any) -> None:
        packet = func.overloadpacket
        found = None
        if packet in (aten.index, aten.index_put, aten.index_put_):
            if any(isinstance(i, Tensor) and i.dtype == torch.bool for i in args[1]):
                found = "index by flags"
        elif packet in READS or (
            packet == aten.repeat_interleave and not kwargs.get("output_size")
        ):
            found = str(packet)
        elif packet in (aten._to_copy, aten.copy_):
            source = args[1] if packet == aten.copy_ else args[0]
            to = args[0].device if packet == aten.copy_ else kwargs.get("device")
            if source.is_cuda and to is not None and torch.device(to).type == "cpu":
                found = "copy to the host"
        if found is not None and not _in_a_plain_version():
            self.others[found] += 1


def _in_a_plain_version() -> bool:
    """Whether code of a kernel's file, which is not launched here, is running."""
    frame = None if launch.DEVICES else sys._getframe()
    while frame is not None and frame.f_code.co_filename not in KERNEL_FILES:
        frame = frame.f_back
    return frame is not None


class Blocks(nn.Module):
    """Stands for a block, and notes how much the host has read before it."""

    def __init__(self, norm: nn.Module, reads: Reads, before: list[int]) -> None:
        super().__init__()
        self.norm, self.reads, self.before = norm, [reads], before

    def forward(self, x: Tensor) -> Tensor:
        self.before.append(self.reads[0].read)
        return self.norm(x)


@torch.no_grad()
def reads_of(method: Method, device: str) -> tuple[list[int], Counter, Any]:
    """Reads by the host in each block, and the trace; reads that are not the gateway's."""
    net = backbone(KEY, torch.float32)
    if device != "cpu":
        net = deepcopy(net).to(device)
    model = asap.ReducedViT(net, method, backend=CUDA())
    images, before = pictures(KEY, torch.float32, COUNT).to(device), []
    with pytest.MonkeyPatch.context() as patch:
        reads = Reads(patch)
        norms = [block.norm1 for block in net.blocks]
        for block, norm in zip(net.blocks, norms, strict=True):
            block.norm1 = Blocks(norm, reads, before)
        try:
            with reads:
                done = model._run(images, *model._given(images, list(range(COUNT))))
                model.adapter.classify(done.batch)
            before.append(reads.read)
        finally:
            for block, norm in zip(net.blocks, norms, strict=True):
                block.norm1 = norm
        trace = model._trace(done.trace, done.batch.source)
    return [b - a for a, b in pairwise(before)], reads.others, trace


@torch.no_grad()
def reads_on_the_device(method: Method, device: str) -> tuple[Reads, Any]:
    """What is read between images and logits by the pass on the device; and its trace."""
    net, images, ids = deepcopy(backbone(KEY, torch.float32)).to(device), *given()
    images = images.to(device)
    backend = OnDevice() if device == "cpu" else backend_of(torch.device(device), graphs=False)
    model = asap.ReducedViT(net, method, backend=backend)
    one, (_, drawn) = model._device_pass(images), model._given(images, ids)
    assert one is not None
    with pytest.MonkeyPatch.context() as patch:
        if device == "cpu":
            patch.setattr(launch, "DEVICES", set())  # plain versions of the kernels
        with Reads(patch) as reads:
            done = one(images, drawn)
    return reads, model._trace(done.trace, done.source)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", SCHEDULED)
def test_a_fixed_schedule_is_never_read(name: str, device: str) -> None:
    reads, others, trace = reads_of(SCHEDULED[name], device)
    assert sum(reads) == 0 and not others
    less = bool((trace.tokens[:, -1] < trace.tokens[:, 0]).any())
    assert less == (name not in ("dense", "overhead"))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", SCHEDULED)
def test_nor_in_the_pass_on_the_device(name: str, device: str) -> None:
    reads, trace = reads_on_the_device(SCHEDULED[name], device)
    assert reads.read == 0 and not reads.ahead and not reads.others
    assert torch.equal(trace.tokens, reads_of(SCHEDULED[name], device)[2].tokens)


@pytest.mark.parametrize("name", STATICS)
def test_a_static_setting_of_asap_is_the_same_without_looking(name: str) -> None:
    """The numbers left that follow from the options are those of the decisions on CPU."""
    method = STATICS[name]
    assert method.extension and method.same_cost
    _, _, trace = reads_of(method, "cpu")
    _, looked = asap.ReducedViT(backbone(KEY, torch.float32), method)(*given(), return_trace=True)
    assert torch.equal(trace.tokens, looked.tokens) and (trace.stop_block == 3).all()
    assert torch.equal(trace.assignment, looked.assignment)
    counts = [int(held.unique().ge(0).sum()) for held in looked.assignment]
    assert counts == (looked.tokens[:, -1] - looked.tokens[:, 0] + 64).tolist()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ADAPTIVE)
def test_asap_is_read_once_in_a_block_that_it_watches(name: str, device: str) -> None:
    method = stopping(ADAPTIVE[name], COUNT)
    reads, others, trace = reads_of(method, device)
    depth, first = len(reads), ADAPTIVE[name].get("min_block", 1) - 1
    assert not others
    assert reads == [int(first <= block < depth - 1) for block in range(depth)]
    assert len(trace.stop_block.unique()) > 1
    _, alone = asap.ReducedViT(backbone(KEY, torch.float32), method)(*given(), return_trace=True)
    assert torch.equal(trace.stop_block, alone.stop_block)
    assert torch.equal(trace.tokens, alone.tokens)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ADAPTIVE)
def test_the_pass_on_the_device_reads_16_bytes_where_an_image_may_stop(
    name: str, device: str
) -> None:
    """In every block that ASAP watches, as long as it watches an image."""
    reads, trace = reads_on_the_device(stopping(ADAPTIVE[name], COUNT), device)
    blocks, first = trace.tokens.shape[1] - 1, ADAPTIVE[name].get("min_block", 1)
    never = bool((trace.stop_block == 0).any())
    last = blocks - 1 if never else int(trace.stop_block.max())
    assert reads.ahead == [16] * (last + 1 - first)
    assert reads.read == 0 and not reads.others
    assert len(trace.stop_block.unique()) > 1


@pytest.mark.parametrize("device", DEVICES)
def test_ats_is_read_once_in_a_block_that_samples(device: str) -> None:
    method = ATS(blocks=[2, 4])
    reads, others, trace = reads_of(method, device)
    assert not others
    assert reads == [int(block in (2, 4)) for block in range(len(reads))]
    assert len(trace.tokens[:, -1].unique()) > 1  # the images have lengths of their own
    on_device, again = reads_on_the_device(method, device)
    assert on_device.ahead == [16, 16] and on_device.read == 0 and not on_device.others
    assert torch.equal(again.tokens, trace.tokens)


def given() -> tuple[Tensor, list[int]]:
    return pictures(KEY, torch.float32, COUNT), list(range(COUNT))


@torch.no_grad()
def test_the_trace_comes_to_the_host_at_once() -> None:
    model = asap.ReducedViT(backbone(KEY, torch.float32), Asap(tau=1e9), backend=CUDA())
    with pytest.MonkeyPatch.context() as patch:
        reads = Reads(patch)
        done = model._run(*given()[:1], *model._given(*given()))
        watched = reads.read
        model._trace(done.trace, done.batch.source)
    assert reads.read == watched + 1


def test_a_read_is_seen() -> None:
    """What the tests above rest on."""
    with pytest.MonkeyPatch.context() as patch, Reads(patch) as reads:
        flags = torch.tensor([True, False])
        flags.nonzero(), flags.any().item(), torch.arange(2)[flags], bool(flags.all())
        torch.arange(2).repeat_interleave(torch.tensor([1, 2]))
    assert sum(reads.others.values()) == 5
