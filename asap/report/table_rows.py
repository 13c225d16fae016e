"""One row of the result table from one result: values by key, and a footnote for each gap."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from asap.errors import one_line
from asap.records.files_left_out import counts_in_words
from asap.report import paper
from asap.report.benchmarks.numbers import number_difference
from asap.report.benchmarks.unscored import withhold
from asap.report.benchmarks.values import delta_keys, score_of
from asap.report.beside_paper import add_paper
from asap.report.clips import add_clips
from asap.report.nonfinite import nonfinite, nonfinite_note
from asap.report.questions import add_questions
from asap.report.result import Result, pairable
from asap.report.statistics import paired_difference
from asap.report.table import TableRow

_COPIED = ("data", "precision", "device", "n", "n_failed", "top1", "top5", "gmacs_backbone")
_COPIED += ("gmacs_method", "gmacs_sd", "gmacs_no_attention")
_ACCURACY_KEYS = ("top1", "n", "n_nonfinite", "infer_gmacs", "final_tokens", "missed_pct")
_ACCURACY_KEYS += ("sink_on_object_pct", "object_share_pct", "object_recall_pct")
_COMPARED_KEYS = ("top1_delta", "flops_pct", "macs_pct_of_dense")
_PAIRED_KEYS = ("top1_delta_lo", "mcnemar_p")
_SPEED_KEYS = ("infer_samples_per_sec", "dense_fused_per_sec", "dense_eager_per_sec")
_DENSE = ("fused", "eager", "best", "compiled")
_RATIO_KEYS = ("throughput_pct", *(f"ratio_{name}" for name in _DENSE))
_FURTHER_KEYS = ("timed_macs_pct", "timed_tokens", "latency_p50_ms", "latency_fused_p50_ms")
_FURTHER_KEYS += ("peak_memory_mb", "joules_per_image")
# The amount by which a row's rounds scatter, cut so that rows share a footnote.
_SPREAD = re.compile(r"[\d.]+ % of its median, over ([\d.]+ %)")


def make_row(
    result: Result,
    backbone: str,
    dense: Result | None,
    has_speed: bool,
    paper_table: str = "image_classification",
    without: Collection[int] = (),
) -> TableRow:
    """The row of a result. dense: its baseline; has_speed: was its backbone timed in any row?

    paper_table: the paper's table with the numbers beside ours. without: ids of images that
    comparisons leave out, because some row of the table could not read them.
    """
    row = TableRow()
    row.values |= {"model": paper.paper_model(backbone) or backbone, "backbone": backbone}
    row.values |= {
        "method": result.label,
        "extension": int(result.ours),
        "dense": int(result.is_dense),
    }
    row.values |= {"key": result.key, "paper_row": result.paper_method}
    if result.ours:
        row.note("An extension of ours; the paper has no such method.", "method")
    if result.note:
        row.note(result.note, "method")
    if result.own_weights and result.accuracy is not None:
        row.note(_own_weights(result.accuracy, dense), "method")
    _add_accuracy(row, result)
    _add_comparison(row, result, dense, without)
    _add_speed(row, result, has_speed)
    add_clips(row, result)
    add_questions(row, result, dense)
    withhold(row, result)
    add_paper(row, result, backbone, paper_table)
    return row


def _own_weights(record: Mapping[str, Any], dense: Result | None) -> str:
    """The footnote of a row with a checkpoint of its own: its file, and its preprocessing if that
    is not the baseline's.
    """
    file = (record.get("weights") or {}).get("file")
    said = (
        f"Its backbone's weights are those of its own checkpoint{f' {file}' if file else ''}, not "
    )
    said += "the baseline's"
    own = record["identity"].get("preprocessing")
    base = None if dense is None or dense.accuracy is None else dense.accuracy["identity"]
    if own is not None and base is not None and own != base.get("preprocessing"):
        said += f"; so is its preprocessing: {prepared(own)}"
    return f"{said}."


def prepared(preprocessing: Mapping[str, Any]) -> str:
    """A preprocessing in words, from a record's identity."""
    _, height, width = preprocessing["input_size"]
    mean, std = (" ".join(f"{v:.4g}" for v in preprocessing[name]) for name in ("mean", "std"))
    return (
        f"{height} x {width} pixels, crop {preprocessing['crop_pct']:.4g} "
        f"({preprocessing['crop_mode']}), {preprocessing['interpolation']}, mean {mean}, std {std}"
    )


