"""Yes/no questions that one of two rows answers right and the other wrong (Appendix K)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from asap.errors import counted
from asap.records.question_schema import NO, OTHER
from asap.report.answer_text import answer_text
from asap.report.result import Result, pairable
from asap.report.statistics import (
    PairedDifference,
    are_questions,
    finite,
    matched,
    paired_difference,
    scores,
)

CORRECTED, CORRUPTED = "corrected", "corrupted"
NEGATIVE, POSITIVE, NEITHER = "false negative", "false positive", "answer of neither"
YES_NO = ("yes_no", "mme")  # kinds of questions, by the rules of their scores
_KIND = ["flip", "error"]
_OF_BOTH = {"text": "said", "yes_no_gap": "gap", "visual_rows": "rows"}
RULE = (
    "Of each kind in turn the flips whose difference of the logits of yes and no moved the most; "
    "no picture twice."
)


@dataclass(frozen=True)
class Flips:
    """How a second row answers yes/no questions that a first row answers too.

    paired: of all yes/no questions to which both answers are finite; b and c are the corrupted and
    the corrected ones. questions: these, one a row, with the columns flip (`CORRECTED`: only the
    second is right, `CORRUPTED`: only the first), error (of the wrong answer: `NEGATIVE` where yes
    is right, else `POSITIVE`; `NEITHER` if it says neither yes nor no, which MME counts as wrong
    and POPE reads as yes), index (in the second row's data), id, cluster, path, category,
    subset, question, answer (the right one), and of both rows, ending in _before and _after: said
    (the answer), gap (the first word's logit of yes minus that of no, NaN if not known), rows (sent
    to the language model). They stand by flip and error, then by the change of the gap, the largest
    first.
    """

    paired: PairedDifference
    questions: pd.DataFrame

    def count(self, flip: str, error: str) -> int:
        """The number of flips of a kind."""
        both = (self.questions["flip"] == flip) & (self.questions["error"] == error)
        return int(both.sum())


def flips_of(first: Result, second: Result) -> Flips | None:
    """The flips from the first row to the second; None without yes/no questions.

    An answer that is not finite is a failure of the precision, and no flip. RequestError if the
    rows are not over the same questions, ValueError if one has no answers.
    """
    one, two = pairable(first), pairable(second)
    if not are_questions(one) or not are_questions(two):
        return None
    one, two = (frame[frame["kind"].isin(YES_NO)] for frame in (one, two))
    if one.empty or two.empty:
        return None
    one, two = matched(one, two)
    both = finite(one) & finite(two)
    if not both.any():
        return None
    one, two = one[both], two[both]
    paired = paired_difference(one, two, bool(first.measured["clustered"]))
    return Flips(paired, _questions(one, two))


def _questions(one: pd.DataFrame, two: pd.DataFrame) -> pd.DataFrame:
    before, after = scores(one), scores(two)
    flipped = before != after
    one, two, after = one[flipped], two[flipped], after[flipped]
    right = [str(answers[0]) for answers in one["answers"]]
    frame = two[["index", "id", "cluster", "path", "category", "subset", "question"]]
    frame = frame.reset_index(drop=True)
    frame["flip"] = np.where(after == 1, CORRECTED, CORRUPTED)
    wrong = np.where(after == 1, one["said"], two["said"])
    neither = (wrong == OTHER) & (two["kind"].to_numpy(object) == "mme")
    error = np.where(np.array(right, object) == NO, POSITIVE, NEGATIVE)
    frame["error"] = np.where(neither, NEITHER, error)
    frame["answer"] = right
    for column, name in _OF_BOTH.items():
        frame[f"{name}_before"], frame[f"{name}_after"] = (f[column].to_numpy() for f in (one, two))
    moved = -(frame["gap_after"] - frame["gap_before"]).abs().astype(np.float64)
    order = frame.assign(moved=moved).sort_values([*_KIND, "moved", "index"], ignore_index=True)
    return order.drop(columns="moved")


def chosen(questions: pd.DataFrame, count: int) -> pd.DataFrame:
    """At most `count` flips to be shown, by `RULE`, in the order in which they stand."""
    turn = questions.groupby(_KIND).cumcount()
    in_turn = questions.assign(turn=turn).sort_values("turn", kind="stable")
    shown = in_turn.drop_duplicates("cluster").head(count)
    return shown.sort_index().drop(columns="turn")


def in_words(found: Flips, first: str, second: str) -> str:
    """Both directions in a sentence; first, second: what the rows are called."""

    def kinds(flip: str, new: str = "") -> str:
        counts = {e: found.count(flip, e) for e in (NEGATIVE, POSITIVE, NEITHER)}
        told = [_counted(n, new + e) for e, n in counts.items() if n or e != NEITHER]
        return f"{', '.join(told[:-1])} and {told[-1]}"

    paired = found.paired
    return (
        f"Of {paired.n:,} yes/no questions, {second} corrects {_counted(paired.c, 'answer')} of "
        f"{first} ({kinds(CORRECTED)}) and corrupts {paired.b:,} ({kinds(CORRUPTED, 'new ')}); "
        f"McNemar's exact p = {paired.p:.3g}."
    )


def _counted(n: int, thing: str) -> str:
    return counted(n, thing, thing.replace("answer", "answers") if "answer" in thing else None)


def all_flips(results: Sequence[Result]) -> list[tuple[Result, Flips]]:
    """Each reducing row and its flips from the unreduced row of its backbone and data, in order;
    without rows that lack that or have no yes/no questions.
    """
    rows = [row for row in results if row.has_answers and "questions" in row.measured]
    full = {_asked_of(row): row for row in reversed(rows) if row.is_dense}
    reducing = [row for row in rows if not row.is_dense and _asked_of(row) in full]
    found = ((row, flips_of(full[_asked_of(row)], row)) for row in reducing)
    return [(row, flips) for row, flips in found if flips is not None]


def _asked_of(row: Result) -> tuple[str | None, ...]:
    """The backbone, and the digests of the questions and of their right answers."""
    asked = row.measured["identity"]["data"]
    return row.backbone, *(str(asked[name]) for name in sorted(asked))


def to_csv(rows: Sequence[tuple[Result, Flips]]) -> str:
    """All flips of these rows, one a line, in their order; texts on one line each."""
    frames = [found.questions.assign(model=row.backbone, row=row.label) for row, found in rows]
    frame = pd.concat(frames, ignore_index=True)
    for name in ("question", "answer", "said_before", "said_after"):
        frame[name] = frame[name].map(answer_text)
    of_both = [f"{name}_{when}" for name in _OF_BOTH.values() for when in ("before", "after")]
    about = ["index", "id", "path", "category", "subset", "question", "answer"]
    return frame[["model", "row", *_KIND, *about, *of_both]].to_csv(
        index=False, float_format="%.4f", lineterminator="\n"
    )
