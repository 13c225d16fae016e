"""Hand-made results of questions, for tests of tables and figures."""

from typing import Any

import pandas as pd
from made import NAN, cell

from asap.report.result import Result
from asap.report.statistics import share_interval

LAYERS, PATCHES, TEXT = 2, 64, 12
ASKED = (  # category, subset, right answer
    ("presence", "random", "yes"),
    ("presence", "popular", "no"),
    ("count", "", "two"),
)


def answers(wrong: set[int], pictures: int = 4, **columns: Any) -> pd.DataFrame:
    """Three questions about each picture, all answered right but those at the positions `wrong`."""
    asked = [(i, *one) for i in range(pictures) for one in ASKED]
    right = [answer for *_, answer in asked]
    other = {"yes": "no", "no": "yes", "two": "one"}
    said = [other[a] if i in wrong else a for i, a in enumerate(right)]
    n = len(asked)
    values = {
        "index": range(n), "id": range(100, 100 + n), "path": [f"scene {i}" for i, *_ in asked],
        "cluster": [i for i, *_ in asked], "n": [1] * n, "error": [None] * n,
        "category": [c for _, c, _, _ in asked], "subset": [s for _, _, s, _ in asked],
        "kind": ["yes_no" if c == "presence" else "exact" for _, c, _, _ in asked],
        "question": [f"is it {i} {c} {s} ?" for i, c, s, _ in asked],
        "answers": [[a] for a in right], "text": said, "said": said,
        "score": [float(a == b) for a, b in zip(said, right, strict=True)],
        "gap": [1.0 + i for i in range(n)], "visual_rows": [PATCHES] * n,
        "yes_no_gap": [(1.0 + i) * (1 if s == "yes" else -1) for i, s in enumerate(said)],
        "finite": [1] * n, "cut": [0] * n,
        "object_recall": [NAN] * n, "sink_on_object": [NAN] * n,
    }  # fmt: skip
    return pd.DataFrame({**values, **columns})


def asked(
    name: str,
    label: str,
    wrong: set[int],
    rows: float = 64.0,
    stage: str = "vision",
    options: dict[str, Any] | None = None,
) -> Result:
    """A row with its record and answers; its costs are in proportion to its visual `rows`."""
    found = answers(wrong)
    known = found["score"]
    score, made = 100 * known.mean(), cell(name, 0.0, 1.0, label=label)
    method = {"name": name, "options": options or {}, "version": 1}
    dense = {"name": "dense", "options": {}, "version": 1}
    methods = {"vision": method} if stage == "vision" else {"vision": dense, stage: method}
    identity = {**made.measured["identity"], "methods": methods}
    low, high = share_interval(known.to_numpy() == 1, found["cluster"].to_numpy())
    about = {
        "categories": {c: _share(rows_) for c, rows_ in found.groupby("category", sort=False)},
        "yes_no": {"presence": _yes_no(found[found["category"] == "presence"])},
        "average": 100 * found.groupby("category")["score"].mean().mean(),
        "pictures": found["cluster"].nunique(), "n_cut": 0, "n_empty": 0,
        "visual_rows": rows, "prompt_rows": float(TEXT), "layer_rows": [rows + TEXT] * LAYERS,
        "gmacs_tower": 1.0, "gmacs_projector": rows / 1000, "gmacs_prefill": rows / 100,
        "gmacs_vision_method": 0.001, "gmacs_language_method": 0.0, "kv_mib": rows / 64,
    }  # fmt: skip
    changes = {
        "identity": identity, "label": label, "n": len(found), "clustered": True, "top1": score,
        "top5": score, "correct1": int((known == 1).sum()), "questions": about, "backbone": "llava",
        "top1_interval": [100 * low, 100 * high], "data": "four scenes", "key": f"{label}-{score}",
        "gmacs_backbone": 1.0 + rows / 100 + rows / 1000, "tokens_mean": [65.0, 65.0],
        "metrics": {},
    }  # fmt: skip
    record = {**made.measured, **changes}
    traces = pd.DataFrame({"example": found["index"], "vision.stop_block": [0] * len(found)})
    traces["vision.tokens"] = [[PATCHES + 1, round(rows)]] * len(found)
    read = {"answers": lambda: found, "traces": lambda: traces}
    return Result(label, records={"accuracy": record}, read=read)


def _share(rows: pd.DataFrame) -> dict[str, Any]:
    score = 100 * rows["score"].mean()
    return {"score": score, "lo": score - 5, "hi": score + 5, "n": len(rows)}


def _yes_no(rows: pd.DataFrame) -> dict[str, Any]:
    groups = {str(name): group for name, group in rows.groupby("subset", sort=False)}
    return {name: _counted(group) for name, group in {"all": rows, **groups}.items()}


def _counted(rows: pd.DataFrame) -> dict[str, Any]:
    said, truth = rows["text"] == "yes", rows["answers"].str[0] == "yes"
    both = (said & truth).sum()
    f1 = 100 * 2 * both / max((said.sum() + truth.sum()), 1)
    return {
        "n": len(rows), "accuracy": 100 * (said == truth).mean(), "f1": f1, "lo": f1 - 5,
        "hi": f1 + 5, "precision": None, "recall": None, "yes_share": 100 * said.mean(),
        "labels_yes_share": 100 * truth.mean(), "n_other": 0,
    }  # fmt: skip


FULL = asked("dense", "Full", {1})
ROWS = [
    FULL,
    asked("visionzip", "VisionZip", {1, 2, 5}, 14.0),
    asked("fastv", "FastV", {2}, 40.0, stage="language"),
]