def _add_accuracy(row: TableRow, result: Result) -> None:
    record = result.accuracy
    if record is None:
        row.note(_no_accuracy(result), *_ACCURACY_KEYS)
        return
    row.values |= {name: record[name] for name in _COPIED}
    row.values["files_left_out"] = counts_in_words(record.get("files_left_out") or {}) or None
    row.values["n_nonfinite"] = nonfinite(record)
    if note := nonfinite_note(record):
        row.note(note, "method")
    row.values |= {"top1_err": 100 - record["top1"], "top5_err": 100 - record["top5"]}
    row.values["top1_lo"], row.values["top1_hi"] = record["top1_interval"]
    row.values["infer_gmacs"] = result.gmacs
    row.values["final_tokens"] = record["final_tokens_mean"]
    row.values["missed_pct"] = _percent(record["missed_share"])
    for name in ("sink_on_object", "object_share", "object_recall"):
        row.values[f"{name}_pct"] = _percent(record[name])


def _add_comparison(
    row: TableRow, result: Result, dense: Result | None, without: Collection[int]
) -> None:
    """Values relative to the dense baseline of the backbone."""
    if dense is None or dense.accuracy is None:
        reason = dense.reason if dense is not None else None
        text = _because("No dense record of this backbone", reason or "it was not run")
        row.note(text, "top1_base", *(() if result.is_dense else (*_COMPARED_KEYS, *_PAIRED_KEYS)))
        return
    base = row.values["top1_base"] = dense.accuracy["top1"]
    if result.accuracy is None:
        row.note(_no_accuracy(result), *_COMPARED_KEYS, *_PAIRED_KEYS)
        return
    share = 100 * row.values["infer_gmacs"] / dense.gmacs
    row.values["macs_pct_of_dense"] = share
    if result.is_dense:
        return
    row.values |= {"flops_pct": share - 100, "top1_delta": result.accuracy["top1"] - base}
    _add_paired(row, result, dense, without)


def _add_paired(row: TableRow, result: Result, dense: Result, without: Collection[int]) -> None:
    if not (result.has_answers and dense.has_answers):
        row.note("No answers beside both records, so nothing to pair.", *_PAIRED_KEYS)
        return
    frames = pairable(dense), pairable(result)
    if without and frames[0]["id"].isin(list(without)).all():
        row.note("There is nothing that every row could read.", *_PAIRED_KEYS)
        return
    paired = paired_difference(*frames, result.measured["clustered"], without)
    row.values |= {"top1_delta": paired.difference, "n_paired": paired.n}
    if {result.measured["n"], dense.measured["n"]} != {paired.n}:
        row.note(
            f"Over the {paired.n:,} that every row could read; the accuracies are over "
            f"{dense.measured['n']:,} (dense) and {result.measured['n']:,}, so their difference is "
            "another.",
            "top1_delta",
        )
    if paired.partial:
        row.note(
            "Answers may be right in part: p is of Student's t test of the mean difference, with "
            "the clusters of the interval.",
            "mcnemar_p",
        )
    row.values["top1_delta_lo"], row.values["top1_delta_hi"] = paired.interval
    row.values |= {"mcnemar_p": paired.p, "mcnemar_b": paired.b, "mcnemar_c": paired.c}
    _add_number(row, result, frames, without)


def _add_number(
    row: TableRow,
    result: Result,
    frames: tuple[pd.DataFrame, pd.DataFrame],
    without: Collection[int],
) -> None:
    """The difference of a benchmark's number, where that is no mean of scores."""
    score = score_of(result)
    change = None if score is None else number_difference(score["name"], *frames, without)
    if score is None or change is None:
        return
    key, low, high = delta_keys(score["name"])
    row.values[key] = change.difference
    if change.interval is not None:
        row.values[low], row.values[high] = change.interval
    else:
        said = "No interval: pictures drawn anew give the same difference each time, or often none."
        row.note(said, key)


