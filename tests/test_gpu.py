"""What only a CUDA device can show: `make test-gpu`, which runs the contract tests on it too."""

from pathlib import Path

import pytest
import torch
from samples import small_run

from asap.backbones.weights.load import load_backbone
from asap.experiment.pipeline import run
from asap.measure.throughput import measure_throughput
from asap.measure.timed_images import TimedImages
from asap.measure.timing import ThroughputPlan
from asap.methods import Asap, ToMe
from asap.report.result import Result

pytestmark = pytest.mark.gpu
ROWS = [{"method": "dense"}, {"method": "tome", "with": {"r": 4}}, {"method": "asap"}]
IMAGES = 200


def results_on(device: str, folder: Path) -> list[Result]:
    return run(small_run(folder / device, *ROWS, images=IMAGES, device=device))[1]


def test_a_run_on_the_device_counts_what_one_on_the_cpu_counts(tmp_path: Path) -> None:
    """Rounding may turn an answer or two, no more; the cost of a fixed schedule is exact."""
    found = zip(ROWS, results_on("cuda", tmp_path), results_on("cpu", tmp_path), strict=True)
    for row, ours, theirs in found:
        assert abs(ours.measured["correct1"] - theirs.measured["correct1"]) <= 2
        near = 0.01 if row["method"] == "asap" else 0.0
        assert ours.gmacs == pytest.approx(theirs.gmacs, rel=near)


def test_throughput_has_what_only_a_gpu_tells() -> None:
    """No number is asserted that another machine could not have."""
    backbone = load_backbone("digits_vit").cuda().half()
    pixels = torch.randint(0, 256, (12, 3, 112, 112), dtype=torch.uint8, device="cuda")
    plan = ThroughputPlan(3, 0.01, discard=1, short=True, warmup_seconds=0.1)
    half = (0.5, 0.5, 0.5)
    methods = {"asap": Asap(tau=1e-9), "tome": ToMe(r=4)}
    timed = measure_throughput(
        backbone, methods, TimedImages(pixels, tuple(range(12))), 4, half, half, plan,
        opponents=["best"], latency_calls=5,
    )  # fmt: skip
    for name in methods:
        fields = timed.fields(name)
        assert fields["clock"] == "cuda events" and fields["device_name"]
        assert set(fields["latency"]) == {"method", "fused", "eager", "best"}
        assert all(taken["p50_ms"] > 0 for taken in fields["latency"].values())
        assert all(fields["peak_memory_mb"][which] > 0 for which in ("method", "fused", "best"))
        told = "method" in fields["joules_per_image"]
        assert told != ("joules_per_image" in fields["missing"])
        assert "peak_memory_mb" not in fields["missing"]
        assert fields["best_dense"] is not None and fields["gmacs_method"] >= 0
        assert fields["ratio_best"] is not None or fields["refused"]
