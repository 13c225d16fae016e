"""Yes or no, as POPE reads it (Li et al. 2023), in the version of LLaVA's evaluation.

The first sentence, the text before the first period, is split at blanks after its commas are
removed. It means no if "No", "no" or "not" is among its words, and yes otherwise: also if it says
something else, or nothing.
"""

import re
from collections.abc import Sequence

from asap.records.question_schema import NO, OTHER, YES

_NEGATIONS = frozenset(("No", "no", "not"))
_YES = re.compile(r"\byes\b", re.IGNORECASE)


def said(text: str) -> str:
    """`NO` or `YES`; `OTHER` of a text that says neither word, which POPE counts as yes."""
    first = text.partition(".")[0]
    if _NEGATIONS.intersection(first.replace(",", "").split(" ")):
        return NO
    return YES if _YES.search(first) else OTHER


def score(text: str, answers: Sequence[str]) -> float:
    """1 if the text means the same as the right answer, else 0."""
    return float((said(text) == NO) == (answers[0] == NO))
