"""One row of the result table from one result: values by key, and a footnote on every gap."""

from collections.abc import Mapping
from typing import Any

from asap.report import paper
from asap.report.render import Row
from asap.report.result import CellResult
from asap.report.statistics import paired_difference

_COPIED = ("data", "precision", "device", "n", "n_failed", "top1", "top5", "gmacs_backbone")
_COPIED += ("gmacs_method", "gmacs_sd", "gmacs_no_attention")
_ACCURACY_KEYS = ("top1", "n", "infer_gmacs", "final_tokens", "missed_pct")
_ACCURACY_KEYS += ("sink_on_object_pct", "object_share_pct", "object_recall_pct")
_COMPARED_KEYS = ("top1_delta", "flops_pct", "macs_pct_of_dense")
_PAIRED_KEYS = ("top1_delta_lo", "mcnemar_p")
_SPEED_KEYS = ("infer_samples_per_sec", "dense_fused_per_sec", "dense_eager_per_sec")
_RATIO_KEYS = ("throughput_pct", "ratio_fused", "ratio_eager")
PAPER_KEYS = {  # column of the paper's csv -> (our key, field of PaperRow)
    "acc_base": ("paper_top1", "acc_base"),
    "acc_reduced": ("paper_top1", "acc_reduced"),
    "acc_delta": ("paper_top1_delta", "acc_delta"),
    "flops_pct": ("paper_flops_pct", "flops_pct"),
    "throughput_pct": ("paper_throughput_pct", "throughput_pct"),
}


def make_row(cell: CellResult, backbone: str, dense: CellResult | None, has_speed: bool) -> Row:
    """The row of `cell`; `dense` is its baseline, `has_speed`: its backbone was timed somewhere."""
    row = Row()
    row.values |= {"model": paper.paper_model(backbone) or backbone, "backbone": backbone}
    row.values |= {"method": cell.label, "extension": int(cell.ours), "dense": int(cell.is_dense)}
    row.values |= {"key": cell.key, "paper_row": cell.paper_method}
    if cell.ours:
        row.note("An extension of ours; the paper has no such method.", "method")
    if cell.note:
        row.note(cell.note, "method")
    _add_accuracy(row, cell)
    _add_comparison(row, cell, dense)
    _add_speed(row, cell, has_speed)
    _add_paper(row, cell, backbone, dense)
    return row


def _add_accuracy(row: Row, cell: CellResult) -> None:
    record = cell.accuracy
    if record is None:
        row.note(_no_accuracy(cell), *_ACCURACY_KEYS)
        return
    row.values |= {name: record[name] for name in _COPIED}
    row.values |= {"top1_err": 100 - record["top1"], "top5_err": 100 - record["top5"]}
    row.values["top1_lo"], row.values["top1_hi"] = record["top1_interval"]
    row.values["infer_gmacs"] = record["gmacs_backbone"] + record["gmacs_method"]
    row.values["final_tokens"] = record["final_tokens_mean"]
    row.values["missed_pct"] = _percent(record["missed_share"])
    for name in ("sink_on_object", "object_share", "object_recall"):
        row.values[f"{name}_pct"] = _percent(record[name])


def _add_comparison(row: Row, cell: CellResult, dense: CellResult | None) -> None:
    """Everything relative to the dense baseline of the backbone."""
    if dense is None or dense.accuracy is None:
        reason = dense.reason if dense is not None else None
        text = _because("No dense record of this backbone", reason or "it was not run")
        row.note(text, "top1_base", *(() if cell.is_dense else (*_COMPARED_KEYS, *_PAIRED_KEYS)))
        return
    base = row.values["top1_base"] = dense.accuracy["top1"]
    if cell.accuracy is None:
        row.note(_no_accuracy(cell), *_COMPARED_KEYS, *_PAIRED_KEYS)
        return
    share = 100 * row.values["infer_gmacs"] / _total(dense.accuracy)
    row.values["macs_pct_of_dense"] = share
    if cell.is_dense:
        return
    row.values |= {"flops_pct": share - 100, "top1_delta": cell.accuracy["top1"] - base}
    _add_paired(row, cell, dense)


