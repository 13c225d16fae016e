"""Forward passes on the pretended device: what a GPU would refuse or wait for, method by method."""

from collections import Counter
from copy import deepcopy
from typing import Any

import pytest
import torch
from contract import IDS, METHODS, accepted, backbone, method, pictures
from pretended_cuda import PretendedCuda, Refused, pretending
from torch import Tensor

import asap
from asap.core.constants import on_device
from asap.engine.backend import backend_of
from asap.engine.graphs import CUDAGraphs, Graphs
from asap.engine.kernels import norm
from asap.engine.trace import Trace

COUNT = 4
BATCHES = 3  # as it is, recorded, replayed
FLOAT = torch.float32
CLASS = "plain-p25"  # a class token
KEYS = ("distilled-p25", "lvvit-p36", "average-p36", "clip-p25", "registers-p25", "qk_norm-p25")
OF_MANY = ("dense", "tome_3", "zero_tprune", "ats", "pooling", "plugin_keys")  # on each backbone
STEP_BY_STEP = ("prunesid", "pca_anchor", "plugin")  # a decomposition; this plug-in has that anchor


Found = tuple[Tensor, Trace]


def on_cuda(
    name: str, key: str, dtype: torch.dtype, machine: PretendedCuda, **how: bool
) -> tuple[asap.ReducedViT, Found]:
    """The last of some batches. Between two of them nothing but answers and trace is read."""
    device = torch.device("cuda")
    there = deepcopy(backbone(key, dtype)).to(device)
    images = pictures(key, dtype, COUNT).to(device)
    model = asap.ReducedViT(
        there, method(name, key, dtype, COUNT), backend=backend_of(device, **how)
    )
    waits, copied, found = Counter(), Counter(), None
    with torch.inference_mode():
        for batch in range(BATCHES):
            waits, copied = machine.device.waits.copy(), machine.device.copied.copy()
            images[:, :, :2] = batch - BATCHES + 1  # the last one is the one that is expected
            found = model(images, IDS[:COUNT], return_trace=True)
        waits, copied = machine.device.waits - waits, machine.device.copied - copied
    assert model.unrecorded is None
    if model.path in ("graphs", "launches", "strict graphs"):
        once = "aten._to_copy.default to the host"
        allowed = {"Event.synchronize", "the begin of a capture"}
        assert waits.pop(once) == 1 and waits.keys() <= allowed, waits
        assert copied.total() <= 1, copied  # what is drawn for the images
    assert found is not None
    return model, (found[0].cpu(), found[1])


def on_cpu(name: str, key: str, dtype: torch.dtype) -> Found:
    images = pictures(key, dtype, COUNT).clone()
    images[:, :, :2] = 0
    model = asap.ReducedViT(backbone(key, dtype), method(name, key, dtype, COUNT))
    return model(images, IDS[:COUNT], return_trace=True)


def assert_agree(ours: Found, theirs: Found) -> None:
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-4, atol=1e-4)
    for name, values in theirs[1].values().items():
        found = ours[1].values()[name]
        torch.testing.assert_close(found, values, rtol=1e-3, atol=1e-4, equal_nan=True)


EVERY = [(name, CLASS) for name in METHODS]
MANY = [(name, key) for name in OF_MANY for key in KEYS]
MANY.remove(("plugin_keys", "average-p36"))  # its plug-in needs a class token
USUAL = {
    *((name, CLASS) for name in ("ppt_both", "zero_tprune", "prunesid", "random_anchor")),
    *(("tome_3", key) for key in ("lvvit-p36", "average-p36", "clip-p25")),
    *(("ats", key) for key in ("distilled-p25", "qk_norm-p25")),
    ("pooling", "registers-p25"),
    ("dynamicvit", CLASS),
}


def cases(of: list[tuple[str, str]], usual: set[tuple[str, str]]) -> list:
    return [pytest.param(*case, marks=[] if case in usual else pytest.mark.slow) for case in of]


@pytest.mark.parametrize(("name", "key"), cases([*EVERY, *MANY], USUAL))
def test_every_method_runs_in_graphs(name: str, key: str, cuda: PretendedCuda) -> None:
    """In float32, with the numbers of the CPU."""
    key = accepted(name, key)
    model, found = on_cuda(name, key, FLOAT, cuda)
    apart = ", decisions step by step" * (name in STEP_BY_STEP)
    assert model.path == f"graphs{apart}" and cuda.api.captures > 1
    assert_agree(found, on_cpu(name, key, FLOAT))


