"""The command of a first session on a GPU: what it compares and what it counts, without a GPU."""

import csv
import json
import os
import sys
import time
from pathlib import Path

import bench_gpu
import pytest
import torch
from bench_gpu import ASAP, PARTS, GivenStops, Where, flips, targets
from bounded_part import run_part
from fake_graphs import FakeGraphs
from test_device_pass import KEY, batches, compare

from asap.engine.kernels import launch


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


def test_rows_that_come_later_are_added_under_the_same_head(tmp_path):
    where = Where(torch.device("cpu"), True, tmp_path)
    where.add("decisions", [{"method": "a", "flips": 1}])
    where.add("decisions", [{"flips": 2, "method": "b"}])
    text = (tmp_path / "decisions.csv").read_text("utf-8")
    found = list(csv.DictReader(text.splitlines()))
    assert found == [{"method": "a", "flips": "1"}, {"method": "b", "flips": "2"}]


def test_a_method_that_fails_is_left_out_with_its_reason(capsys):
    assert bench_gpu.guarded("works", lambda: 3) == 3
    assert bench_gpu.guarded("breaks", lambda: [][1]) is None
    assert "left out: breaks" in (said := capsys.readouterr().out) and "IndexError" in said


def test_all_parts_take_13_minutes_at_most_and_what_is_worth_most_comes_first():
    assert sum(sum(part.values()) for part in PARTS.values()) <= 13 * 60
    assert [*PARTS] == ["speed", "decisions", "kernels", "questions", "tests"]
    assert next(iter(PARTS["speed"])) == "deit_base"


@pytest.mark.parametrize(("seconds", "given"), [(None, [80, 120, 160]), (210.0, [80, 120, 10])])
def test_parts_share_the_time_and_the_summary_says_how_each_ended(
    tmp_path, monkeypatch, seconds, given
):
    limits = []

    def ends(words, limit, log):
        limits.append(limit)
        clock[0] += limit
        return "done, 1 s"

    clock = [0.0]
    monkeypatch.setattr(bench_gpu, "run_part", ends)
    monkeypatch.setattr(bench_gpu.time, "monotonic", lambda: clock[0])
    asked = ["--dry", "--out", str(tmp_path), "--parts", "tests", "kernels", "questions"]
    (tmp_path / "summary.json").write_text('{"parts": {"tests": "old", "decisions": "done, 9 s"}}')
    assert bench_gpu.main(asked if seconds is None else [*asked, "--seconds", str(seconds)]) == 0
    assert limits == given
    told = json.loads((tmp_path / "summary.json").read_text())["parts"]
    assert list(told) == ["decisions", "kernels", "questions", "tests"]
    assert told["tests"] == "done, 1 s" and told["decisions"] == "done, 9 s"


HANGS = """
import subprocess, sys, time
print("began", flush=True)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.process
def test_a_part_that_hangs_ends_with_all_that_it_started_and_leaves_what_it_said(tmp_path):
    log = tmp_path / "log.txt"
    assert run_part([sys.executable, "-c", "print('hello')"], 30, log).startswith("done, ")
    assert run_part([sys.executable, "-c", "raise SystemExit(3)"], 30, log).startswith(
        "exit code 3"
    )
    assert run_part([sys.executable, "-c", HANGS], 3, log).startswith("stopped after 3 s")
    said = log.read_text("utf-8").split()
    assert said[:2] == ["hello", "began"]
    state = Path(f"/proc/{said[2]}/status")
    for _ in range(100):
        if not state.exists() or "zombie" in state.read_text("utf-8"):
            return
        time.sleep(0.05)
    pytest.fail("what the part started still runs")


@pytest.mark.process
def test_a_run_of_tests_that_is_cut_off_has_said_what_failed(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import os\ndef test_a():\n    assert 1 == 2\ndef test_b():\n    os._exit(7)\n",
        "utf-8",
    )
    log = tmp_path / "log.txt"
    command = [sys.executable, "-m", "pytest", "-v", "-p", "failures_at_once", "-n", "0"]
    command += ["-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)]
    scripts = str(Path(bench_gpu.__file__).parent)
    paths = os.pathsep.join([scripts, os.environ.get("PYTHONPATH", "")])
    words = ["env", f"PYTHONPATH={paths}", "PYTHONUNBUFFERED=1", *command]
    assert run_part(words, 100, log).startswith("exit code 7")
    assert "assert 1 == 2" in log.read_text("utf-8")
