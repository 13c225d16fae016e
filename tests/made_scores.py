"""Hand-made results of several benchmarks, for tests of the table over them."""

import functools
from dataclasses import replace
from typing import Any

from made_questions import asked

from asap.report.result import Result

MODEL = "llava:llava-1.5-7b-hf"
FULL = {  # what the paper prints of the full model; made here with a deviation where a test says so
    "gqa": 61.9, "mme": 1862.0, "pope": 85.9, "scienceqa": 69.5, "vizwiz": 54.3, "vqav2": 78.5,
    "mmbench": 64.7,
}  # fmt: skip
SPLITS = {"vqav2": "test-dev"}


def row(data: str, label: str, score: float | None, rows: float = 576.0, **about: Any) -> Result:
    """A row of a benchmark; about: of its `BenchmarkScore`, and `paper`, its row in the paper."""
    paper = about.pop("paper", None)
    name = "dense" if label == "Full" else "tome"
    made = replace(_asked(name, rows), label=label)
    number = {
        "name": data, "split": SPLITS.get(data, "test"), "metric": f"the metric of {data}",
        "score": score, "lo": None if score is None else score - 1,
        "hi": None if score is None else score + 1, "n": 100, "n_expected": 100,
        "status": "not scored here" if score is None else "scored", "parts": {}, **about,
    }  # fmt: skip
    identity = made.measured["identity"] | {"data": {"content": data, "labels": data}}
    record = {
        **made.measured, "questions": {**made.measured["questions"], "benchmark": number},
        "identity": identity, "backbone": MODEL, "data": f"{data}, 100 questions",
        "key": f"{data}-{label}-{score}", "label": label,
    }  # fmt: skip
    found = made.with_records(accuracy=record)
    return replace(found, data=data, on=MODEL, paper_method=paper)


@functools.cache
def _asked(name: str, rows: float) -> Result:
    return asked(name, name, set(), rows)


def lost(data: str, label: str, reason: str) -> Result:
    """A row of a benchmark that was not measured."""
    return Result(label, reason=reason, on=MODEL, data=data)


def paper_block(columns: dict[str, str], **away: float) -> list[Result]:
    """Rows with the paper's own numbers of some benchmarks, {name: column}; away: added to ours."""
    from asap.report.paper import paper_table

    found = []
    for printed in paper_table("llava15"):
        label = (
            "Full" if "Full" in printed["method"] else f"{printed['method']}, {printed['tokens']}"
        )
        for data, column in columns.items():
            score = float(printed[column]) + away.get(data, 0.0)
            rows = float(printed["tokens"])
            name = None if label == "Full" else label
            found.append(row(data, label, score, rows, paper=name))
    return found
