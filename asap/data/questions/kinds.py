"""The kinds of questions: which answers are possible, and how long an answer may become.

How a kind is scored: `asap/tasks/scoring`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

LEAST_ANNOTATORS = 4  # with fewer, no answer to a question of the kind vqa could be fully right


@dataclass(frozen=True)
class Kind:
    """read: the right answers as they are compared; ValueError, with what to give, if they are
    impossible. max_new_tokens: at which an answer is cut. version: of its rule, part of the key of
    records: raised when an answer's score changes.
    """

    read: Callable[[Sequence[str]], tuple[str, ...]]
    max_new_tokens: int = 16
    version: int = 1


def _yes_no(answers: Sequence[str]) -> tuple[str, ...]:
    found = tuple(answer.strip().lower() for answer in answers)
    if found not in (("yes",), ("no",)):
        raise ValueError('give "yes" or "no"')
    return found


def _letters(answers: Sequence[str]) -> tuple[str, ...]:
    found = tuple(answer.strip().upper() for answer in answers)
    if not all(len(one) == 1 and "A" <= one <= "Z" for one in found):
        raise ValueError("give the letter of an option, A to Z")
    return found


def _option(answers: Sequence[str]) -> tuple[str, ...]:
    letter, *options = answers
    if len(options) < 2 or letter not in [chr(ord("A") + i) for i in range(len(options))]:
        raise ValueError("give the letter of an option, then the texts of two options or more")
    return letter, *options


def _none(answers: Sequence[str]) -> tuple[str, ...]:
    if answers:
        raise ValueError("these are scored elsewhere: give another kind with answers")
    return ()


def _annotators(answers: Sequence[str]) -> tuple[str, ...]:
    if len(answers) < LEAST_ANNOTATORS:
        raise ValueError(
            f"give what each annotator answered, {LEAST_ANNOTATORS} answers or more (VQAv2 has "
            "ten), or the kind exact"
        )
    return tuple(answers)


KINDS = {
    "yes_no": Kind(_yes_no),
    "exact": Kind(tuple),
    # The letter may come after a reason. 2: neither a letter that a line end follows is read nor
    # "The answer is B" without a sign behind it.
    "letter": Kind(_letters, max_new_tokens=128, version=2),
    "scienceqa": Kind(_letters, max_new_tokens=128),  # as LLaVA's script reads it
    "vqa": Kind(_annotators, version=2),  # 2: exact tenths, where there were rounded sums
    "vqav2": Kind(_annotators, version=2),  # normalised as by VQAv2's own script; 2: as of vqa
    # Yes or no, as MME reads it. 2: as its own tool, which leaves periods in and reads no "y".
    "mme": Kind(_yes_no, version=2),
    "option": Kind(_option, max_new_tokens=128),  # its letter, or its text, as MMBench reads it
    "unscored": Kind(_none),  # a server has the right answers
}