def _add_speed(row: TableRow, result: Result, has_speed: bool) -> None:
    record = result.throughput
    if record is None:
        if not (result.is_dense and has_speed):  # else every row holds its own dense baselines
            keys = _SPEED_KEYS + (_RATIO_KEYS[1:] if result.is_dense else _RATIO_KEYS)
            row.note(_no_speed(result), *keys, *_FURTHER_KEYS)
        return
    row.values["infer_samples_per_sec"] = record["images_per_s"]["median"]
    for name in _DENSE:
        if (speed := record.get(f"{name}_dense")) is not None:
            row.values[f"dense_{name}_per_sec"] = speed["median"]
    row.values["engine_path"] = record.get("path")
    row.values |= {"infer_batch_size": record["batch_size"], "device_name": record["device_name"]}
    row.values["throughput_precision"] = record["precision"]
    row.values |= {"clock": record.get("clock"), "cpu_share": record.get("cpu_share")}
    if record.get("wall_fused") is None:
        row.note("No ratio by the wall: the machine was not idle enough for one.", "wall_fused")
    for name in (*_RATIO_KEYS[1:], "wall_fused", "wall_eager"):
        if (ratio := record.get(name)) is not None:
            row.values |= {
                name: ratio["median"],
                f"{name}_lo": ratio["lo"],
                f"{name}_hi": ratio["hi"],
            }
    if not result.is_dense and record["ratio_eager"] is not None:
        row.values["throughput_pct"] = 100 * (record["ratio_eager"]["median"] - 1)
    missing = [key for key in _RATIO_KEYS if row.values.get(key) is None]
    missing = [key for key in missing if not (result.is_dense and key == "throughput_pct")]
    why = record.get("missing") or {}
    for key in missing:
        name = key.removeprefix("ratio_")
        if name in why:
            row.note(_because(f"No {name} dense model", why[name]), key)
        elif name not in _DENSE or record.get(f"{name}_dense") is not None:
            row.note(_because("No ratio", _refusal(key, record["refused"])), key)
    _add_further(row, record)


def _add_further(row: TableRow, record: Mapping[str, Any]) -> None:
    """MACs of the timed images, latency, memory and energy, or why they are missing."""
    if "gmacs_dense" in record:
        spent = record["gmacs_backbone"] + record["gmacs_method"]
        row.values |= {"timed_gmacs": spent, "timed_gmacs_dense": record["gmacs_dense"]}
        row.values["timed_macs_pct"] = 100 * spent / record["gmacs_dense"]
        row.values["timed_tokens"] = record["tokens_mean"]
    for name, taken in (record.get("latency") or {}).items():
        of = "" if name == "method" else f"{name}_"
        row.values |= {f"latency_{of}{p}_ms": taken[f"{p}_ms"] for p in ("p50", "p95")}
    for key in ("peak_memory_mb", "joules_per_image"):
        for name, value in (record.get(key) or {}).items():
            of = "" if name == "method" else f"_{name}"
            unit = "_mb" if key == "peak_memory_mb" else ""
            row.values[f"{key.removesuffix('_mb')}{of}{unit}"] = value
        if row.values.get(key) is None:
            why = (record.get("missing") or {}).get(key, "it was not measured")
            row.note(_because("Empty", why), key)
    if row.values.get("latency_p50_ms") is None:
        text = "No latency was asked for: measure.latency_calls."
        row.note(text, "latency_p50_ms", "latency_fused_p50_ms")


def _no_accuracy(result: Result) -> str:
    if result.reason and not result.records:
        return _because("No record", result.reason)
    return _because("No accuracy record", result.reason or "it was not run")


def _no_speed(result: Result) -> str:
    if result.reason and not result.records:
        return _no_accuracy(result)
    return _because("No throughput record", result.reason or "it was not measured")


def _refusal(key: str, refused: str | None) -> str:
    """Why this ratio was refused, without amounts (so that rows share a footnote) and without
    reasons that concern other ratios.
    """
    reasons = _SPREAD.sub(r"over \1 of its median", refused or "not in the record").split("; ")
    name = "eager" if key == "throughput_pct" else key.removeprefix("ratio_")
    others = tuple(f"ratio to {other} dense" for other in _DENSE if other != name)
    own = [reason for reason in reasons if not reason.startswith(others)]
    return "; ".join(own or reasons)


def _because(what: str, reason: str) -> str:
    """`what`, the reason on one line, and one full stop."""
    return f"{what}: {one_line(reason).rstrip('.')}."


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
