"""Whole runs on clips in memory: against plain torch, one pass or many, identities, refusals."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from fake_video import FakeVideo
from matplotlib.text import Text
from outcomes import outcome
from reference.vit import as_float64, forward
from test_ranks import in_ranks
from test_video_head import attention_reference

from asap.backbones.video_head import build_head, head_macs, save_head
from asap.backbones.weights.load import load
from asap.calibrate.context import CalibrationContext
from asap.cli.compare import summary
from asap.data import open as data_sets
from asap.data.options import DataOptions, Opening
from asap.errors import RequestError
from asap.experiment.pipeline import run
from asap.measure.session import Session
from asap.records.tables import matrix
from asap.report.disagreement import compare
from asap.report.figures.charts import charts
from asap.report.result import Result
from asap.spec.run_spec import (
    BackboneSpec,
    DataSpec,
    HeadSpec,
    MeasureSpec,
    MethodSpec,
    RunSpec,
)

pytestmark = pytest.mark.whole_run
ARGS = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 3, "num_heads": 2}
CLIP = BackboneSpec("vit_base_patch16_clip_quickgelu_224", "random", model_args=ARGS)
ROWS = (
    MethodSpec.of("dense", {}, "Dense"),
    MethodSpec.of("tome", {"r": 3}, "ToMe"),
    MethodSpec.of("asap", {"tau": 1.02, "clusters": 2, "miss": "force"}, "ASAP"),
    MethodSpec.of("asap", {"tau": 1.02, "clusters": 3, "alpha": 0.3}, "ASAP 3"),
    MethodSpec.of("random_drop", {"keep": 0.5, "block": 1}, "Random"),
)


@dataclass(frozen=True)
class FakeOptions(DataOptions):
    """The options of `FakeVideo`, in the place of a data set of files."""

    clips: int = 6
    views: int = 2
    broken: int | None = None

    def open(self, opening: Opening) -> FakeVideo:
        broken = () if self.broken is None else ((self.broken, "short"),)
        return FakeVideo(self.clips, 4, self.views, 32, broken)


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(data_sets.DATA_SETS, "fake_video", FakeOptions)


Make = Callable[..., RunSpec]


@pytest.fixture
def spec(tmp_path: Path) -> Make:
    """A run with a head on the fake clips; the head is made for its backbone and views."""

    def made(reads: str = "class", data: dict | None = None, **about: Any) -> RunSpec:
        found = RunSpec(
            "video", CLIP, DataSpec("fake_video", None, data or {}), ROWS,
            results=tmp_path / "results", device="cpu", batch_size=19,
            head=HeadSpec(reads=reads, heads=4, features="fp16"),
        )  # fmt: skip
        session = Session(found)
        wanted = session.head_config
        assert wanted is not None and found.head is not None
        torch.manual_seed(5)
        head = build_head(wanted)
        with torch.no_grad():
            for parameter in head.parameters():
                parameter += 0.3 * torch.randn_like(parameter)
        file = tmp_path / f"{reads}-{wanted.frames}.safetensors"
        save_head(file, head, wanted)
        return replace(found, head=replace(found.head, file=str(file)), **about)

    return made


def clips_of(result: Result) -> Any:
    """What only a record of clips has."""
    return result.measured["clips"]


def test_plain_torch_gives_the_same_answers_from_the_frames(spec: Make) -> None:
    """In float64, frame by frame and view by view; features rounded to fp16 as the head's file."""
    asked = spec(data={"broken": 3})
    session, (dense, *_) = run(replace(asked, rows=ROWS[:1]))
    data, head = session.data, session.video_head
    assert head is not None and dense.accuracy is not None
    loaded: Any = load(CLIP.name, "random", None, ARGS, 0, {}, None).model
    model = as_float64(loaded)
    weights = {k: v.double() for k, v in head.module.state_dict().items()}
    answers = dense.answers()
    right = 0
    for i in (0, 1, 2, 4, 5):
        sample = data[i]
        assert sample.inputs is not None
        features = torch.stack([forward(model, frame).features[0] for frame in sample.inputs])
        rounded = features.detach().half().double().view(2, 4, -1)
        shares = [attention_reference(view, weights, heads=4).softmax(0) for view in rounded]
        expected = torch.stack(shares).mean(0).log()
        order = expected.argsort(descending=True)[:5].tolist()
        right += order[0] == sample.label
        row = answers.iloc[i]
        assert list(row["top5"]) == order and row["n"] == 8
        assert list(row["top5_logits"]) == pytest.approx(expected[order].tolist(), abs=2e-3)
    record = dense.accuracy
    assert (record["correct1"], record["n"], record["n_failed"]) == (right, 5, 1)
    assert clips_of(dense)["failed"] == {"short": 1} and record["clustered"]


