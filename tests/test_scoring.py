"""The rules by which answers in words are scored, beside the official ones written apart."""

import random
import re
import statistics
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference import scores_ref as ref

from asap.data.questions.kinds import KINDS
from asap.report.statistics import wilson_interval
from asap.report.yes_no import DRAWS, Counts, f1_draws, f1_interval
from asap.tasks.scoring import exact, letter, scienceqa, vqa, yes_no
from asap.tasks.scoring.rules import RULES


def test_every_kind_of_question_has_a_rule() -> None:
    assert RULES.keys() == KINDS.keys()


# ---- yes or no


def official_pope(text: str) -> str:
    """What POPE's evaluation makes of a text: scanned letter by letter instead of split."""
    words, word = set(), ""
    for sign in text:
        if sign == ".":
            break
        if sign == " ":
            words.add(word)
            word = ""
        elif sign != ",":
            word += sign
    return "no" if {"No", "not", "no"} & {*words, word} else "yes"


PIECES = ["yes", "Yes", "no", "No", "NO", "not", "nothing", ",", ".", " ", "  ", "\n", "a dog", "!"]
sentences = st.lists(st.sampled_from(PIECES), max_size=8).map("".join) | st.text(max_size=20)


@given(sentences)
@example("Yes.")
@example("")
@example("no,")
@example("Yes. No")
@settings(max_examples=300, deadline=None)
def test_yes_and_no_are_read_as_in_pope(text: str) -> None:
    official = official_pope(text)
    assert (yes_no.said(text) == "no") == (official == "no")
    assert [yes_no.score(text, [right]) for right in ("yes", "no")] == [
        float(official == right) for right in ("yes", "no")
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [("Yes.", "yes"), ("yes, there is", "yes"), ("YES!", "yes"), ("no", "no"), ("No, yes", "no"),
     ("There is not. yes", "no"), ("a dog", "other"), ("", "other"), ("Maybe. yes", "other"),
     ("eyes", "other"), ("nothing", "other")],
)  # fmt: skip
def test_what_an_answer_says(text: str, said: str) -> None:
    assert yes_no.said(text) == said


# ---- exact


@pytest.mark.parametrize(
    ("text", "answers", "expected"),
    [("Left.", ["left"], 1), ("left", ["right", "left"], 1), ("left side", ["left"], 0),
     (" 3 ", ["3"], 1), ("three", ["3"], 0), ("", ["left"], 0), (".left", ["left"], 0),
     ("LEFT", ["Left."], 1)],
)  # fmt: skip
def test_exact_words(text: str, answers: list[str], expected: int) -> None:
    assert exact.score(text, answers) == expected


# ---- letters


@pytest.mark.parametrize(
    ("text", "found"),
    [("B", "B"), (" B\n", "B"), ("B.", "B"), ("B. the cat", "B"), ("B.\nbecause", "B"),
     ("B\nbecause", ""), ("The answer is B.", "B"), ("I think. The answer is B", ""), ("b", ""),
     ("I think the answer. The answer is B, since", "B"), ("A dog", ""), ("BC", ""), ("", ""),
     ("The answer is Boston.", ""), ("The answer is A. The answer is B.", ""), ("(B)", ""),
     ("The answer is A. The answer is Boston.", ""), ("It is C. no", "")],
)  # fmt: skip
def test_the_letter_that_an_answer_names(text: str, found: str) -> None:
    assert letter.named(text) == found
    assert letter.score(text, ["B"]) == float(found == "B")


LETTERED = ["A", "B", "b", "C", ".", ". ", " ", "\n", ",", "The answer is ", "oston", "é", "9", ")"]
lettered = st.lists(st.sampled_from(LETTERED), max_size=6).map("".join).map(str.strip)


@given(lettered)
@example("The answer is B")
@example("The answer is B.")
@settings(max_examples=300, deadline=None)
def test_where_both_scripts_read_the_same_letter_so_do_we(text: str) -> None:
    """Scored are the right answers A to C; of two that disagree this rule is with one."""
    for right in "ABC":
        scripts = {float(read(text) == right) for read in (ref.llava_letter, ref.lmms_letter)}
        assert letter.score(text, [right]) in scripts


@given(lettered)
@example("B.")
@example("B. the cat")
@example("The answer is Boston")
@example("The answer is B")
@example("F. No, the answer. The answer is B.")
@settings(max_examples=300, deadline=None)
def test_scienceqa_is_read_as_by_llavas_script(text: str) -> None:
    assert scienceqa.named(text) == ref.llava_letter(text)
    assert scienceqa.score(text, ["B"]) == float(ref.llava_letter(text) == "B")


# ---- agreement with annotators

NUMBERS = {
    "none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5",
    "six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10",
}  # fmt: skip
# As the official list has them: what is replaced, and by what.
CONTRACTED = {
    "aint": "ain't", "dont": "don't", "couldn'tve": "couldn't've", "couldnt've": "couldn't've",
    "oclock": "o'clock", "twas": "'twas", "y'alld've": "y'all'd've", "yall'd've": "y'all'd've",
    "somebody'd": "somebodyd", "whos": "who's", "theres": "there's", "itd": "it'd", "im": "im",
    "ow's'at": "'ow's'at", "ive": "ive", "shes": "shes", "lets": "lets", "youve": "you've",
}  # fmt: skip


