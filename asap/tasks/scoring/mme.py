"""Yes or no, as MME reads it (Fu et al. 2023), by its evaluation tool as lmms-eval has it.

An answer without its periods is "yes" or "no", or its first four letters have the one or the other;
of a single letter "y" or "n". Anything else is wrong, whatever is right. MME's own script leaves
periods where they are and reads no single letter.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from asap.tasks.scoring.yes_no import NO, OTHER, YES

_READ = 4  # letters
MOST = 200.0  # points of a category


def said(text: str) -> str:
    """`YES`, `NO` or `OTHER`."""
    plain = text.lower().strip().replace(".", "")
    if len(plain) == 1:
        return {"y": YES, "n": NO}.get(plain, OTHER)
    first = plain[:_READ]
    return YES if YES in first else NO if NO in first else OTHER


def score(text: str, answers: Sequence[str]) -> float:
    """1 if the text says the right answer, else 0."""
    return float(said(text) == answers[0])


def points(
    counts: Int[np.ndarray, "*draws categories 4"],
) -> Float[np.ndarray, "*draws categories"]:
    """Each category's points, of `MOST`: right questions plus pictures with both right, in percent.

    counts: right questions, questions, pictures with both right, pictures. NaN without questions.
    """
    right, questions, both, pictures = np.moveaxis(counts, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return 100 * right / questions + 100 * both / pictures