@pytest.mark.parametrize("reads", ["class", "tokens"])
def test_rows_of_one_pass_are_those_of_separate_runs_whatever_the_batch(
    spec: Make, reads: str, tmp_path: Path
) -> None:
    together = run(spec(reads))[1]
    alone = run(replace(spec(reads), shared_trunk=False, batch_size=3, results=tmp_path / "alone"))[
        1
    ]
    for one, other in zip(together, alone, strict=True):
        assert one.reason is None and one.key == other.key
        pd.testing.assert_frame_equal(one.answers(), other.answers(), check_exact=True)
        pd.testing.assert_frame_equal(one.traces(), other.traces(), check_exact=True)
    traces = together[2].traces()
    assert traces["view"].tolist() == [0, 0, 0, 0, 1, 1, 1, 1] * 6
    assert traces["frame"].tolist() == [0, 1, 2, 3] * 12
    assert traces["example"].tolist() == [i for i in range(6) for _ in range(8)]


def test_a_clips_cost_is_the_sum_of_its_frames_and_the_head_is_apart(spec: Make) -> None:
    asked = spec()
    session, results = run(asked)
    for result in results:
        record, traces = result.measured, result.traces()
        frames = traces["vision.macs_backbone"].sum() + traces["vision.macs_method"].sum()
        assert result.gmacs == pytest.approx(frames / 6 / 1e9) and clips_of(result)["images"] == 8
        assert record["gmacs_no_attention"] < record["gmacs_backbone"]
        assert session.head_config is not None
        assert clips_of(result)["gmacs_head"] == 2 * head_macs(session.head_config) / 1e9
    assert results[1].gmacs < results[0].gmacs


