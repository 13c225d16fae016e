"""The command of a first session on a GPU: what it compares and what it counts, without a GPU."""

import sys
from pathlib import Path

import pytest
import torch
from fake_graphs import FakeGraphs
from test_device_pass import KEY, batches, compare

from asap.engine.kernels import launch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import bench_gpu
from bench_gpu import ASAP, GivenStops, flips, targets


@pytest.mark.parametrize("fake", [None, FakeGraphs(strict=False)])
def test_given_stops_are_taken_and_nothing_else_is_given(fake, monkeypatch: pytest.MonkeyPatch):
    """The pass on the device decides as the executor does, about images that the table stops."""
    monkeypatch.setattr(launch, "DEVICES", set())
    patches = 64
    method = GivenStops(tau=1e9, first=2, binning="rank", clusters=patches, background=40)
    ours, traces = compare(method, KEY, batches(), fake)
    assert ours.path == ("launches" if fake is None else "graphs")
    for trace in traces:
        assert trace.stop_block.tolist() == [2 + i % 3 for i in range(len(trace.stop_block))]
        assert set(trace.tokens[:, -1].tolist()) == {patches + 1 - 40 + 1}
        assert trace.sink.unique().numel() > 1 and int(trace.sink.min()) >= 0


def test_flips_are_counted_and_those_within_rounding_told_apart():
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    theirs = {
        "stop_block": torch.tensor([3, 3, 4, 0]),
        "sink": torch.tensor([5, 6, 7, -1]),
        "assignment": torch.tensor([[1, 2], [1, 1], [1, 2], [1, 2]]),
        "margin_sink": torch.tensor([0.1, 1e-7, 0.2, float("nan")]),
    }
    ours = {name: values.clone() for name, values in theirs.items()}
    ours["sink"][1], ours["assignment"][1, 1] = 5, 2  # within rounding
    ours["stop_block"][2], ours["assignment"][2, 0] = 5, 2  # not
    found = flips((torch.tensor([[0.0, 1.0]]).expand(4, 2), ours), (logits, theirs))
    assert (found["other_stop_block"], found["other_sink"], found["other_tokens"]) == (1, 1, 2)
    assert (found["within_rounding"], found["other_and_clear"]) == (1, "2")
    assert found["other_class"] == 3


def test_a_target_without_a_measurement_is_neither_met_nor_missed():
    row = {"backbone": "deit_base", "precision": "fp16", "batch": "256", "model": ASAP}
    rows = [{**row, "over_best_over_share": "1.20", "over_fused": "0.58"}]
    found = {(t["backbone"], t["batch"], t["what"]): t for t in targets(rows)}
    assert found["deit_base", 256, "over_best_over_share"]["met"] is False
    assert found["deit_base", 256, "over_fused"]["met"] is True
    assert found["deit_tiny", 32, "over_fused"]["met"] is None
    assert len(found) == 8


def test_without_a_gpu_the_rehearsal_is_named(capsys, monkeypatch):
    monkeypatch.setattr(bench_gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        bench_gpu.main([])
    assert stopped.value.code == 2 and "--dry" in capsys.readouterr().err
