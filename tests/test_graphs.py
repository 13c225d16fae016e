"""Recorded work, on CPU through a fake that replays the first closure of every key."""

import json
from collections.abc import Callable
from dataclasses import asdict

import pytest
import torch
from contract import backbone, pictures
from fake_graphs import FakeGraphs
from samples import small_run
from schedules import COUNT, FIXED, KEY
from torch import Tensor

import asap
from asap.core.constants import on_device, owned
from asap.engine.backend import CUDA, backend_of
from asap.engine.graphs import Graphs, Unrecordable
from asap.engine.host import to_host
from asap.engine.kernels import launch
from asap.engine.trace import Trace
from asap.errors import RequestError
from asap.measure import throughput
from asap.methods import ATS, Dense, RandomDrop, ToMe
from asap.spec.read import spec_from


def twice(values: Tensor) -> Tensor:
    return values * 2


def test_the_second_call_records_and_later_ones_replay() -> None:
    fake = FakeGraphs()
    graphs = Graphs(fake)
    for number, (recorded, replayed) in enumerate([(0, 0), (1, 1), (1, 2), (1, 3)]):
        given = torch.full((3,), float(number))
        assert torch.equal(graphs.run("key", twice, given), given * 2)
        assert (fake.recorded, fake.replayed) == (recorded, replayed)


def test_keys_do_not_mix() -> None:
    graphs = Graphs(FakeGraphs())
    for _ in range(3):
        for length in (2, 3):
            assert graphs.run(length, twice, torch.ones(length)).tolist() == [2.0] * length


def test_a_number_of_the_host_is_that_of_the_recording() -> None:
    """What the fake is for: a replay does not see what a later call's closure holds."""
    graphs, given = Graphs(FakeGraphs()), torch.ones(1)

    def times(factor: float) -> Callable[[Tensor], Tensor]:
        return lambda values: values * factor

    found = [float(graphs.run("key", times(factor), given)) for factor in (1.0, 2.0, 3.0)]
    assert found == [1.0, 2.0, 2.0]


def test_work_that_reads_is_never_recorded() -> None:
    fake = FakeGraphs()
    graphs = Graphs(fake)
    for number in range(3):
        given = torch.full((2,), float(number))
        assert torch.equal(graphs.run("key", lambda x: to_host(x) + 1, given), given + 1)
    assert fake.recorded == 0 and graphs.failed is None


class Refuses:
    def record(self, work: Callable[[], object]) -> Callable[[], object]:
        raise RuntimeError("operation not permitted\nwhen the stream is capturing")


def test_work_that_cannot_be_recorded_runs_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    graphs = Graphs(Refuses())
    assert [float(graphs.run("key", twice, torch.ones(1))) for _ in range(3)] == [2.0] * 3
    assert graphs.failed == "operation not permitted"
    assert caplog.text.count("operation not permitted") == 1


class EndsBadly:
    """As torch does: after an error inside a recording, to end it is another one."""

    def record(self, work: Callable[[], object]) -> Callable[[], object]:
        try:
            work()
        except Exception:  # any, and the new error hides it: torch's does not name the first one
            raise RuntimeError("the recording could not be ended") from None
        raise AssertionError("no error")


def test_a_part_that_cannot_be_recorded_is_said_to_whom_it_concerns() -> None:
    graphs = Graphs(EndsBadly())

    def work(values: Tensor) -> Tensor:
        if graphs.recording:
            raise Unrecordable("a decision")
        return values * 2

    assert float(graphs.run("key", work, torch.ones(1))) == 2.0
    with pytest.raises(Unrecordable, match="a decision"):
        graphs.run("key", work, torch.ones(1))
    assert graphs.failed is None and not graphs.recording


