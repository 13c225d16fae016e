"""Whole runs on the pretended device, task by task: everything that a command does with a GPU."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import test_head_run
import test_video_run
import torch
from made_llava import made_llava
from pretended_cuda import PretendedCuda
from samples import small_run
from test_questions_run import ROWS as QUESTION_ROWS
from test_questions_run import spec_of

from asap.backbones.video_head import load_head
from asap.data import open as data_sets
from asap.experiment import throughput_rows
from asap.experiment.head import with_head
from asap.experiment.pipeline import run
from asap.measure.in_memory import InMemory
from asap.measure.timing import ThroughputPlan
from asap.report.result import Result
from asap.spec.run_spec import DataSpec, HeadSpec, MeasureSpec, RunSpec

pytestmark = pytest.mark.whole_run
DENSE = {"method": "dense"}
TOME = {"method": "tome", "with": {"r": 4}}
ASAP = {"method": "asap", "with": {"tau": 2.0}}
SPEED: dict[str, Any] = {"throughput": True, "throughput_images": 2, "rounds": 3, "seconds": 1e-6}
SPEED |= {"latency_calls": 2}


def large(*names: str) -> list:
    return [pytest.param(name, marks=pytest.mark.large) for name in names]


def at_once(*given: Any, **about: Any) -> ThroughputPlan:
    """A plan without a warm-up."""
    return ThroughputPlan(*given, **about | {"discard": 0, "warmup_seconds": 0.0})


@pytest.fixture(autouse=True)
def _all_is_recorded(
    cuda: PretendedCuda, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """And timing does not warm up."""
    monkeypatch.setattr(throughput_rows, "ThroughputPlan", at_once)
    yield
    assert "not recorded" not in caplog.text


def images(results: Path, *rows: dict, **more: Any) -> RunSpec:
    return small_run(results, *rows, **{"device": "cuda", "batch_size": 2} | more)


def done(spec: RunSpec, *columns: str) -> list[Result]:
    """The results, all of them there, with the costs and answers of a run on the CPU."""
    results = run(spec)[1]
    assert [result.reason for result in results] == [None] * len(spec.rows)
    measure = replace(spec.measure, throughput=False, also={})
    plain = run(replace(spec, device="cpu", measure=measure))[1]
    for ours, theirs in zip(results, plain, strict=True):
        assert ours.gmacs == pytest.approx(theirs.gmacs, rel=1e-6)
        for column in columns:
            assert list(ours.answers()[column]) == list(theirs.answers()[column])
    return results


def timed(results: Sequence[Result]) -> None:
    for result in results:
        fields = result.throughput
        assert fields is not None and fields["clock"] == "cuda events"
        assert fields["device_name"] == "Pretended GPU" and fields.get("peak_memory_mb")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", *large("fp32", "bf16")])
def test_images_with_their_speed_and_pictures(precision: str, tmp_path: Path) -> None:
    measure = SPEED | {"panels": 1, "opponents": ["best", "compiled"]}
    rows = DENSE, TOME, ASAP, {"method": "zero_tprune"}, {"method": "ats"}, {"method": "prunesid"}
    log = {"tensorboard": True}
    results = run(images(tmp_path, *rows, measure=measure, precision=precision, log=log))[1]
    assert [result.reason for result in results] == [None] * len(rows)
    timed(results)


def test_images_with_their_speed(tmp_path: Path) -> None:
    timed(
        run(
            images(
                tmp_path,
                TOME,
                measure=SPEED,
                precision="fp16",
                data={"name": "digits", "images": 2},
            )
        )[1]
    )


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"engine": {"attention": "eager"}}, marks=pytest.mark.slow),
        pytest.param({"engine": {"graphs": "off"}}, marks=pytest.mark.slow),
        pytest.param({"engine": {"strict": True}}, marks=pytest.mark.slow),
        {"calibrate": {"macs_pct": -30.0, "images": 4, "window": 30.0}},
    ],
    ids=str,
)
def test_other_ways_of_running(more: dict, tmp_path: Path) -> None:
    done(images(tmp_path, DENSE, TOME, ASAP, **more))


def test_rows_that_share_their_first_blocks(tmp_path: Path) -> None:
    rows = [{"method": "asap", "with": {"tau": tau}, "label": f"{tau}"} for tau in (2.0, 3.0)]
    done(images(tmp_path, *rows), "top5")


def test_memory_that_runs_out_halves_the_batch(tmp_path: Path, cuda: PretendedCuda) -> None:
    """Of the evaluation and of the timing."""
    run(images(tmp_path / "two", TOME))
    cuda.device.room = cuda.device.largest
    about = {"batch_size": 4, "measure": SPEED | {"throughput_images": 4, "latency_calls": 0}}
    (result,) = run(images(tmp_path / "four", TOME, **about))[1]
    assert result.reason is None and result.throughput is not None
    assert result.throughput["batch_size"] == 2
    assert result.measured["batch_halved"] == 1


def clips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunSpec:
    monkeypatch.setitem(data_sets.DATA_SETS, "fake_video", test_head_run.FakeOptions)
    return RunSpec(
        "video", test_video_run.CLIP, DataSpec("fake_video", None, {"clips": 4}),
        test_video_run.ROWS[1:3], results=tmp_path / "results", device="cuda", batch_size=16,
        head=HeadSpec(heads=4, epochs=1, batch_size=4, lr=3e-3),
    )  # fmt: skip


@pytest.mark.slow
def test_clips_with_their_speed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    timed(done(replace(clips(tmp_path, monkeypatch), measure=MeasureSpec(**SPEED))))


def test_a_head_trained_on_the_device_is_that_of_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, heads = clips(tmp_path, monkeypatch), []
    for device in ("cuda", "cpu"):
        head = with_head(replace(spec, device=device, results=tmp_path / device), InMemory()).head
        assert head is not None and head.file is not None
        heads.append(load_head(Path(head.file))[0].state_dict())
    for name, value in heads[0].items():
        torch.testing.assert_close(value, heads[1][name], rtol=1e-2, atol=1e-3, msg=name)


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_llava(tmp_path_factory.mktemp("llava"))


@pytest.mark.parametrize(
    "rows",
    [QUESTION_ROWS[2:3], *(pytest.param([row], marks=pytest.mark.slow) for row in QUESTION_ROWS)],
    ids=str,
)
def test_questions(rows: list[dict], tmp_path: Path, llava: Path) -> None:
    """Methods and pruners."""
    about = {"data": {"name": "digits_qa", "pictures": 1}, "device": "cuda", "limit": 2}
    done(spec_of(llava, tmp_path, *rows, **about), "text", "visual_rows")


def test_the_time_of_questions(tmp_path: Path, llava: Path) -> None:
    also = {"latency": {"questions": 3, "pictures": 1, "warmup": 1}}
    about = {
        "data": {"name": "digits_qa", "pictures": 1},
        "device": "cuda",
        "measure": {"also": also, "accuracy": False},
    }
    results = run(spec_of(llava, tmp_path, *QUESTION_ROWS[3:5], **about))[1]
    assert [result.reason for result in results] == [None] * 2
    assert all(result.records["latency"]["clock"] == "cuda events" for result in results)
