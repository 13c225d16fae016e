"""Questions with made answers for check_scores.py: what models say, and what no model would."""

import random
from collections.abc import Iterator, Sequence
from typing import Any

from asap.data.questions.mmbench import TURN
from asap.data.questions.mme import COGNITION, PERCEPTION

Question = dict[str, Any]  # id, picture, text, right, category, subset
WORDS = (
    "left", "red", "two", "2", "ten", "None", "1,000", "2.5", "t-shirt", "don't", "wont", "cat's",
    "black and white", "the table", "a dog", "New York", "it's", "o'clock", "10:30", "café",
    "men's", "unanswerable", "50%", "$5", "yes", "no", "stop sign", "red/white", "3 1/2", "Levi's",
)  # fmt: skip
# Between bars: what is said.
YES_NO = (
    "yes|Yes|YES|Yes.|yes,|Yes, it is.|Yes, there is a dog in the image.|no|No|NO|No.|nO|no,|"
    "No, it isn't.|No, there is no dog.|No!|no\nyes|There is not|It does not. Yes|yes no|no yes|"
    "Nope|yep|y|n|Y.|N|x|know|yesterday|I don't know|not|nothing|a dog|maybe|Yes\nNo|noon|eyes||"
    ". yes|..no|\u00a0no|no\u00a0|\uff2e\uff2f|\uff39es|\u0130yes|n\u043e|.|否|" + "yes" * 60
).split("|")
# k, w: letters of two options, l: k in lower case; o, p: their texts, O: o in capitals.
LETTERED = (
    "{k}|{k}.|{k}. {o}|{k}.{o}|{k}\n{o}|{k}. \nsince|({k})|({k}).|{k})|{k}),|{k},|{k}:|:{k}|:{k}.|"
    "{k} |{l}|{l}.|{l}. {o}|({l})|{k}{k}|{k} {o}|The answer is {k}.|The answer is {k}|"
    "The answer is {k}, since|the answer is {k}.|The answer is {k}. The answer is {w}.|"
    "The answer is {o}.|The answer is: {k}|Answer: {k}|It is {k} because of {w}|{k} or {w}|{o}|{O}|"
    "I think {o}|{o} and {p}|neither|A dog|A dog is on the mat|A {o}|E|F|E.|Option {k} is right|"
    "{k}. {p}|{p}|none of {k}, {w}|Both {k}. and {w}.|\u24b6|\uff21|é|É.|Б|{k}é|{k}\u00a0||?|{k}!|"
    "{o}. So {k}|Since it is {o}, the right one is ({k}), not ({w}).|A, B, C, D|" + "{k} " * 40
).split("|")
OPTIONS = (
    "wax", "snow", "a dog", "dog", "Asia", "Bob", "5 cm", "no", "left of it", "The cat", "CAT",
    "a.m.", "1,000", "A", "café", "Is there?", "Both",
)  # fmt: skip


def manners(right: str, wrong: str) -> list[str]:
    """Ways of saying something, or something else."""
    return [
        right, wrong, right.upper(), right.title(), right.lower(), f"{right}.", f"{right}..",
        f"{right},", f"{right}!", f"{right}?", f"the {right}", f"A {right}.", f"It is {right}.",
        f"{right}, I think", f"{right}\nsince", f"{right}\t{wrong}", f"{right} {wrong}",
        f"{right},{wrong}", f"{right}/{wrong}", f"{right}-{wrong}", f"{right}.{wrong}",
        f"{right}?{wrong}", f"{right}'s", f"'{right}'", f'"{right}"', f"({right})", f"[{right}]",
        f"an {right};", f"{right}  {wrong}", f".{right}", f"\u00a0{right}", f"{right}\u2026", "",
        f"{right}\u0301", f"İ{right}", "日本語", "...", "." * 40, f"{right} " * 60, "🐕", "ß", "\\",
    ]  # fmt: skip


def nearly(rng: random.Random, text: str) -> str:
    """The text in another spelling, which a rule may or may not take for the same."""
    spellings = (
        (",", ""), (",", " "), ("?", ""), ("?", " "), ("'s", " 's"), ("'", ""), ("-", " "),
        ("-", ""), ("/", " "), (".", ""), ("the ", ""), ("two", "2"), ("ten", "10"),
        ("None", "0"), ("\n", " "), ("\t", " "), (" ", "  "), (" ", "-"), (" ", ""), (" ", ", "),
        ("nt", "n't"),
    )  # fmt: skip
    possible = [(old, new) for old, new in spellings if old in text]
    return text.replace(*rng.choice(possible)) if possible else f"{text}."


def texts(rng: random.Random, pieces: Sequence[str], n: int) -> Iterator[str]:
    """Pieces put together at random, with and without blanks."""
    joints = (" ", " ", "", ". ", ".", ",", "\n", " - ", "/")
    for _ in range(n):
        found = ""
        for _ in range(rng.randrange(1, 6)):
            found += rng.choice(pieces) + rng.choice(joints)
        yield found


