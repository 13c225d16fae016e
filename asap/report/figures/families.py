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
    for result in results:
        if result.accuracy is None or result.method.get("name") != "asap":
            continue
        options = dict(result.method["options"])
        place = json.dumps([options.pop(name, None) for name in swept])
        rest = json.dumps([result.measured["backbone"], options], sort_keys=True, default=str)
        found.setdefault(rest, {}).setdefault(place, result)
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
    family: Sequence[Result],
    results: Sequence[Result],
    swept: Sequence[str],
    default: Options,
) -> pd.DataFrame:
    """One row per result: the swept options, top1 with its interval in %, gmacs, macs_pct (against
    dense in %, NaN without a dense record), throughput (ratio to fused dense, NaN if not measured),
    default (whether the options equal `default`), key, label.
    """
    rows = []
    for result in family:
        record, speed = result.measured, result.throughput
        ratio = speed["ratio_fused"] if speed is not None else None
        low, high = record["top1_interval"]
        rows.append(
            {name: option(result, name) for name in swept}
            | {"top1": record["top1"], "top1_lo": low, "top1_hi": high}
            | {"gmacs": result.gmacs, "macs_pct": _against_dense(result, results)}
            | {"throughput": ratio["median"] if ratio else np.nan}
            | {"default": all(option(result, name) == value for name, value in default.items())}
            | {"key": record["key"], "label": result.label}
        )
    return pd.DataFrame(rows)


def option(result: Result, name: str) -> Any:
    """The recorded value of one option of the method."""
    return result.method["options"][name]


def _against_dense(result: Result, results: Sequence[Result]) -> float:
    """MACs against the dense baseline of the backbone in %, NaN without one."""
    dense = (r for r in results if r.is_dense and r.accuracy and r.backbone == result.backbone)
    base = next(dense, None)
    return float("nan") if base is None else 100 * (result.gmacs / base.gmacs - 1)
