"""Results with the column names and roundings of timm's own result files.

First the columns of its validate.py, then those of its benchmark.py for inference, then method and
record key, because several methods share a model's name. Last the numbers of images: n evaluated,
n_failed unreadable (not in n), n_nonfinite (of n) without a finite answer.
"""

import csv
import io
from collections.abc import Sequence
from typing import Any

from asap.report.nonfinite import nonfinite
from asap.report.result import Result

COLUMNS = (
    *("model", "top1", "top1_err", "top5", "top5_err", "param_count"),
    *("img_size", "crop_pct", "interpolation"),
    *("infer_samples_per_sec", "infer_step_time", "infer_batch_size", "infer_img_size"),
    *("infer_gmacs", "method", "key"),
    *("n", "n_failed", "n_nonfinite"),
)


def to_timm_csv(results: Sequence[Result]) -> str:
    """One line for each result with an accuracy record; cells without a measurement are empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(_line(result) for result in results if result.accuracy is not None)
    return out.getvalue()


def _line(result: Result) -> dict[str, Any]:
    """In %, millions of parameters, GMACs of backbone and method, milliseconds per batch."""
    record = result.measured
    images = record["identity"].get("preprocessing", {})
    size = images.get("input_size", [""])[-1]
    line = {
        "model": record["backbone"],
        **{name: round(record[name], 4) for name in ("top1", "top5")},
        **{f"{name}_err": round(100 - record[name], 4) for name in ("top1", "top5")},
        "img_size": size,
        "crop_pct": images.get("crop_pct", ""),
        "interpolation": images.get("interpolation", ""),
        "infer_gmacs": round(result.gmacs, 4),
        "method": result.label,
        "key": record["key"],
        "n": record["n"],
        "n_failed": record["n_failed"],
        "n_nonfinite": nonfinite(record),
    }
    if "parameters" in record:
        line["param_count"] = round(record["parameters"] / 1e6, 2)
    if (timed := result.throughput) is not None:
        speed, batch = timed["images_per_s"]["median"], timed["batch_size"]
        line |= {"infer_samples_per_sec": round(speed, 2), "infer_batch_size": batch}
        line |= {"infer_step_time": round(1000 * batch / speed, 3), "infer_img_size": size}
    return line
