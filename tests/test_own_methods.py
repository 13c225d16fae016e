"""A method of one's own runs in a pass on the device, whatever it reads and however it works."""

import logging
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import own_methods
import pytest
import test_pretended_runs
import torch
from contract import backbone, pictures
from fake_graphs import FakeGraphs
from own_methods import FOUND_OUT, RECORDED, STEP_BY_STEP
from places import OnDevice
from pretended_cuda import PretendedCuda
from schedules import KEY
from test_device_pass import assert_close, batches, compare

import asap
from asap.engine import path
from asap.engine.backend import CPU, backend_of
from asap.engine.device import decisions, forward, stepwise
from asap.engine.device.flow import Planned, Question
from asap.engine.device.stepwise import decide_now
from asap.engine.kernels import launch
from asap.engine.path import path_of
from asap.engine.steps import ask
from asap.experiment import throughput_rows
from asap.experiment.pipeline import run
from asap.methods import Method
from asap.methods.base import Decision, Site
from asap.spec.run_spec import MethodSpec
from examples.norm_top_k import NormTopK

FLOAT = torch.float32
APART = "graphs, decisions step by step"


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "_unrecordable", {})


@pytest.mark.parametrize("name", [*RECORDED, *STEP_BY_STEP, *FOUND_OUT])
def test_decides_as_on_the_cpu(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "DEVICES", set())
    method = (RECORDED | STEP_BY_STEP | FOUND_OUT)[name]
    fake = FakeGraphs(strict=False)
    model, traces = compare(method, KEY, batches()[:2], fake)
    tokens = torch.cat([trace.tokens for trace in traces])
    assert (tokens[:, -1] < tokens[:, 0]).any() and fake.replayed
    if name.startswith(("stops", "remembers")):
        assert len(torch.cat([trace.stop_block for trace in traces]).unique()) > 2
    if name in FOUND_OUT and name != "reads_numbers":  # which a fake recorder does not mind
        assert len(tokens[:, -1].unique()) > 2
    recorded = name in RECORDED or name == "reads_numbers"
    assert model.path == ("graphs" if recorded else APART)


USUAL = (
    "norm_top_k", "similarity", "reads_keys", "stops_tokens", "reads_numbers", "uneven_keys",
    "remembers",
)  # fmt: skip


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if name in USUAL else pytest.mark.large)
        for name in (*RECORDED, *STEP_BY_STEP, *FOUND_OUT)
    ],
)
def test_on_a_pretended_device(
    name: str, cuda: PretendedCuda, caplog: pytest.LogCaptureFixture
) -> None:
    """What decides without the host is recorded and reads nothing; all else is still recorded."""
    caplog.set_level(logging.WARNING)
    method = (RECORDED | STEP_BY_STEP | FOUND_OUT)[name]
    net, device = backbone(KEY, FLOAT), torch.device("cuda")
    model = asap.ReducedViT(deepcopy(net).to(device), method, backend=backend_of(device))
    plain = asap.ReducedViT(net, method)
    for batch in range(4):
        images, ids = pictures(KEY, FLOAT, 16)[batch::4], list(range(batch, 16, 4))
        before, replays = cuda.device.waits.copy(), cuda.api.replays
        found = model(images.to(device), ids, True)
        waits, replays = cuda.device.waits - before, cuda.api.replays - replays
        assert_close((found[0].cpu(), found[1]), plain(images, ids, True))
    assert model.unrecorded is None and cuda.api.captures > 1 and replays
    assert model.path == ("graphs" if name in RECORDED else APART)
    assert len(caplog.records) == (name in FOUND_OUT), caplog.text
    if name in RECORDED:
        once = waits.pop("aten._to_copy.default to the host")  # answers and trace
        waits.pop("the begin of a capture", None)
        stops = 4 * name.startswith("stops")  # blocks in which an image may stop
        assert once == 1 and waits.total() == waits["Event.synchronize"] <= stops, waits


@pytest.mark.gpu
@pytest.mark.parametrize("name", (*USUAL, "stops_keys", "stops_map", "merges", "draws"))
def test_on_a_gpu(name: str) -> None:
    """Nearly all images are decided about as on the CPU, and a batch has the same bits again."""
    method = (RECORDED | STEP_BY_STEP | FOUND_OUT)[name]
    net, device = deepcopy(backbone(KEY, FLOAT)).cpu(), torch.device("cuda")
    model = asap.ReducedViT(deepcopy(net).to(device), method, backend=backend_of(device))
    images, ids = pictures(KEY, FLOAT, 16).cpu(), list(range(16))
    expected = asap.ReducedViT(net, method, backend=CPU())(images, ids, True)[1]
    found = [model(images.to(device), ids, True) for _ in range(4)]
    for _, trace in found:
        same = (trace.assignment == expected.assignment).all(1)
        assert same.sum() >= 14 and torch.equal(trace.tokens[same], expected.tokens[same])
    assert torch.equal(found[-1][0], found[-2][0])
    assert model.unrecorded is None
    assert model.path == ("graphs" if name in RECORDED else APART)


