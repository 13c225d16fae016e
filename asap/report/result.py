"""What a table, a figure or a dashboard is made of: one method on one backbone and data set."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from asap.errors import RequestError
from asap.records.predictions import matrix
from asap.records.schema import AccuracyRecord, ThroughputRecord
from asap.report.statistics import evaluated
from asap.spec.run_spec import MethodSpec, RunSpec

_SCALARS = ("n", "n_failed", "n_nonfinite", "top1", "top5", "gmacs_backbone", "gmacs_method")
_SCALARS += ("gmacs_sd", "gmacs_no_attention", "final_tokens_mean", "missed_share")
_SCALARS += ("object_recall", "sink_on_object", "object_share")
_RATIOS = ("ratio_fused", "ratio_eager")
# Everything that `scalars` may give.
SCALAR_NAMES = (*_SCALARS, "gmacs", "top1_lo", "top1_hi", "images_per_s", *_RATIOS)


@dataclass(frozen=True)
class Result:
    """One row: its records as read from disk, and why a part of it is missing.

    predictions: reads them, as `Cell.predictions` does: a table of many rows holds none of them;
    paper_method: the row's name in the paper's tables; ours: an extension that the paper does not
    have; reason: why a record is missing; note: a footnote of this row; on: its backbone, where no
    record says so; config: the settings of its run, as in the config.yaml beside its record;
    left_out: a baseline's record on the images that calibration took out of the evaluation;
    own_weights: its backbone is that of its own checkpoint, not that of the other rows.
    """

    label: str
    paper_method: str | None
    ours: bool
    accuracy: AccuracyRecord | None
    predictions: Callable[[], pd.DataFrame] | None
    throughput: ThroughputRecord | None
    reason: str | None = None
    note: str | None = None
    on: str | None = None
    config: Mapping[str, Any] | None = None
    left_out: AccuracyRecord | None = None
    own_weights: bool = False

    @property
    def records(self) -> list[Mapping[str, Any]]:
        """The records there are, accuracy first."""
        return [record for record in (self.accuracy, self.throughput) if record is not None]

    @property
    def measured(self) -> Mapping[str, Any]:
        """The accuracy record of a result that has one; ValueError if it has none."""
        if self.accuracy is None:
            raise ValueError(f"{self.label} has no accuracy record")
        return self.accuracy

    @property
    def gmacs(self) -> float:
        """GMACs per image, backbone and method together; ValueError without an accuracy record."""
        return self.measured["gmacs_backbone"] + self.measured["gmacs_method"]

    @property
    def key(self) -> str | None:
        """The key of the accuracy record, else of the throughput record."""
        return next((record["key"] for record in self.records), None)

    @property
    def backbone(self) -> str | None:
        """Name of the backbone, None if neither a record nor the run says it."""
        return next((record["backbone"] for record in self.records), self.on)

    @property
    def method(self) -> Mapping[str, Any]:
        """Name and options of the method as recorded; without any record its name is its label."""
        for record in self.records:
            method = record.get("method") or record["identity"].get("method")
            if isinstance(method, Mapping):
                return method
        return {"name": self.label.lower(), "options": {}}

    @property
    def is_dense(self) -> bool:
        """Whether this is an unreduced baseline."""
        return self.method.get("name") == "dense"


def pairable(cell: Result) -> pd.DataFrame:
    """Its predictions, to be matched with others by id; ValueError without any. RequestError, which
    says whose they are, if an image is there twice.
    """
    if cell.predictions is None:
        raise ValueError(f"{cell.label} has no predictions")
    found = cell.predictions()
    if not found["id"].is_unique:
        raise RequestError(
            f"record {cell.key} ({cell.label}) holds an image twice, so it cannot be compared: "
            f"delete its folder runs/{cell.key} and evaluate again"
        )
    return found


def unreadable(results: Iterable[Result]) -> dict[int, str]:
    """Path by id of every image that some row could not read: it is in no comparison of the rows,
    so that all are over the same images.
    """
    found: dict[int, str] = {}
    for cell in results:
        if cell.predictions is not None and cell.accuracy and cell.accuracy["n_failed"]:
            frame = cell.predictions()
            failed = frame[frame["error"].notna()]
            found |= zip(failed["id"].tolist(), failed["path"].tolist(), strict=True)
    return dict(sorted(found.items()))


def unmeasured(
    spec: RunSpec, row: MethodSpec, reason: str | None = None, ours: bool = False
) -> Result:
    """A row without any record yet, or with the reason why it gets none."""
    ours, on = row.ours or ours, spec.backbone.shown
    return Result(row.label, row.paper, ours, None, None, None, reason, row.note, on)


def scalars(cell: Result) -> dict[str, int | float]:
    """Every single number of the records, by name: what a dashboard shows as a run's summary."""
    found: dict[str, int | float] = {}
    if cell.accuracy is not None:
        record = cell.measured
        found = {name: record[name] for name in _SCALARS if record.get(name) is not None}
        found["gmacs"] = cell.gmacs
        found["top1_lo"], found["top1_hi"] = record["top1_interval"]
    if cell.throughput is not None:
        found["images_per_s"] = cell.throughput["images_per_s"]["median"]
        for name in _RATIOS:
            if (ratio := cell.throughput[name]) is not None:
                found[name] = ratio["median"]
    return found


def curves(cell: Result) -> dict[str, dict[int, float]]:
    """Per-block means over the images, {name: {block: value}}: tokens that entered block 1, 2, ...
    and (as block L+1) left the last, and the largest column mass after each block over the images
    that had not stopped.
    """
    found: dict[str, dict[int, float]] = {}
    if cell.accuracy is not None:
        found["tokens"] = dict(enumerate(cell.accuracy["tokens_mean"], start=1))
    if cell.predictions is not None:
        mass = matrix(evaluated(cell.predictions()), "mass").astype(np.float64)
        alive = ~np.isnan(mass)
        counts, totals = alive.sum(axis=0), np.where(alive, mass, 0.0).sum(axis=0)
        found["mass"] = {
            block: float(total / count)
            for block, (total, count) in enumerate(zip(totals, counts, strict=True), start=1)
            if count
        }
    return found
