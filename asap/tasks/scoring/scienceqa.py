"""The letter of an option, as LLaVA's script reads answers to ScienceQA, but never by chance.

An answer names an option if it is a bare letter, A to E, if it begins with one, a period and a
blank ("B. the cat"), or if it has the sentence form once, with a sign behind the letter ("The
answer is B."). Unlike `letter.py` it does not read "B." alone, and reads B of "The answer is Bo".
"""

import re
from collections.abc import Sequence

_BEGINS = re.compile(r"([A-E])(?:\. |\Z)")
_SENTENCE = re.compile(r"The answer is ([A-Z]).")


def named(text: str) -> str:
    """The letter that an answer names, "" if it names none."""
    text = text.strip()
    if begins := _BEGINS.match(text):
        return begins[1]
    found = _SENTENCE.findall(text)
    return found[0] if len(found) == 1 else ""


def score(text: str, answers: Sequence[str]) -> float:
    """1 if the text names a right letter, else 0."""
    return float(named(text) in answers)
