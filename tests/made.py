"""Hand-made results for tests of figures and pages."""

import pandas as pd

from asap.report.result import Result

NAN = float("nan")
ASAP = {"alpha": 0.5, "tau": 3.0, "clusters": 4, "anchor": "sink", "accumulate": True, "pool": True}


def frame(n=2, **columns):
    """Predictions of n images, all right and without a sink unless `columns` say otherwise."""
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


def record(name, top1, gmacs, options=None, **changes):
    """An accuracy record: `gmacs` of the backbone, nothing of the method."""
    made = {
        "key": f"{name}-{top1:g}-{gmacs:g}",
        "identity": {
            "engine": 1,
            "backbone": {"name": "digits_vit", "weights": "w" * 64},
            "data": {"content": "d" * 64, "labels": "l" * 64},
        },
        "label": name,
        "method": {"name": name, "options": options or {}},
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


def cell(name, top1, gmacs, options=None, label=None, predictions=None, **changes):
    """A row with its record, and predictions if they are given."""
    made = record(name, top1, gmacs, options)
    reads = None if predictions is None else lambda: predictions
    values = {"paper_method": None, "ours": False, "throughput": None} | changes
    return Result(label or name, accuracy=made, predictions=reads, **values)


DENSE = cell("dense", 90.0, 2.0, label="Dense", predictions=frame())