def yes_no(rng: random.Random, names: Sequence[str], of_mme: bool) -> list[Question]:
    """Each text once for either right answer. names: subsets of POPE, or categories of MME."""
    said = [*YES_NO, *texts(rng, YES_NO, 150)]
    pairs = [(text, right) for text in said for right in ("yes", "no")]
    usual = [(right.title(), right) for right in ("yes", "no") for _ in range(200)]
    both = [one for pair in zip(usual[:200], usual[200:], strict=True) for one in pair]
    found = []
    for i, (text, right) in enumerate([*pairs, *both]):
        name = names[i // 2 % len(names)]
        found.append(_question(f"q{i}", f"p{i // 2}", text, [right]))
        found[-1]["category" if of_mme else "subset"] = name
    return found


def exact(rng: random.Random) -> list[Question]:
    """GQA."""
    said = [(text, w) for w in WORDS for text in manners(w, rng.choice(WORDS))]
    said += [(text, rng.choice(WORDS)) for text in texts(rng, WORDS, 150)]
    return [_question(f"q{i}", f"p{i // 3}", text, [w]) for i, (text, w) in enumerate(said)]


def letters(rng: random.Random) -> list[Question]:
    """ScienceQA."""
    found = []
    for right in "ABCDE":
        for i, text in enumerate([*LETTERED, *texts(rng, LETTERED, 40)]):
            said = _filled(rng, text, right, rng.sample(OPTIONS, 5))
            found.append(_question(f"{right}{i}", f"p{i}", said, [right]))
    return found


def annotated(rng: random.Random, words: Sequence[str]) -> list[Question]:
    """VizWiz and VQAv2: ten annotators, of whom some mean the same. words: treated specially."""
    said = [(text, w) for w in WORDS for text in manners(w, rng.choice(WORDS))]
    said += [(text, rng.choice(words)) for word in words for text in (word, f"the {word}s,{word}?")]
    said += [(text, text) for text in texts(rng, [*WORDS, *words], 400)]
    found = []
    for i, (text, word) in enumerate(said):
        near = (text, word, nearly(rng, text), nearly(rng, text), nearly(rng, word))
        same = rng.choice((*range(11), 10))
        others = [rng.choice(manners(word, rng.choice(WORDS))) for _ in range(10 - same)]
        given = [rng.choice(near) for _ in range(same)] + others
        if rng.random() < 0.1:  # all wrote the same
            given = [rng.choice(near)] * 10
        found.append(_question(f"q{i}", f"p{i // 2}", text, given))
    return found


def turned(rng: random.Random) -> list[Question]:
    """MMBench: each question in every turn of its two to four options."""
    found = []
    said = [*LETTERED, *texts(rng, LETTERED, 100)]
    for number in range(400):
        options = rng.sample(OPTIONS, rng.randrange(2, 5))
        right = rng.choice(options)
        for turn in range(len(options)):
            order = options[turn:] + options[:turn]
            letter = "ABCD"[order.index(right)]
            usual = number % 2 and rng.random() < 0.9
            text = _filled(rng, "{k}" if usual else rng.choice(said), letter, order)
            found.append(_question(number + TURN * turn, f"p{number}", text, [letter, *order]))
    return found


def made(seed: int, words: Sequence[str]) -> dict[str, list[Question]]:
    """Task -> questions with answers; the same for the same seed and words."""
    rng = random.Random(seed)
    return {
        "pope": yes_no(rng, ("random", "popular", "adversarial"), of_mme=False),
        "gqa": exact(rng),
        "mme": yes_no(rng, (*PERCEPTION, *COGNITION), of_mme=True),
        "scienceqa": letters(rng),
        "vizwiz": annotated(rng, words),
        "vqav2": annotated(rng, words),
        "mmbench": turned(rng),
    }


def _filled(rng: random.Random, text: str, right: str, options: Sequence[str]) -> str:
    """A pattern of an answer with its letters and options; half of them name a wrong one."""
    letters = "ABCDE"[: len(options)]
    wrong = rng.choice(letters.replace(right, ""))
    named, other = (right, wrong) if rng.random() < 0.5 else (wrong, right)
    option, second = (options[letters.index(one)] for one in (named, other))
    signs = {"{k}": named, "{l}": named.lower(), "{w}": other, "{o}": option, "{p}": second}
    for sign, meant in {**signs, "{O}": option.upper()}.items():
        text = text.replace(sign, meant)
    return text


def _question(id: str | int, picture: str, text: str, right: list[str]) -> Question:
    """Texts are stripped, as both programs strip what a model says."""
    return {
        "id": id, "picture": picture, "text": text.strip(), "right": right,
        "category": "all", "subset": "",
    }  # fmt: skip
