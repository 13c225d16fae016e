"""What only a CUDA device can show: `make test-gpu`, which runs the contract tests on it too."""

from pathlib import Path

import pytest

from asap.experiment.pipeline import run
from asap.report.result import Result
from asap.spec.configs import read_method
from asap.spec.read import read_spec

pytestmark = pytest.mark.gpu
ROWS = [{"method": "dense"}, {"method": "tome", "with": {"r": 4}}, {"method": "asap"}]
IMAGES = 200


def results_on(device: str, folder: Path) -> list[Result]:
    config = {
        "backbone": {"name": "digits_vit", "weights": "bundled"},
        "data": {"name": "digits", "images": IMAGES},
        "rows": ROWS,
        "results": str(folder / device),
        "device": device,
    }
    return run(read_spec(config, read_method))[1]


def test_a_run_on_the_device_counts_what_one_on_the_cpu_counts(tmp_path: Path) -> None:
    """Rounding may turn an answer or two, no more; the cost of a fixed schedule is exact."""
    found = zip(ROWS, results_on("cuda", tmp_path), results_on("cpu", tmp_path), strict=True)
    for row, ours, theirs in found:
        assert abs(ours.measured["correct1"] - theirs.measured["correct1"]) <= 2
        near = 0.01 if row["method"] == "asap" else 0.0
        assert ours.gmacs == pytest.approx(theirs.gmacs, rel=near)
