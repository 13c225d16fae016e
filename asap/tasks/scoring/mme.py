"""Yes or no, as MME's own evaluation tool reads it (Fu et al. 2023).

"yes" or "no" among the first four letters, whatever the case. Anything else is wrong, whatever is
right.
"""

from collections.abc import Sequence

from asap.tasks.scoring.yes_no import NO, OTHER, YES

_READ = 4  # letters


def said(text: str) -> str:
    """`YES`, `NO` or `OTHER`."""
    first = text.strip().lower()[:_READ]
    return YES if YES in first else NO if NO in first else OTHER


def score(text: str, answers: Sequence[str]) -> float:
    """1 if the text says the right answer, else 0."""
    return float(said(text) == answers[0])