def _add_paired(row: Row, cell: CellResult, dense: CellResult) -> None:
    if cell.predictions is None or dense.predictions is None:
        row.note("No predictions beside both records, so nothing to pair.", *_PAIRED_KEYS)
        return
    paired = paired_difference(dense.predictions, cell.predictions, cell.measured["clustered"])
    row.values["top1_delta"] = paired.difference
    row.values["top1_delta_lo"], row.values["top1_delta_hi"] = paired.interval
    row.values |= {"mcnemar_p": paired.p, "mcnemar_b": paired.b, "mcnemar_c": paired.c}


def _add_speed(row: Row, cell: CellResult, has_speed: bool) -> None:
    record = cell.throughput
    if record is None:
        if not (cell.is_dense and has_speed):  # else every row holds its own dense baselines
            keys = _SPEED_KEYS + (_RATIO_KEYS[1:] if cell.is_dense else _RATIO_KEYS)
            row.note(_because("No throughput record", cell.reason or "it was not measured"), *keys)
        return
    row.values["infer_samples_per_sec"] = record["images_per_s"]["median"]
    row.values["dense_fused_per_sec"] = record["fused_dense"]["median"]
    row.values["dense_eager_per_sec"] = record["eager_dense"]["median"]
    row.values |= {"infer_batch_size": record["batch_size"], "device_name": record["device_name"]}
    row.values["throughput_precision"] = record["precision"]
    for name in ("ratio_fused", "ratio_eager"):
        if (ratio := record[name]) is not None:
            row.values |= {
                name: ratio["median"],
                f"{name}_lo": ratio["lo"],
                f"{name}_hi": ratio["hi"],
            }
    if not cell.is_dense and record["ratio_eager"] is not None:
        row.values["throughput_pct"] = 100 * (record["ratio_eager"]["median"] - 1)
    missing = [key for key in _RATIO_KEYS if row.values.get(key) is None]
    missing = [key for key in missing if not (cell.is_dense and key == "throughput_pct")]
    if missing:
        row.note(_because("No ratio", record["refused"] or "not in the record"), *missing)


def _add_paper(row: Row, cell: CellResult, backbone: str, dense: CellResult | None) -> None:
    """The paper's numbers beside ours; the dense row has the paper's dense accuracy."""
    model = paper.paper_model(backbone)
    if model is None:
        return
    if cell.is_dense:
        row.values["paper_top1"] = paper.paper_base(model)
    elif cell.paper_method is not None:
        _add_paper_row(row, model, cell.paper_method)
        if cell.accuracy is not None and dense is not None:
            gmacs = cell.accuracy["gmacs_backbone"]
            row.values["flops_pct_rounded"] = paper.flops_pct_rounded(model, gmacs)
    if cell.accuracy is not None and row.values.get("paper_top1") is not None:
        row.values["top1_minus_paper"] = cell.measured["top1"] - row.values["paper_top1"]


def _add_paper_row(row: Row, model: str, method: str) -> None:
    published = paper.paper_row(model, method)
    if published is None:
        keys = {key for key, _ in PAPER_KEYS.values()}
        row.note(f"The paper has no row {method!r} for {model}.", *sorted(keys), "top1_minus_paper")
        return
    for column in ("acc_reduced", "acc_delta", "flops_pct", "throughput_pct"):
        key, name = PAPER_KEYS[column]
        row.values[key] = getattr(published, name)
        if row.values[key] is None:
            row.note("The paper leaves this cell empty.", key)
    if published.method != method:
        row.note(f"The paper's only ASAP row for {model} is {published.method!r}.", "paper_top1")
    for note in paper.footnotes("image_classification", [(model, published.method)]):
        if note.methods and note.column is not None:
            row.note(note.text, PAPER_KEYS[note.column][0])


def _no_accuracy(cell: CellResult) -> str:
    return _because("No accuracy record", cell.reason or "this cell was not run")


def _because(what: str, reason: str) -> str:
    """One line, ending in one full stop, whatever the reason looks like."""
    return f"{what}: {' '.join(reason.split()).rstrip('.')}."


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def _total(record: Mapping[str, Any]) -> float:
    return record["gmacs_backbone"] + record["gmacs_method"]
