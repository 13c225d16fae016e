"""How often the host waits for the device in a forward pass: counted operator by operator.

On a GPU every read by the host stops the pipeline. A fixed schedule must do without; a method that
looks at its images may read once in a block that it watches. The engine runs as it does on CUDA, on
CPU tensors, and on CUDA itself where there is one.
"""

from collections import Counter
from copy import deepcopy
from itertools import pairwise
from typing import Any

import pytest
import torch
from contract import backbone, masses, pictures, threshold
from peers import predictor_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import asap
from asap.engine import host as gateway
from asap.engine.backend import CUDA
from asap.methods import (
    ATS,
    PPT,
    Asap,
    Dense,
    DynamicViT,
    EViT,
    Method,
    RandomDrop,
    ToMe,
    ZeroTPrune,
)

KEY, COUNT = "plain-p64", 6
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
FIXED: dict[str, Method] = {
    "dense": Dense(),
    "tome": ToMe(3),
    "tome_until_nothing_is_left": ToMe(25),
    "evit": EViT(),
    "evit_dropping": EViT(fuse=False),
    "ppt": PPT(7, 7.0 / 64**2),
    "random_drop": RandomDrop(keep=0.5, block=2),
    "zero_tprune": ZeroTPrune(),
    "asap_static": Asap(**STATIC),
    "asap_static_pruning": Asap(pool=False, clusters=40, background=39, **STATIC),
    "asap_static_quiet": Asap(anchor="quiet", distance="self_aligned", **STATIC),
    "asap_static_rollout": Asap(anchor="mass", order="rollout", position="after_block", **STATIC),
    "asap_static_budget": Asap(max_tokens=8, **STATIC),
    "asap_static_plugin": Asap(max_tokens=8, plugin="keys", per_round=2, **STATIC),
}


class Reads(TorchDispatchMode):
    """Counts what makes the host wait: reads through the gateway, and any others by name."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.read, self.others, self.inside = 0, Counter(), False
        self.real = gateway.to_host
        for module in (gateway, asap.engine.regroup, asap.engine.trace):
            patch.setattr(module, "to_host", self.to_host)

    def to_host(self, values: Tensor) -> Tensor:
        self.read, self.inside = self.read + 1, True
        found = self.real(values)
        self.inside = False
        return found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self.inside:
            self._count(func, args, kwargs)
        return func(*args, **kwargs)

    def _count(self, func: Any, args: Any, kwargs: Any) -> None:
        packet = func.overloadpacket
        if packet in (aten.index, aten.index_put, aten.index_put_):
            flags = [i for i in args[1] if isinstance(i, Tensor) and i.dtype == torch.bool]
            if flags:
                self.others["index by flags"] += 1
        elif packet in READS or (
            packet == aten.repeat_interleave and not kwargs.get("output_size")
        ):
            self.others[str(packet)] += 1
        elif packet in (aten._to_copy, aten.copy_):
            source = args[1] if packet == aten.copy_ else args[0]
            to = args[0].device if packet == aten.copy_ else kwargs.get("device")
            if source.is_cuda and to is not None and torch.device(to).type == "cpu":
                self.others["copy to the host"] += 1


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


DEVICES = [
    "cpu",
    pytest.param(
        "cuda",
        marks=[
            pytest.mark.gpu,
            pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
        ],
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", [*FIXED, "dynamicvit"])
def test_a_fixed_schedule_is_never_read(name: str, device: str) -> None:
    width = backbone(KEY, torch.float32).embed_dim
    method = DynamicViT(0.6, predictor_file(width)) if name == "dynamicvit" else FIXED[name]
    reads, others, trace = reads_of(method, device)
    assert sum(reads) == 0 and not others
    assert bool((trace.tokens[:, -1] < trace.tokens[:, 0]).any()) == (name != "dense")


@pytest.mark.parametrize("name", [name for name in FIXED if name.startswith("asap_static")])
def test_a_static_setting_of_asap_is_the_same_without_looking(name: str) -> None:
    """The numbers left that follow from the options are those of the decisions on CPU."""
    method = FIXED[name]
    assert method.extension and method.same_cost
    _, _, trace = reads_of(method, "cpu")
    _, looked = asap.ReducedViT(backbone(KEY, torch.float32), method)(*given(), return_trace=True)
    assert torch.equal(trace.tokens, looked.tokens) and (trace.stop_block == 3).all()
    assert torch.equal(trace.assignment, looked.assignment)
    counts = [int(held.unique().ge(0).sum()) for held in looked.assignment]
    assert counts == (looked.tokens[:, -1] - looked.tokens[:, 0] + 64).tolist()


ADAPTIVE: dict[str, dict] = {
    "pooling": {},
    "pruning": {"pool": False},
    "no_accumulation": {"accumulate": False},
    "rollout": {"order": "rollout"},
    "random_anchor": {"anchor": "random"},
    "budget": {"max_tokens": 8},
    "plugin": {"max_tokens": 8, "plugin": "diffusion", "per_round": 2},
    "quiet": {"anchor": "quiet", "distance": "self_aligned", "clusters": "auto"},
    "late": {"min_block": 3},
}


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ADAPTIVE)
def test_asap_is_read_once_in_a_block_that_it_watches(name: str, device: str) -> None:
    options = ADAPTIVE[name]
    mass = masses(KEY, torch.float32, options.get("order", "walk"), COUNT)
    tau = threshold(mass, options.get("min_block", 1), mass.shape[1] - 1)
    method = Asap(tau=tau, **options)
    reads, others, trace = reads_of(method, device)
    depth, first = len(reads), options.get("min_block", 1) - 1
    assert not others
    assert reads == [int(first <= block < depth - 1) for block in range(depth)]
    assert len(trace.stop_block.unique()) > 1
    _, alone = asap.ReducedViT(backbone(KEY, torch.float32), method)(*given(), return_trace=True)
    assert torch.equal(trace.stop_block, alone.stop_block)
    assert torch.equal(trace.tokens, alone.tokens)


@pytest.mark.parametrize("device", DEVICES)
def test_ats_is_read_once_in_a_block_that_samples(device: str) -> None:
    method = ATS(blocks=[2, 4])
    reads, others, trace = reads_of(method, device)
    assert not others
    assert reads == [int(block in (2, 4)) for block in range(len(reads))]
    assert len(trace.tokens[:, -1].unique()) > 1  # the images have lengths of their own


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
