"""The number of a benchmark as values of a row, by the paper's name of its column."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from asap.records.question_schema import BenchmarkScore
from asap.report.benchmarks.named import Benchmark, named
from asap.report.result import Result

_COUNTS = re.compile(r"(, [\d,]+ (of them|questions)|;).*")  # how many, in a description


def score_of(result: Result) -> BenchmarkScore | None:
    """The number of a row's questions; of questions of one's own their mean score. None without a
    record of questions.
    """
    record = result.accuracy
    if record is None or "questions" not in record:
        return None
    if (found := record["questions"].get("benchmark")) is not None:
        return found
    low, high = record["top1_interval"]
    return BenchmarkScore(
        name=_COUNTS.sub("", record["data"]), split="", metric="mean score", score=record["top1"],
        lo=low, hi=high, n=record["n"], n_expected=None, status="scored", parts={},
    )  # fmt: skip


def values_of(score: Mapping[str, Any]) -> dict[str, int | float]:
    """The numbers of a `BenchmarkScore` by key; those that are not known are left out."""
    column = named(score["name"]).column
    found = {column: score["score"], f"{column}_n": score["n"]}
    found |= {f"{column}_{end}": score[end] for end in ("lo", "hi")}
    found |= {part_key(column, part): value for part, value in score["parts"].items()}
    return {name: value for name, value in found.items() if value is not None}


def part_key(column: str, part: str) -> str:
    """The key of a part of a number, such as that of a category."""
    return f"{column}_{re.sub(r'[^a-z0-9]+', '_', part.lower())}"


def delta_keys(data: str) -> tuple[str, str, str]:
    """The keys of the difference of its number to the unreduced row's, and of the interval."""
    key = f"{named(data).column}_delta"
    return key, f"{key}_lo", f"{key}_hi"


def shown(one: Benchmark, interval: bool = True) -> Callable[[Mapping[str, Any]], str | None]:
    """What a cell of the benchmark shows of a row's values: its number, with its interval."""

    def text(values: Mapping[str, Any]) -> str | None:
        if (number := values.get(one.column)) is None:
            return None
        low, high = (values.get(f"{one.column}_{end}") for end in ("lo", "hi"))
        if not interval or low is None or high is None:
            return f"{number:{one.spec}}"
        return f"{number:{one.spec}} [{low:{one.spec}}, {high:{one.spec}}]"

    return text
