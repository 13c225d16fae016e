"""Clips: their images, ids and places, and how outputs of frames become an answer of a clip."""

import math

import numpy as np
import pandas as pd
import pytest
import torch
from fake_video import FakeVideo
from torch import nn

from asap.data.base import Sample
from asap.data.loading import loader
from asap.measure.joint_evaluation import Evaluation, _about, halving
from asap.records.tables import ANSWER_COLUMNS, frame_of, table_of
from asap.report.statistics import mean_interval
from asap.tasks.classification import Classification
from asap.tasks.motion import changes, kept_patches
from asap.tasks.video import FrameHead, Video, error_kind


def test_an_image_of_an_example_has_a_view_a_frame_and_an_id_of_its_own() -> None:
    data = FakeVideo(clips=3, views=2, frames=3)
    one, other = data[0], data[1]
    assert one.n_images == 6 and one.image_ids[0] == one.id
    ids = [*one.image_ids, *other.image_ids]
    assert len(set(ids)) == 12 and all(0 <= i < 2**63 for i in ids)
    assert one.places == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    image = Sample(0, 7, "a.jpg", 0, torch.zeros(1, 3, 4, 4))
    assert (image.image_ids, image.places) == ([7], [(0, 0)])
    unread = FakeVideo(broken=((0, "short"),))[0]
    assert (unread.n_images, unread.image_ids, unread.places) == (0, [], [])


def test_the_draws_of_a_batch_are_seeded_by_the_ids_of_its_images() -> None:
    data = FakeVideo(clips=2, frames=2)
    (samples,) = loader(data, [0, 1], 2, 0)
    assert [s.frames for s in samples] == [2, 2]
    seen: list[int] = []
    how = Evaluation(2, 0, torch.device("cpu"), torch.float32, Classification())
    list(halving(lambda images, ids: seen.extend(ids), samples, how))
    assert seen == data[0].image_ids + data[1].image_ids


class MeanHead(nn.Module):
    """A head of a fixed matrix on the mean over frames."""

    def __init__(self, width: int, classes: int = 7) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.matrix = nn.Parameter(torch.randn(width, classes, generator=draw))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features.mean(1) @ self.matrix


def traces_of(assignment: torch.Tensor, stops: list[int], sinks: list[int] | None = None) -> dict:
    found = {"assignment": assignment, "stop_block": torch.tensor(stops)}
    return found if sinks is None else {**found, "sink": torch.tensor(sinks)}


def test_the_probabilities_of_a_clips_views_are_averaged_and_features_rounded() -> None:
    data = FakeVideo(clips=3, views=2, frames=2)
    head = MeanHead(5)
    task = Video(FrameHead(head, torch.float16, (2, 2), "", 0))
    samples = [data[i] for i in range(3)]
    features = torch.randn(12, 5, generator=torch.Generator().manual_seed(3))
    features[4:8] *= 70_000  # too large for fp16: that clip has no finite answer
    traces = traces_of(torch.arange(4).repeat(12, 1) + 1, [0] * 12)
    found = task.answered(samples, features, traces)
    assert (
        [len(row) for row in found["top5"]] == [5, 0, 5] == [len(r) for r in found["top5_logits"]]
    )
    assert task.right(samples, features).tolist()[1] is False
    for clip in (0, 2):
        views = features[4 * clip : 4 * clip + 4].half().float().view(2, 2, 5)
        share = (views.mean(1) @ head.matrix).softmax(-1).mean(0)
        order = share.argsort(descending=True)[:5].tolist()
        assert found["top5"][clip] == order
        assert found["top5_logits"][clip] == pytest.approx(share[order].log().tolist(), abs=1e-5)
        assert task.right(samples, features)[clip] == (order[0] == clip)
    alone = task.answered(samples[2:], features[8:], {k: v[8:] for k, v in traces.items()})
    assert alone["top5_logits"].tolist() == [found["top5_logits"][2]]


def test_what_changes_between_frames_is_measured_within_a_view() -> None:
    whole = torch.arange(6)[None] + 1
    first, second = torch.tensor([[1, 1, 2, 3, -1, 4]]), torch.tensor([[1, 2, 2, 3, 4, -1]])
    views = torch.cat([first, second, second, first])  # two views of two frames
    changed = changes(traces_of(views, [3, 4, 4, 4], [0, 5, -1, 2]), 2, (2, 3), None)
    kept = kept_patches(views)
    assert kept[0].tolist() == [False, False, True, True, False, True]
    assert kept[1].tolist() == [True, False, False, True, True, False]
    # Patch 0 is row 0, column 0 and patch 5 row 1, column 2; the second view lacks a sink.
    assert changed["sink_distance"] == pytest.approx(5**0.5)
    assert changed["stop_changes"] == 0.5 and changed["kept_overlap"] == 1 / 5
    assert math.isnan(changed["frame_difference"])
    dense = changes(traces_of(whole.repeat(2, 1), [0, 0]), 2, (2, 3), torch.tensor([3.0]))
    assert dense["frame_difference"] == 3.0
    assert all(math.isnan(dense[k]) for k in ("sink_distance", "stop_changes", "kept_overlap"))
    single = changes(traces_of(first, [3], [0]), 1, (2, 3), torch.empty(0))
    assert all(math.isnan(value) for value in single.values())


def test_a_record_counts_errors_by_kind_and_decoders_and_clusters_its_intervals() -> None:
    broken = tuple(enumerate(("missing", "undecodable", "undecodable", "no video stream"), 2))
    data = FakeVideo(clips=12, broken=broken)
    task = Video(FrameHead(MeanHead(4), torch.float32, (1, 2), "", 2_000_000))
    samples = [data[i] for i in range(12)]
    read = [s for s in samples if s.error is None]
    outputs = torch.randn(3 * len(read), 4, generator=torch.Generator().manual_seed(1))
    assignment = torch.tensor([[1, -1], [1, 2], [-1, 1]]).repeat(len(read), 1)
    traces = traces_of(assignment, [1, 0, 1] * len(read))
    parts = []
    for some, columns in (
        (read, task.answered(read, outputs, traces)),
        ([s for s in samples if s.error], task.unread([s for s in samples if s.error])),
    ):
        table = table_of({**_about(some), **columns}, (*ANSWER_COLUMNS, *task.columns))
        parts.append(frame_of(table))
    scored = task.score(pd.concat(parts).sort_values("index"), clustered=True)
    clips = scored["clips"]
    assert (scored["n"], scored["n_failed"]) == (8, 4) and scored["object_recall"] is None
    assert clips["failed"] == {"missing": 1, "undecodable": 2, "no video stream": 1}
    assert (clips["decoders"], clips["unverified"], clips["images"]) == ({"pyav": 8}, 0, 3)
    assert clips["gmacs_head"] == 0.002 and "sink_distance" not in clips
    assert clips["kept_overlap"]["mean"] == pytest.approx((1 / 2 + 1 / 2) / 2)
    values = [float(s.extras["frame_difference"].double().mean()) for s in read]
    low, high = mean_interval(np.float32(values), np.array([s.cluster for s in read]))
    spread = clips["frame_difference"]
    assert (spread["lo"], spread["hi"]) == pytest.approx((low, high)) and spread["n"] == 8
    assert error_kind("no such thing at all here: x") == error_kind("x") == "other"