def official_words(text: str, evalai: bool = True) -> str:
    """EvalAI's normalisation, step by step over lists of signs; VQAv2's lacks the first step."""
    if evalai:
        text = re.sub("[,?]", "", text.lower()).replace("'s", " 's").strip()
    text = text.replace("\n", " ").replace("\t", " ").strip()
    grouped = re.search(r"\d,+\d", text) is not None
    signs = list(text)
    for mark in ';/[]"{}()=+\\_-><@`,?!':
        near = any({a, b} == {mark, " "} for a, b in pairwise(text))
        signs = [("" if near or grouped else " ") if s == mark else s for s in signs]
    text, left, kept = "".join(signs), 32, []
    for i, sign in enumerate(text):
        digit = i + 1 < len(text) and re.match(r"\d", text[i + 1]) is not None
        if sign == "." and not digit and left:
            left -= 1
        else:
            kept.append(sign)
    words = [NUMBERS.get(word, word) for word in "".join(kept).lower().split()]
    words = [word for word in words if word not in ("a", "an", "the")]
    return " ".join(CONTRACTED.get(word, word) for word in words)


def official_accuracy(text: str, answers: list[str], evalai: bool = True) -> Fraction:
    said, *given = (official_words(one, evalai) for one in (text, *answers))
    shares = []
    for i in range(len(given)):
        others = given[:i] + given[i + 1 :]
        shares.append(min(Fraction(1), Fraction(sum(one == said for one in others), 3)))
    return statistics.mean(shares)


PARTS = [*CONTRACTED, *NUMBERS, "a", "the", "cat", "Cat's", " ", " ", "-", "?", ",", ".", "1", "'",
         "2.5", "1,000", "/", "!", ";", "\t", "\n", "..."]  # fmt: skip
phrases = st.lists(st.sampled_from(PARTS), max_size=7).map("".join)


@given(phrases, st.lists(phrases, min_size=10, max_size=10), st.integers(0, 9))
@settings(max_examples=100, deadline=None)
def test_agreement_is_that_of_the_official_script(text: str, given_: list[str], same: int) -> None:
    assert vqa.normalised(text) == official_words(text)
    answers = [text] * same + given_[same:]
    assert vqa.score(text, answers) == pytest.approx(float(official_accuracy(text, answers)))
    assert vqa.normalised_vqav2(text) == official_words(text, evalai=False)
    found = float(official_accuracy(text, answers, evalai=False))
    assert vqa.score_vqav2(text, answers) == pytest.approx(found)


@pytest.mark.parametrize(
    ("right", "expected"), [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (10, 1.0)]
)
def test_how_many_of_ten_annotators_agree(right: int, expected: float) -> None:
    answers = ["The cat."] * right + [f"dog {i}x" for i in range(10 - right)]
    random.Random(0).shuffle(answers)
    assert vqa.score("cat", answers) == expected  # the very tenths


@pytest.mark.parametrize(
    ("text", "vizwiz", "vqav2"),
    [("red,white", "redwhite", "red white"), ("what's that?", "what 's that", "what's that"),
     ("whats that", "what's that", "what's that"), ("1,000?", "1000", "1000")],
)  # fmt: skip
def test_only_vizwiz_begins_with_commas_and_apostrophes(text: str, vizwiz: str, vqav2: str) -> None:
    assert vqa.normalised(text) == vizwiz
    assert vqa.normalised_vqav2(text) == vqav2


def test_more_than_32_periods_are_not_all_removed() -> None:
    assert vqa.normalised("." * 40) == official_words("." * 40) == "." * 8


# ---- F1


def test_counts_of_yes_and_no() -> None:
    said = np.array([True, True, True, False, False, False, True])
    right = np.array([True, False, True, True, False, False, False])
    found = Counts.of(said, right)
    assert found == Counts(2, 2, 1, 2) and found.n == 7
    assert (found.precision, found.recall) == (0.5, pytest.approx(2 / 3))
    assert found.f1 == pytest.approx(2 / (1 / found.precision + 1 / found.recall))
    assert found.accuracy == pytest.approx(4 / 7)
    assert (found.yes_share, found.labels_yes_share) == (pytest.approx(4 / 7), pytest.approx(3 / 7))


def test_without_yes_there_is_no_f1() -> None:
    no = np.zeros(4, bool)
    assert np.isnan(Counts.of(no, no).f1)
    assert Counts.of(no, ~no).f1 == 0 and np.isnan(Counts.of(no, ~no).precision)
    assert f1_interval(no, no, np.arange(4)) == (-np.inf, np.inf)


def test_the_interval_of_f1_draws_pictures_and_is_repeatable() -> None:
    rng = np.random.default_rng(5)
    right = rng.random(400) < 0.5
    said = np.where(rng.random(400) < 0.8, right, ~right)
    alone = f1_interval(said, right, np.arange(400))
    f1 = Counts.of(said, right).f1
    assert alone[0] < f1 < alone[1] and alone == f1_interval(said, right, np.arange(400))
    assert alone != f1_interval(said, right, np.arange(400), seed=1)
    four, same, pictures = (np.tile(values, 4) for values in (said, right, np.arange(400)))
    assert f1_interval(four, same, pictures) == pytest.approx(
        alone
    )  # equal questions of a picture say no more
    wide = alone[1] - alone[0]
    narrow = f1_interval(four, same, np.arange(1600))
    assert narrow[1] - narrow[0] == pytest.approx(wide / 2, rel=0.15)
    assert f1_interval(said, right, np.zeros(400)) == (-np.inf, np.inf)
    assert f1_draws(said, right, np.arange(400)).shape == (DRAWS,)
    yes = np.ones(400, bool)
    assert f1_interval(right, right, np.arange(400)) == wilson_interval(400, 400)
    assert f1_interval(yes, ~yes, np.arange(400) // 2) == wilson_interval(0, 200)
    # The spread is that of F1 over fresh samples of the same kind.
    fresh = []
    for _ in range(300):
        r = rng.random(400) < 0.5
        fresh.append(Counts.of(np.where(rng.random(400) < 0.8, r, ~r), r).f1)
    assert wide == pytest.approx(3.92 * float(np.std(fresh)), rel=0.2)
