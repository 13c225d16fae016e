"""Groups of ASAP results that differ in the swept options only, and their numbers as a frame."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from asap.report.result import Result

Options = Mapping[str, Any]


def families(results: Sequence[Result], swept: Sequence[str]) -> list[list[Result]]:
    """Results of ASAP grouped by backbone and all options but the `swept` ones, in order of
    appearance. Of results with equal options the first counts.
    """
    found: dict[str, dict[str, Result]] = {}
    for cell in results:
        if cell.accuracy is None or cell.method.get("name") != "asap":
            continue
        options = dict(cell.method["options"])
        place = json.dumps([options.pop(name, None) for name in swept])
        rest = json.dumps([cell.measured["backbone"], options], sort_keys=True, default=str)
        found.setdefault(rest, {}).setdefault(place, cell)
    return [list(family.values()) for family in found.values()]


def name_families(
    found: Sequence[tuple[Sequence[Result], pd.DataFrame]], swept: Sequence[str]
) -> list[pd.DataFrame]:
    """Adds `attrs["family"]` to each frame: the options that distinguish it from the others."""
    options = [dict(family[0].method["options"]) for family, _ in found]
    names = [name for name in dict.fromkeys(n for o in options for n in o) if name not in swept]
    telling = [n for n in names if len({json.dumps(o.get(n), default=str) for o in options}) > 1]
    for (_, frame), own in zip(found, options, strict=True):
        frame.attrs["family"] = ", ".join(f"{name}={own.get(name)}" for name in telling)
    return [frame for _, frame in found]


def frame_of(
    cells: Sequence[Result],
    results: Sequence[Result],
    swept: Sequence[str],
    default: Options,
) -> pd.DataFrame:
    """One row per result: the swept options, top1 with its interval in %, gmacs, macs_pct (against
    dense in %, NaN without a dense record), throughput (ratio to fused dense, NaN if not measured),
    default (whether the options equal `default`), key, label.
    """
    rows = []
    for cell in cells:
        record, speed = cell.measured, cell.throughput
        ratio = speed["ratio_fused"] if speed is not None else None
        low, high = record["top1_interval"]
        rows.append(
            {name: option(cell, name) for name in swept}
            | {"top1": record["top1"], "top1_lo": low, "top1_hi": high}
            | {"gmacs": cell.gmacs, "macs_pct": _against_dense(cell, results)}
            | {"throughput": ratio["median"] if ratio else np.nan}
            | {"default": all(option(cell, name) == value for name, value in default.items())}
            | {"key": record["key"], "label": cell.label}
        )
    return pd.DataFrame(rows)


def option(cell: Result, name: str) -> Any:
    """The recorded value of one option of the method."""
    return cell.method["options"][name]


def _against_dense(cell: Result, results: Sequence[Result]) -> float:
    """MACs against the dense baseline of the backbone in %, NaN without one."""
    dense = (r for r in results if r.is_dense and r.accuracy and r.backbone == cell.backbone)
    base = next(dense, None)
    return float("nan") if base is None else 100 * (cell.gmacs / base.gmacs - 1)
