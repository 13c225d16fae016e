"""The commands for a GPU, on the pretended device: they run to their end."""

import csv
from pathlib import Path

import bench_gpu
import bench_kernels
import bench_vlm
import pytest
import torch
from draws import build
from pretended_cuda import PretendedCuda


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text("utf-8").splitlines()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "dtype", [pytest.param(torch.float16, marks=pytest.mark.large), torch.float32], ids=str
)
def test_speed(dtype: torch.dtype, tmp_path: Path, cuda: PretendedCuda, capsys) -> None:
    where = bench_gpu.Where(torch.device("cuda"), False, tmp_path)
    net = build("plain", "p64", 1).to("cuda", dtype)
    images = torch.randn(4, 3, 32, 32).to("cuda", dtype)
    with torch.inference_mode():
        rows = bench_gpu.compared(net, images, bench_gpu.methods_for(net), where, 2, {})
    assert "left out" not in capsys.readouterr().out
    assert [row["unrecorded"] for row in rows] == [""] * len(rows)
    assert {row["path"] for row in rows} == {"", "graphs", "strict graphs"}


@pytest.mark.slow
def test_decisions(tmp_path: Path, cuda: PretendedCuda, monkeypatch, capsys) -> None:
    """Those of the CPU in float32, and the same bits on repeat."""
    methods = bench_gpu.demo_methods()
    few = {name: methods[name] for name in ("ASAP (pool.)", "PCA-centre anchor")}
    precisions = {name: bench_gpu.DTYPES[name] for name in ("fp32", "bf16")}
    monkeypatch.setattr(bench_gpu, "DTYPES", precisions)
    monkeypatch.setattr(bench_gpu, "demo_methods", lambda: few)
    with torch.inference_mode():
        bench_gpu.decisions(bench_gpu.Where(torch.device("cuda"), False, tmp_path), 3)
    assert "left out" not in capsys.readouterr().out
    rows = rows_of(tmp_path / "decisions.csv")
    assert len(rows) == 4 and {row["same_bits_on_repeat"] for row in rows} == {"True"}
    assert {row["other_tokens"] for row in rows if row["precision"] == "fp32"} == {"0"}


@pytest.mark.parametrize("dtype", ["float16", pytest.param("float32", marks=pytest.mark.large)])
def test_kernels(dtype: str, tmp_path: Path, cuda: PretendedCuda, monkeypatch, capsys) -> None:
    """Every case is captured, its kernel and the same in torch."""
    monkeypatch.setattr(bench_kernels, "rates", lambda dtype, device: (1.0, 1.0))
    given = ["--images", "2", "--tokens", "17", "--models", "tiny", "--rounds", "2"]
    assert bench_kernels.main([*given, "--dtypes", dtype, "--out", str(tmp_path)]) == 0
    assert "left out" not in capsys.readouterr().out


@pytest.mark.slow
def test_questions(tmp_path: Path, cuda: PretendedCuda, monkeypatch) -> None:
    monkeypatch.setattr(bench_vlm, "Sizes", lambda: bench_vlm.TINY)
    assert bench_vlm.main(["--questions", "2", "--warm", "1", "--out", str(tmp_path)]) == 0
    rows = rows_of(tmp_path / "vlm.csv")
    assert len(rows) == 7 and {row["clock"] for row in rows} == {"cuda events"}
