"""Rows whose right answers only a server has: the scores of 0 in their records are not shown."""

from asap.report.benchmarks.named import named
from asap.report.benchmarks.values import score_of
from asap.report.result import Result
from asap.report.table import TableRow

SAID = "The right answers are not public: send the row's file of answers to the evaluation server."
_SCORES = ("top1", "top5", "mcnemar", "score_", "average", "relative")  # beginnings of keys
_SHOWN = ("top1", "top1_delta", "mcnemar_p", "average", "relative")


def is_unscored(result: Result) -> bool:
    """Whether the row has answers, and no number."""
    score = score_of(result)
    return score is not None and score["status"] != "scored"


def withhold(row: TableRow, result: Result) -> None:
    """Take all scores out of an unscored row, and say why."""
    if not is_unscored(result):
        return
    for key in [one for one in row.values if one.startswith(_SCORES)]:
        del row.values[key]
    score = score_of(result)
    column = [] if score is None else [named(score["name"]).column]
    row.note(SAID, *_SHOWN, *column)