@pytest.mark.parametrize("name", ["remembers", "uneven_keys", "stops_maps"])
def test_what_is_shown_between_recordings_lies_in_fixed_memory(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else every recording would keep queries, keys and values of its own."""
    monkeypatch.setattr(launch, "DEVICES", set())
    asked: list[Question] = []

    def noting(question: Question, *given: Any) -> Planned:
        asked.append(question)
        return decide_now(question, *given)

    monkeypatch.setattr(forward, "decide_now", noting)
    model = asap.ReducedViT(
        backbone(KEY, FLOAT), (STEP_BY_STEP | FOUND_OUT)[name], backend=OnDevice()
    )
    for images in batches()[:2]:
        model(images, range(len(images)))
    (one,) = model._passes.values()
    assert one.memory.qkv is not None and len(asked) > 4
    for heads, maps in (question.seen for question in asked):
        assert heads is not None and heads.q.data_ptr() == one.memory.qkv.data_ptr()
        assert maps is None or maps.data_ptr() == one.memory.maps.data_ptr()


def test_a_state_may_keep_what_it_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of the pass is overwritten by its next parts."""
    monkeypatch.setattr(launch, "DEVICES", set())
    sites: list[Site] = []

    def noting(method: Method, site: Site, *given: Any) -> Any:
        sites.append(site)
        return ask(method, site, *given)

    monkeypatch.setattr(stepwise, "ask", noting)
    model = asap.ReducedViT(backbone(KEY, FLOAT), STEP_BY_STEP["remembers"], backend=OnDevice())
    model(batches()[0], range(len(batches()[0])))
    memory = next(iter(model._passes.values())).memory
    fixed = {x.data_ptr() for one in memory.tokens for x in (one.rows, one.sizes)}
    assert memory.maps is not None and sites[0].attention is not None
    fixed.add(memory.maps.data_ptr())
    for site in sites:
        assert site.attention is not None
        assert not fixed & {x.data_ptr() for x in (site.tokens, site.sizes, site.attention)}


def test_a_path_is_known_before_anything_is_timed(cuda: PretendedCuda) -> None:
    """Since it is part of the key."""
    own = own_methods.ReadsNumbers(), own_methods.Uneven()
    for method, way in (*((one, APART) for one in own), (RECORDED["reads_keys"], "graphs")):
        device = torch.device("cuda")
        model = asap.ReducedViT(deepcopy(backbone(KEY, FLOAT)).to(device), method)
        assert path_of(model) == way
        assert asap.ReducedViT(model.backbone, method, backend=backend_of(device)).path == way


@pytest.mark.large
def test_a_speed_is_kept_under_the_path_that_was_taken(
    tmp_path: Path, cuda: PretendedCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not measured again by the next run, though only a recording tells that path."""
    monkeypatch.chdir(Path(__file__).resolve().parents[1])
    reduce = NormTopK.reduce

    def reads(self: NormTopK, site: Site, chosen: torch.Tensor | None) -> Decision:
        assert float(site.sizes[0, 0]) == 1.0
        return reduce(self, site, chosen)

    monkeypatch.setattr(NormTopK, "reduce", reads)
    monkeypatch.setattr(throughput_rows, "ThroughputPlan", test_pretended_runs.at_once)
    speed, found = test_pretended_runs.SPEED | {"latency_calls": 0, "accuracy": False}, []
    spec = test_pretended_runs.images(tmp_path, {"method": "dense"}, measure=speed)
    spec = replace(spec, rows=(MethodSpec.of("examples.norm_top_k", {"k": 24}, "own"),))
    for _ in range(2):
        monkeypatch.setattr(path, "_tried", set())  # as in another process
        monkeypatch.setattr(decisions, "_unrecordable", {})
        (result,) = run(spec)[1]
        assert result.reason is None and result.throughput is not None
        found.append(result.throughput)
    assert found[0] == found[1] and found[0]["path"] == APART


def test_the_log_says_once_that_a_method_decides_step_by_step(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "DEVICES", set())
    method: Method = own_methods.Uneven()
    for count in (2, 3):
        model = asap.ReducedViT(backbone(KEY, FLOAT), method, backend=OnDevice())
        model(pictures(KEY, FLOAT, count))
    assert caplog.text.count("Uneven decides step by step, all else in a pass is recorded") == 1
    assert model.path == "launches, decisions step by step"