@pytest.mark.parametrize("decides", [False, True])
def test_a_model_that_was_not_recorded_is_not_timed(
    decides: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its record would say "graphs"."""
    monkeypatch.setattr(CUDA, "decides", lambda *_: decides)
    monkeypatch.setattr(launch, "DEVICES", set())
    model = asap.ReducedViT(backbone(KEY, torch.float32), ToMe(3), backend=CUDA(Refuses()))
    assert model.path == ("graphs" if decides else "recorded torch")
    images = pictures(KEY, torch.float32, COUNT)
    model(images)
    throughput.require_recorded({"ToMe": model})  # the first call runs as it is
    model(images)
    with pytest.raises(RuntimeError, match=r"ToMe .*operation not permitted.*engine.graphs=off"):
        throughput.require_recorded({"ToMe": model})


def test_only_so_many_are_kept_and_the_oldest_goes() -> None:
    fake = FakeGraphs()
    graphs = Graphs(fake, most=2)
    for key in ("a", "b", "a", "c", "a", "b"):  # b is forgotten when c comes
        graphs.run(key, twice, torch.ones(1))
    assert fake.recorded == 1 and [*graphs.entries] == ["a", "b"]


def test_an_input_keeps_its_place_in_memory() -> None:
    graphs, places = Graphs(FakeGraphs()), set[int]()

    def noting(values: Tensor) -> Tensor:
        places.add(values.data_ptr())
        return values + 0

    given = [torch.full((4,), float(number)) for number in range(5)]
    found = [graphs.run("key", noting, one).tolist()[0] for one in given]
    assert found == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert len(places) == 2  # the first call's own, then the recording's


def test_a_first_call_sees_inputs_as_aligned_as_the_recording_does() -> None:
    """Triton compiles another kernel for memory that is not, and must not while it is recorded."""
    places: list[int] = []

    def noting(values: Tensor) -> Tensor:
        places.append(values.data_ptr() % 16)
        return values + 0

    given = torch.arange(9.0)[1:]
    assert given.data_ptr() % 16 == 4
    graphs = Graphs(FakeGraphs())
    for _ in range(3):
        assert torch.equal(graphs.run("key", noting, given), given)
    assert not any(places)


def test_numbers_of_the_host_are_copied_once_and_owned_by_who_uses_them() -> None:
    device = torch.device("cpu")
    first = on_device((3, 1, 2), device)
    with owned() as held:
        again = on_device((3, 1, 2), device)
        assert on_device((3, 1), device).tolist() == [3, 1]
    assert again is first and [one.tolist() for one in held] == [[3, 1, 2], [3, 1]]
    assert on_device((3, 1, 2), device, torch.int32).dtype == torch.int32


def batches(count: int = 4) -> list[tuple[Tensor, list[int]]]:
    """Batches of equal shape with other images, named otherwise."""
    images = pictures(KEY, torch.float32, COUNT * count)
    return [(images[i::count].clone(), [100 * i + k for k in range(COUNT)]) for i in range(count)]


def assert_same(ours: tuple[Tensor, Trace], theirs: tuple[Tensor, Trace]) -> None:
    assert torch.equal(ours[0], theirs[0])
    for name, values in theirs[1].values().items():
        assert torch.equal(ours[1].values()[name].nan_to_num(-1), values.nan_to_num(-1)), name


@pytest.mark.parametrize("name", FIXED)
def test_a_fixed_schedule_is_one_recording(name: str) -> None:
    """Logits and trace of every batch are those of the same pass without recording."""
    net, fake = backbone(KEY, torch.float32), FakeGraphs()
    recorded = asap.ReducedViT(net, FIXED[name], backend=CUDA(fake))
    plain = asap.ReducedViT(net, FIXED[name], backend=CUDA())
    found = []
    for images, ids in batches():
        found.append((recorded(images, ids, True), plain(images, ids, True)))
    assert fake.recorded == 1 and fake.replayed == len(found) - 1
    for ours, theirs in found:  # after the last one: nothing that was returned is overwritten
        assert_same(ours, theirs)


def test_another_batch_size_is_another_recording() -> None:
    net, fake = backbone(KEY, torch.float32), FakeGraphs()
    recorded = asap.ReducedViT(net, ToMe(3), backend=CUDA(fake))
    plain = asap.ReducedViT(net, ToMe(3), backend=CUDA())
    for images, ids in batches(3):
        for size in (COUNT, 1):
            assert torch.equal(recorded(images[:size], ids[:size]), plain(images[:size]))
    assert fake.recorded == 2


def test_a_method_that_looks_is_not_recorded_whole() -> None:
    net, fake = backbone(KEY, torch.float32), FakeGraphs()
    recorded = asap.ReducedViT(net, ATS(blocks=[2]), backend=CUDA(fake))
    plain = asap.ReducedViT(net, ATS(blocks=[2]), backend=CUDA())
    for images, ids in batches(3):
        assert_same(recorded(images, ids, True), plain(images, ids, True))
    assert fake.recorded == 0


def test_a_method_that_draws_late_is_not_recorded() -> None:
    """It reads the images' names, which a replay does not have."""

    class DrawsLate(RandomDrop):
        def draw(self, anatomy, image_ids):
            return None

        def reduce(self, site, chosen):
            assert site.image_ids is not None
            return None

    fake = FakeGraphs()
    model = asap.ReducedViT(backbone(KEY, torch.float32), DrawsLate(), backend=CUDA(fake))
    for images, ids in batches(3):
        model(images, ids)
    assert fake.recorded == 0


def test_autocast_is_not_recorded() -> None:
    fake = FakeGraphs()
    model = asap.ReducedViT(backbone(KEY, torch.float32), Dense(), backend=CUDA(fake))
    for images, _ in batches(3):
        with torch.autocast("cpu", torch.bfloat16):
            model(images)
    assert fake.recorded == 0


def test_a_recording_outlives_inference_mode() -> None:
    net, fake = backbone(KEY, torch.float32), FakeGraphs()
    recorded = asap.ReducedViT(net, ToMe(3), backend=CUDA(fake))
    (first, _), (second, _), (third, _), _ = batches()
    with torch.inference_mode():
        recorded(first), recorded(second)
    assert torch.equal(recorded(third), asap.ReducedViT(net, ToMe(3), backend=CUDA())(third))


def test_a_model_that_is_moved_forgets_its_recordings() -> None:
    """Another weight may lie where one of them was."""
    fake = FakeGraphs()
    model = asap.ReducedViT(backbone(KEY, torch.float32), ToMe(3), backend=CUDA(fake))
    (images, _), *_ = batches()
    for _ in range(3):
        model(images), model(images), model.to("cpu")
    assert fake.recorded == 3


def test_graphs_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    assert backend_of(device).recorder is None
    fake = FakeGraphs()
    monkeypatch.setattr("asap.engine.backend.cuda_graphs", lambda device: fake)
    cuda = torch.device("cuda", 0)
    assert backend_of(cuda).recorder is fake
    assert backend_of(cuda, graphs=False).recorder is None
    net = backbone(KEY, torch.float32)
    assert asap.ReducedViT(net, Dense(), backend=CUDA(fake)).path == "recorded torch"
    assert asap.ReducedViT(net, Dense(), backend=CUDA()).path == "torch"


def test_the_run_says_whether_to_record() -> None:
    assert small_run("results").engine.graphs == "auto"
    off = small_run("results", engine={"graphs": "off"})
    assert off.engine.graphs == "off"
    with pytest.raises(RequestError, match=r"engine\.graphs='on' .* auto, off"):
        small_run("results", engine={"graphs": "on"})
    plain = json.loads(json.dumps(asdict(off), default=str))
    assert spec_from(plain) == off
    del plain["engine"]  # recorded before there was such a group
    assert spec_from(plain).engine.graphs == "auto"