@pytest.mark.parametrize("how", [{"graphs": False}, {"strict": True}, {"eager": True}], ids=str)
@pytest.mark.parametrize(
    ("name", "key"), cases([(name, CLASS) for name in OF_MANY], {("tome_3", CLASS)})
)
def test_and_in_other_ways(name: str, key: str, how: dict, cuda: PretendedCuda) -> None:
    key = accepted(name, key)
    _, found = on_cuda(name, key, FLOAT, cuda, **how)
    assert_agree(found, on_cpu(name, key, FLOAT))


# A device refuses the same things in both.
HALVES = [torch.float16, pytest.param(torch.bfloat16, marks=pytest.mark.large)]


@pytest.mark.parametrize("dtype", HALVES, ids=str)
@pytest.mark.parametrize(("name", "key"), cases(EVERY, {("pooling", CLASS)}))
def test_and_in_half_precision(
    name: str, key: str, dtype: torch.dtype, cuda: PretendedCuda
) -> None:
    """Rounding differs from the CPU's: the answers are near, and what is refused is the same."""
    key = accepted(name, key)
    _, (logits, trace) = on_cuda(name, key, dtype, cuda)
    expected, on_host = on_cpu(name, key, dtype)
    assert logits.dtype == dtype and torch.isfinite(logits).all()
    assert trace.tokens.shape == on_host.tokens.shape
    if name == "dense":
        torch.testing.assert_close(logits.float(), expected.float(), rtol=0.1, atol=0.1)


# ---- what the tests above rest on


def test_numbers_are_on_one_device(cuda: PretendedCuda) -> None:
    here, there = torch.ones(2, 2), torch.ones(2, 2, device="cuda")
    assert there.is_cuda and there.device == torch.device("cuda", 0)
    for work in (
        lambda: here + there,
        lambda: there @ here,
        lambda: torch.cat([here, there]),
        lambda: here[torch.zeros(1, dtype=torch.long, device="cuda")],
        lambda: here.add_(there),
        lambda: there.index_select(0, torch.zeros(1, dtype=torch.long)),
        lambda: there.int() @ there.int(),
    ):
        with pytest.raises(Refused):
            work()
    with pytest.raises(TypeError, match="numpy"):
        there.numpy()
    assert (there + torch.tensor(1.0)).cpu().equal(here + 1)
    there[0] = 5
    there[1, 1] = 7
    assert there.tolist() == [[5, 5], [1, 7]]


def test_waits_are_counted(cuda: PretendedCuda) -> None:
    x = torch.arange(4, device="cuda")
    x[x > 1] = 0  # a fill by a mask
    assert not cuda.device.waits
    x.sum().item(), bool(x[0] == 0), x.nonzero(), x[x > 1], x.tolist(), torch.cuda.synchronize()
    x.repeat_interleave(torch.tensor([1, 1, 1, 1], device="cuda"))
    assert cuda.device.waits.total() == 7
    assert not cuda.device.copied.pop("aten._to_copy.default") - 1 and not cuda.device.copied
    x[torch.tensor([0])], torch.tensor([1, 2], device="cuda"), x[0].fill_(torch.tensor(1))
    assert cuda.device.copied.total() == 2


@pytest.mark.parametrize(
    "work",
    [
        lambda x: x.sum().item(),
        lambda x: x[x > 0],
        lambda x: x[torch.tensor([0])],
        lambda x: x.add(torch.tensor([1.0], device="cuda")),
        lambda x: x.cpu(),
        lambda x: x.copy_(torch.ones(2)),
        lambda x: x.uniform_(),
        lambda x: x[0].copy_(torch.tensor(1.0)),
        lambda x: x.__setitem__(0, 1.0),  # a copy of one number, which torch does not fill
        lambda x: torch.cuda.synchronize(),
    ],
)
def test_a_capture_takes_nothing_from_the_host(work: Any, cuda: PretendedCuda) -> None:
    graphs, x = Graphs(CUDAGraphs(torch.device("cuda"))), torch.ones(2, device="cuda")
    for _ in range(3):
        graphs.run("key", work, x)
    assert graphs.failed and cuda.api.captures == 1  # of the room for recordings


