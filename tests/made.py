"""Hand-made results for tests of figures and pages."""

from collections.abc import Callable
from typing import Any

import pandas as pd

from asap.measure.traces import costs
from asap.methods.registry import find, names
from asap.report.result import Read, Result
from asap.tasks.classification import Classification

NAN = float("nan")
ASAP = {"alpha": 0.5, "tau": 3.0, "clusters": 4, "anchor": "sink", "accumulate": True, "pool": True}


def frame(n=2, **columns):
    """Answers of n images with what traces say of them, all right and without a sink unless
    `columns` say otherwise; `reads` tells the two apart.
    """
    values = {
        "index": list(range(n)),
        "id": list(range(n)),
        "label": [0] * n,
        "other_labels": [[]] * n,
        "cluster": list(range(n)),
        "top5": [[0, 1]] * n,
        "top5_logits": [[2.0, 1.0]] * n,
        "stop_block": [0] * n,
        "sink": [-1] * n,
        "tokens": [[5, 5]] * n,
        "mass": [[NAN, NAN]] * n,
        "object_recall": [NAN] * n,
        "sink_on_object": [NAN] * n,
        "error": [None] * n,
    }
    return pd.DataFrame(values | columns)


def methods(name: str, options: dict | None = None, version: int | None = None) -> dict[str, dict]:
    """The methods of an identity: one, of the images; version: None: the current one."""
    if version is None:
        version = find(name).method_version if name in names() else 1
    return {"vision": {"name": name, "options": options or {}, "version": version}}


def traces_of(found: pd.DataFrame) -> pd.DataFrame:
    """The traces of what `frame` made: a row for each image that could be read."""
    read = found[found["error"].isna()]
    names = ("tokens", "stop_block", "sink", "mass", "macs_backbone", "macs_method")
    columns = {f"vision.{name}": read[name] for name in names if name in read}
    return pd.DataFrame({"example": read["index"], **columns}).reset_index(drop=True)


def reads(found: pd.DataFrame | Callable[[], pd.DataFrame]) -> dict[str, Read]:
    """What reads the tables of a result from what `frame` made, or will make."""
    make = found if callable(found) else lambda: found
    return {"answers": make, "traces": lambda: traces_of(make())}


def counted(found: pd.DataFrame, clustered: bool = False, reduces: bool = True) -> dict[str, Any]:
    """The counting fields of the record of what `frame` made."""
    scores = Classification().score(found, clustered)
    return {**scores, **costs(traces_of(found), reduces)}


def record(name, top1, gmacs, options=None, **changes):
    """An accuracy record: `gmacs` of the backbone, nothing of the method."""
    made = {
        "key": f"{name}-{top1:g}-{gmacs:g}",
        "identity": {
            "engine": 1,
            "backbone": {"name": "digits_vit", "weights": "w" * 64},
            "data": {"content": "d" * 64, "labels": "l" * 64},
            "methods": methods(name, options),
        },
        "label": name,
        "backbone": "digits_vit",
        "data": "two scenes",
        "n": 2,
        "n_failed": 0,
        "top1": top1,
        "top5": 100.0,
        "top1_interval": [top1 - 4, top1 + 3],
        "clustered": False,
        "gmacs_backbone": gmacs,
        "gmacs_method": 0.0,
        "gmacs_sd": 0.0,
        "gmacs_no_attention": None,
        "final_tokens_mean": 5.0,
        "missed_share": None if name == "dense" else 0.0,
        "object_recall": None,
        "sink_on_object": None,
        "object_share": None,
        "precision": "fp32",
        "device": "cpu",
        "environment": {"python": "3.11.1", "torch": "2.99"},
        "created": "2026-01-02T03:04:05+00:00",
    }
    return made | changes


def cell(name, top1, gmacs, options=None, label=None, found=None, **changes: Any) -> Result:
    """A row with its record, and answers and traces if they are given."""
    made = record(name, top1, gmacs, options)
    read = {} if found is None else reads(found)
    return Result(label or name, records={"accuracy": made}, read=read, **changes)


DENSE = cell("dense", 90.0, 2.0, label="Dense", found=frame())
