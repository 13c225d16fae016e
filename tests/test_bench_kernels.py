"""The script that times kernels, rehearsed on CPU: what it counts, and that it leaves none out."""

import csv

import bench_kernels
import pytest
import torch
from bench_kernels import CASES, Shape

SMALL = Shape(2, 17, 3, 32, torch.float32, "cpu")


@pytest.mark.slow
def test_a_rehearsal_times_every_case_and_writes_the_table(tmp_path, capsys):
    assert bench_kernels.main(["--dry", "--models", "tiny", "--out", str(tmp_path)]) == 0
    lines = list(csv.DictReader((tmp_path / "kernels.csv").read_text("utf-8").splitlines()))
    assert [line["kernel"] for line in lines] == [c.__name__ for own in CASES.values() for c in own]
    assert {line["device"] for line in lines} == {"dry, on CPU"}
    assert all(float(line["us"]) > 0 and float(line["times_floor"]) > 0 for line in lines)
    assert "these times mean nothing" in capsys.readouterr().out


def test_every_file_with_a_kernel_has_a_case():
    missing = set(bench_kernels.kernel_files()) ^ set(CASES)
    assert not missing, f"add a case to scripts/bench_kernels.py: {sorted(missing)}"


def test_floors_by_hand():
    """2 images of 17 tokens, width 96: 34 rows."""
    rows, width = 34, 96
    found = {c.__name__: c(SMALL) for own in CASES.values() for c in own}
    assert found["residual_norm"].bytes == 4 * rows * width * 4  # two read, two written
    assert found["attention"].macs == 2 * 2 * 17 * 17 * width  # scores, then values
    assert found["attention"].bytes == 4 * rows * width * 4 + rows * 3 * 4
    assert found["mlp_first"].macs == rows * width * 4 * width
    assert found["mlp_first"].bytes == 4 * (rows * width + 4 * width * width + rows * 4 * width)
    assert found["walk_matrix"].macs == 2 * 17**3  # float32: one product for each image
    assert found["attention_map"].macs == 2 * 17 * 17 * width
    assert found["pairs"].macs == 2 * 8 * 9 * 32  # 9 even and 8 odd tokens, the mean of heads
    assert found["patches"].bytes == 2 * 2 * 3 * 64 * 64 * 4  # 4 x 4 patches of 16 pixels


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["--tokens", "200", "--dry"], "square number and 1"), ([], "no CUDA device")],
)
def test_impossible_requests_are_refused(arguments, message, capsys, monkeypatch):
    monkeypatch.setattr(bench_kernels.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as stopped:
        bench_kernels.main(arguments)
    assert stopped.value.code == 2 and message in capsys.readouterr().err