def test_a_graph_repeats_its_operators_on_the_same_memory(cuda: PretendedCuda) -> None:
    recorder, total = CUDAGraphs(torch.device("cuda")), torch.zeros(2, device="cuda")
    numbers = [1.0]

    def work() -> Tensor:
        total.add_(numbers[0])
        return total * 2

    replay = recorder.record(work)
    assert total.tolist() == [0, 0]  # a capture runs nothing
    numbers[0] = 50.0
    found = replay()
    assert total.tolist() == [1, 1] and found.tolist() == [2, 2]
    again = replay()
    assert again is found and found.tolist() == [4, 4]


def test_a_graph_does_not_keep_what_it_reads(cuda: PretendedCuda) -> None:
    held = [torch.ones(2, device="cuda")]
    replay = CUDAGraphs(torch.device("cuda")).record(lambda: held[0] * 2)
    assert replay().tolist() == [2, 2]
    held.clear()
    with pytest.raises(RuntimeError, match="freed"):
        replay()


def test_constants_live_as_long_as_their_graph(
    cuda: PretendedCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("cuda")
    on_device((1, 2), device)
    replay = CUDAGraphs(device).record(lambda: on_device((1, 2), device) * 3)
    monkeypatch.setattr("asap.core.constants.MOST", 0)
    on_device((3,), device)
    assert replay().tolist() == [3, 6]


def test_numbers_sent_ahead_are_there_after_a_wait(cuda: PretendedCuda) -> None:
    held = torch.empty(2, dtype=torch.int64, pin_memory=True)
    held.copy_(torch.tensor([4, 5], device="cuda"), non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    assert held.tolist() != [4, 5]
    event.synchronize()
    assert held.tolist() == [4, 5]


def test_what_a_kernel_is_launched_with(cuda: PretendedCuda) -> None:
    rows, weight = torch.randn(6, 8, device="cuda"), torch.ones(8, device="cuda")
    hidden, out = torch.empty_like(rows), torch.empty_like(rows)
    norm.add_norm(rows, None, weight, weight, 1e-5, out_rows=out, out_hidden=hidden)
    assert cuda.launches.count == 1
    torch.testing.assert_close(hidden.cpu(), torch.nn.functional.layer_norm(rows.cpu(), (8,)) + 1)
    with pytest.raises(Refused, match="on the CPU"):
        norm.add_norm(rows, None, torch.ones(8), weight, 1e-5, out_rows=out, out_hidden=hidden)
    apart = torch.randn(6, 10, device="cuda")[:, :8]
    with pytest.raises(Refused, match="strides"):
        norm.add_norm(apart, None, weight, weight, 1e-5, out_rows=out, out_hidden=hidden)


def test_memory_that_runs_out_in_a_capture_is_no_failed_recording(cuda: PretendedCuda) -> None:
    """The caller has to know, and takes a smaller batch."""
    graphs, x = Graphs(CUDAGraphs(torch.device("cuda"))), torch.ones(2, device="cuda")

    def work(x: Tensor) -> Tensor:
        cuda.device.room = room if torch.cuda.is_current_stream_capturing() else None
        try:
            return x * 2
        finally:
            cuda.device.room = None

    room = 0
    graphs.run("key", work, x)
    with pytest.raises(torch.OutOfMemoryError):
        graphs.run("key", work, x)
    room = None
    assert graphs.run("key", work, x).tolist() == [2, 2]
    assert graphs.failed is None and cuda.api.replays == 1


def test_what_is_kept_of_other_batches_goes_when_memory_runs_out(cuda: PretendedCuda) -> None:
    """Also where a new batch finds no room for what it would keep itself."""
    net, images = deepcopy(backbone(CLASS, FLOAT)).to("cuda"), pictures(CLASS, FLOAT, COUNT).cuda()
    model = asap.ReducedViT(net, method("tome_3", CLASS, FLOAT, COUNT))
    for room in (lambda: cuda.device.largest, lambda: 0):
        cuda.device.room, cuda.device.largest = None, 0
        model(images[:1])
        assert len(model._passes) == 1
        cuda.device.room = room()
        with pytest.raises(torch.OutOfMemoryError):
            model(images)
        assert not model._passes


def test_memory_that_nobody_wrote_shows(cuda: PretendedCuda) -> None:
    assert torch.empty(2, device="cuda").isnan().all()


def test_the_device_is_gone_afterwards() -> None:
    with pretending():
        x = torch.ones(2, device="cuda")
    assert not torch.cuda.is_available()
    with pytest.raises(RuntimeError, match="after its test"):
        x + 1
