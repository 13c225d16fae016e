"""The letter of an option, as ScienceQA is scored for LLaVA: by three patterns, never by chance.

An answer names an option if its first line is a bare letter ("B"), if it begins with a letter and a
period ("B. the cat"), or has the sentence form once ("The answer is B."). Lower-case letters name
nothing. LLaVA's own pattern of the sentence form takes the first letter of a word too ("The answer
is Boston"); here the letter stands alone.
"""

import re
from collections.abc import Sequence

_BEGINS = re.compile(r"([A-Z])(?:[.\n]|$)")
_SENTENCE = re.compile(r"The answer is ([A-Z])\b")


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