def test_what_changes_between_frames_follows_from_the_traces(spec: Make) -> None:
    """By another way than the task's: from the table of traces, on a grid of 4 x 4 patches."""
    asked = spec()
    never = MethodSpec.of("asap", {"tau": 99.0}, "Never")
    masses = matrix(run(replace(asked, rows=(never,)))[1][0].traces(), "vision.mass")
    tau = float(np.median(masses[:, 0]))  # half of the frames stop in the first block
    some = MethodSpec.of("asap", {"tau": tau, "clusters": 2, "miss": "force"}, "ASAP")
    _, results = run(replace(asked, rows=(ROWS[0], some)))
    asap = results[1]
    answers, traces = asap.answers(), asap.traces()
    for i in range(6):
        own = traces[traces["example"] == i]
        distances, changed = [], []
        for view in (0, 1):
            of_view = own[own["view"] == view]
            sinks, stops = of_view["vision.sink"].tolist(), of_view["vision.stop_block"].tolist()
            changed += [s != t for s, t in pairwise(stops)]
            distances += [
                ((a // 4 - b // 4) ** 2 + (a % 4 - b % 4) ** 2) ** 0.5 for a, b in pairwise(sinks)
            ]
        row = answers.iloc[i]
        assert (own["vision.sink"] >= 0).all()  # every frame stops, one by one
        assert row["sink_distance"] == pytest.approx(sum(distances) / 6)
        assert row["stop_changes"] == pytest.approx(sum(changed) / 6)
    assert answers["stop_changes"].mean() > 0 and answers["sink_distance"].mean() > 0
    assert "sink_distance" in clips_of(asap)
    assert "sink_distance" not in clips_of(results[0])  # dense has no sinks


def test_words_are_of_clips_and_their_frames(spec: Make) -> None:
    _, results = run(replace(spec(), rows=ROWS[:3]))
    said = summary(compare(results[0], results[1]))
    assert "different predictions on" in said and "clips" in said and "images" not in said
    found, _ = charts(results, {})
    told = [chart for chart in found if chart.name in ("stop-blocks", "column-mass")]
    assert len(told) == 2
    for chart in told:
        texts = [text.get_text() for text in chart.draw(chart.data).findobj(Text)]
        assert "frames" in chart.caption and "image" not in chart.caption
        assert any("frames" in text for text in texts) and not any("image" in t for t in texts)


def test_frames_draw_for_themselves(spec: Make) -> None:
    random = run(replace(spec(), rows=ROWS[4:]))[1][0]
    changed = random.answers()["kept_overlap"]
    assert (changed < 1).all() and (changed > 0).any()


def test_the_head_is_part_of_the_identity_and_the_decoder_of_the_record(spec: Make) -> None:
    one, other = spec(), spec("tokens")
    session, results = run(replace(one, rows=ROWS[:1]))
    head = results[0].measured["identity"]["head"]
    assert session.video_head is not None
    assert head == {"reads": "class", "digest": session.video_head.digest}
    assert run(replace(other, rows=ROWS[:1]))[1][0].key != results[0].key
    assert clips_of(results[0])["decoders"] == {"pyav": 6}
    assert results[0].measured["identity"]["backbone"]["weights"] == session.weights_digest


def test_operating_points_are_found_on_clips(spec: Make) -> None:
    """A calibration of ToMe meets its budget on clips as on images, and accuracy is of clips."""
    asked = replace(spec(), rows=(ROWS[0], MethodSpec.of("tome", {}, "ToMe", macs_pct=-20.0)))
    context_data = replace(asked.data, options={"clips": 5})

    session = Session(replace(asked, data=context_data))
    images = CalibrationContext(session, blind=False).images
    assert len(images) == 5 and [len(ids) for ids in images.ids] == [8] * 5
    assert images.images.shape == (5, 8, 3, 32, 32)
    dense = run(replace(asked, data=context_data, rows=ROWS[:1]))[1][0].measured
    assert images.dense_top1 == dense["top1"]
    assert images.dense_macs == pytest.approx(1e9 * dense["gmacs_backbone"])
    method = Session(replace(asked, rows=ROWS[1:2])).methods[0]
    tome = run(replace(asked, data=context_data, rows=ROWS[1:2]))[1][0]
    macs_pct, top1, seen = images.measure(method)
    assert (top1, seen) == (tome.measured["top1"], 5)
    assert macs_pct == pytest.approx(100 * (tome.gmacs / dense["gmacs_backbone"] - 1))


@pytest.mark.process
@pytest.mark.parametrize("size", [2, 3])
def test_any_number_of_processes_leaves_the_same_bytes(
    spec: Make, size: int, tmp_path: Path
) -> None:
    asked = replace(spec(data={"broken": 3}), rows=ROWS[:3], shared_trunk=False)
    run(asked)
    several = replace(asked, results=tmp_path / "several", shard_seconds=0.001)
    assert in_ranks(size, lambda: run(several)) == [0] * size
    alone = outcome(asked.results)
    assert len(alone) == 9 and outcome(several.results) == alone


@pytest.mark.parametrize("measured", [True, False], ids=["accuracy", "throughput"])
def test_clips_without_a_head_have_no_accuracy(spec: Make, measured: bool) -> None:
    measure = MeasureSpec(accuracy=measured, throughput=not measured)
    bare = replace(spec(), head=None, measure=measure)
    if not measured:
        assert Session(bare).data.task == "video"
        return
    with pytest.raises(RequestError, match=r"data=fake_video has clips.*add head=attention"):
        run(bare)


def test_a_head_for_something_else_is_refused(spec: Make) -> None:
    asked = spec()
    assert asked.head is not None
    with pytest.raises(RequestError, match="head is for clips, and data=digits has images"):
        run(replace(asked, data=DataSpec("digits", None, {"images": 2})))
    with pytest.raises(RequestError, match="other features: class and not tokens"):
        run(replace(asked, head=replace(asked.head, reads="tokens")))
    untrained = replace(asked, head=replace(asked.head, file=None), rows=ROWS[:1])
    session = Session(untrained)
    with pytest.raises(RequestError, match=r"head\.file=null: .*without a trained head"):
        session.task.right([session.data[0]], torch.zeros(8, 32))


def test_frames_are_timed_and_clips_come_from_the_files(spec: Make) -> None:
    measure = MeasureSpec(
        accuracy=False,
        throughput=True,
        rounds=2,
        seconds=0.01,
        throughput_images=32,
        short=True,
        throughput_batch_size=8,
    )
    asked = replace(spec(), measure=measure, rows=ROWS[:2])
    results = run(asked)[1]
    ahead = run(replace(asked, workers=1))[1]  # reading ahead makes other speeds
    assert len({result.key for result in (*results, *ahead)}) == 4
    assert ahead[0].throughput is not None
    assert ahead[0].throughput["identity"]["conditions"]["decoding"]["workers"] == 1
    for result in results:
        timed = result.throughput
        assert timed is not None and timed["batch_size"] == 8
        clips = timed.get("clips")
        assert clips is not None and (clips["images"], clips["decoded"]) == (8, 4)
        assert (clips["per_s_with_decoding"] or 0) > 0
