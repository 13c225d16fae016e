"""The letter of an option, of questions of one's own: by three patterns, never by chance.

An answer names an option if it is a bare letter ("B"), if it begins with a letter and a period ("B.
the cat"), or if it has the sentence form once, with a sign behind it ("The answer is B.").
Lower-case letters name nothing. ScienceQA has a rule of its own, as LLaVA's script has it.
"""

import re
from collections.abc import Sequence

_BEGINS = re.compile(r"([A-Z])(?:\.|\Z)")
_SENTENCE = re.compile(r"The answer is ([A-Z])(.)")


def named(text: str) -> str:
    """The letter that an answer names, "" if it names none."""
    text = text.strip()
    if begins := _BEGINS.match(text):
        return begins[1]
    found = _SENTENCE.findall(text)
    return found[0][0] if len(found) == 1 and not found[0][1].isalnum() else ""


def score(text: str, answers: Sequence[str]) -> float:
    """1 if the text names a right letter, else 0."""
    return float(named(text) in answers)
