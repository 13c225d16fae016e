"""The single numbers and the curves of a row, by name: for dashboards, and for columns of a CSV."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from asap.records.kinds import HEAD, KINDS
from asap.records.latency_record import LATENCY
from asap.records.tables import matrix
from asap.report import latency
from asap.report.benchmarks.unscored import is_unscored
from asap.report.columns import columns, csv_keys
from asap.report.questions import values_of
from asap.report.result import Result

_SCALARS = ("n", "n_failed", "n_nonfinite", "top1", "top5", "gmacs_backbone", "gmacs_method")
_SCALARS += ("gmacs_sd", "gmacs_no_attention", "final_tokens_mean", "missed_share")
_SCALARS += ("object_recall", "sink_on_object", "object_share")
_RATIOS = ("ratio_fused", "ratio_eager", "ratio_best", "ratio_compiled")
# Everything that `scalars` may give, beside the metrics of the records.
SCALAR_NAMES = (*_SCALARS, "gmacs", "top1_lo", "top1_hi", "images_per_s", *_RATIOS)


def scalars(result: Result) -> dict[str, int | float]:
    """The single numbers of the records by name, for a dashboard's summary of a run."""
    found: dict[str, int | float] = metrics(result, ambiguous([result]))
    if result.accuracy is not None:
        record = result.measured
        found |= {name: record[name] for name in _SCALARS if record.get(name) is not None}
        found["gmacs"] = result.gmacs
        found["top1_lo"], found["top1_hi"] = record["top1_interval"]
        found |= of_clips(record) | of_questions(record)
        if is_unscored(result):
            found = {k: v for k, v in found.items() if not k.startswith(("top", "score_", "avera"))}
    if result.throughput is not None:
        found["images_per_s"] = result.throughput["images_per_s"]["median"]
        for name in _RATIOS:
            if (ratio := result.throughput.get(name)) is not None:
                found[name] = ratio["median"]
    if (times := result.record(LATENCY.name)) is not None:
        values = latency.values_of(times)
        found |= {k: v for k, v in values.items() if isinstance(v, int | float)}
    return found


def of_clips(record: Mapping[str, Any]) -> dict[str, float]:
    """The single numbers that only an accuracy record of videos has."""
    about = record.get("clips") or {}
    spreads = {k: v["mean"] for k, v in about.items() if isinstance(v, dict) and "mean" in v}
    return spreads | {k: about[k] for k in ("gmacs_head", "unverified") if k in about}


def of_questions(record: Mapping[str, Any]) -> dict[str, float]:
    """The single numbers that only an accuracy record of questions has."""
    about = record.get("questions")
    return {} if about is None else values_of(about)


def metrics(result: Result, several: Collection[str]) -> dict[str, int | float]:
    """The named numbers of all records, beside the fields of their kinds.

    A name in `several`, see `ambiguous`, gets the record's kind in front: "latency.seconds".
    """
    return {
        f"{kind}.{name}" if name in several else name: value
        for kind, record in result.records.items()
        for name, value in record.get("metrics", {}).items()
    }


def ambiguous(results: Iterable[Result]) -> set[str]:
    """Names of metrics that records of two kinds have, or that mean something else already."""
    kinds: dict[str, set[str]] = {}
    for result in results:
        for kind, record in result.records.items():
            for name in record.get("metrics", {}):
                kinds.setdefault(name, set()).add(kind)
    taken = taken_names()
    return {name for name, found in kinds.items() if len(found) > 1 or name in taken}


def taken_names() -> set[str]:
    """Names that a method's metrics cannot have: fields of records, columns of the CSV."""
    own = (name for kind in KINDS.values() for name in kind.fields)
    return {*HEAD, *own, *SCALAR_NAMES, *csv_keys(columns(1.0))}


def training_curves(result: Result) -> dict[str, dict[int, float]]:
    """What a record of a training says of every epoch, {name: {epoch: value}}."""
    found = {k: v for one in result.records.values() for k, v in one.get("epochs", {}).items()}
    return {name: dict(enumerate(values, start=1)) for name, values in found.items()}


def curves(result: Result) -> dict[str, dict[int, float]]:
    """Per-block means over the images, {name: {block: value}}: tokens that entered block 1, 2, ...
    and (as block L+1) left the last, and the largest column mass after each block over the images
    that had not stopped. Of questions also the rows that entered layer 1, 2, ... of the language
    model.
    """
    found: dict[str, dict[int, float]] = {}
    if result.accuracy is not None:
        found["tokens"] = dict(enumerate(result.accuracy["tokens_mean"], start=1))
        if (about := result.accuracy.get("questions")) is not None:
            found["language_rows"] = dict(enumerate(about["layer_rows"], start=1))
    if result.has_answers and "vision.mass" in (traces := result.traces()):
        mass = matrix(traces, "vision.mass").astype(np.float64)
        alive = ~np.isnan(mass)
        counts, totals = alive.sum(axis=0), np.where(alive, mass, 0.0).sum(axis=0)
        found["mass"] = {
            block: float(total / count)
            for block, (total, count) in enumerate(zip(totals, counts, strict=True), start=1)
            if count
        }
    return found
