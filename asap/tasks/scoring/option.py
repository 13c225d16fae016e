"""An option, as MMBench is scored without a judge (Liu et al. 2023): its letter, else its text.

An answer names an option if, of its words, exactly one is a letter from A to E; an "A" among more
than three words may be an article, and names nothing. Else if a letter stands in one of the usual
marks, "B." or "(B)", and no other in the same marks. Else if the text of exactly one option is in
the answer, whatever the case. Otherwise it names nothing: never by chance.
"""

from collections.abc import Sequence

LETTERS = "ABCDE"  # MMBench reads one more than it has options
_FEW = 3  # words, among which "A" is a letter
_MARKS = (
    *(("", "."), ("", ","), ("", ":"), ("", ")"), ("", ")."), ("(", ")"), ("(", ").")),
    *((":", ""), (":", ","), (":", "."), (":", ")"), (":", ").")),
)


def named(text: str, options: Sequence[str]) -> str:
    """The letter that an answer names, which may be of no option; "" if it names none."""
    words = text.split()
    bare = [letter for letter in LETTERS if letter in words]
    if len(bare) == 1 and (bare != ["A"] or len(words) <= _FEW):
        return bare[0]
    for before, behind in _MARKS:
        marked = [letter for letter in LETTERS if f"{before}{letter}{behind}" in words]
        if len(marked) == 1:
            return marked[0]
    said = text.lower()
    held = [k for k, option in zip(LETTERS, options, strict=False) if option.lower() in said]
    return held[0] if len(held) == 1 else ""


def score(text: str, answers: Sequence[str]) -> float:
    """1 if the text names the right option, else 0.

    answers: the letter of the right one, then the texts of all.
    """
    right, *options = answers
    return float(named(text, options) == right)
