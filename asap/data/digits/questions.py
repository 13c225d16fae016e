"""Questions about scenes of several digits, each with an answer of one word.

Presence is asked as POPE does (Li et al., "Evaluating Object Hallucination in Large Vision-Language
Models", EMNLP 2023): as often about a digit that is there as about one that is not, and the absent
one is chosen by one of three rules, the subsets:

- random: any absent digit;
- popular: one of the three most frequent classes among the absent ones;
- adversarial: the absent digit that is confused most easily with one that is there.
"""

from dataclasses import dataclass

import numpy as np

from asap.data.digits.render import random_numbers
from asap.data.digits.several import BY_FREQUENCY, GENERATOR_VERSION, SeveralDigits, several

CATEGORIES = ("presence", "count", "leftmost", "rightmost", "largest", "relation")
SUBSETS = ("random", "popular", "adversarial")
NUMBERS = ("zero", "one", "two", "three")
# For each class the three nearest others, by the distance of the means of the training digits'
# 8 x 8 pixels, the nearest first. At most two of them can be in a scene with their class.
CONFUSED = (
    (9, 8, 6), (8, 4, 2), (8, 3, 1), (9, 8, 2), (1, 6, 8),
    (8, 9, 3), (4, 8, 1), (8, 1, 5), (1, 9, 2), (3, 8, 5),
)  # fmt: skip
# All words of questions and answers, in lower case, with punctuation apart.
WORDS = (
    *"0123456789", "yes", "no", *NUMBERS, "is", "there", "a", "how", "many", "digits", "are",
    "which", "digit", "leftmost", "rightmost", "largest", "left", "of", "in", "the", "picture",
    "column",
    "?", ":", ".", "user", "assistant",
)  # fmt: skip

_QUESTIONS = 4  # the kind of what is drawn, see several.py


@dataclass(frozen=True)
class DigitQuestion:
    """One question about a scene.

    `category` is one of `CATEGORIES`; `subset` is one of `SUBSETS` for presence, else "". `text` is
    the question, `answer` the word that answers it: yes or no, a number in words for counts, a
    digit for leftmost, rightmost and largest.
    """

    category: str
    subset: str
    text: str
    answer: str


def questions_of(split: str, seed: int, index: int) -> tuple[DigitQuestion, ...]:
    """All questions about scene `index` of a split: seven, and relation if it has two digits.

    Of neighbouring scenes, one has yes where the other has no. Raises ValueError on an unknown
    split.
    """
    scene = several(split, seed, index)
    rng = random_numbers(GENERATOR_VERSION, _QUESTIONS, split, seed, index)
    questions = [
        presence(_asked(rng, scene, subset, there=(index + place) % 2 == 0), scene, subset)
        for place, subset in enumerate(SUBSETS)
    ]
    questions += [count(scene), leftmost(scene), rightmost(scene), largest(scene)]
    if len(scene.labels) > 1:
        a, b = (int(i) for i in rng.choice(len(scene.labels), 2, replace=False))
        if (scene.centres[a][0] < scene.centres[b][0]) != (index % 2 == 0):
            a, b = b, a
        questions.append(relation(scene, a, b))
    return tuple(questions)


def presence(label: int, scene: SeveralDigits, subset: str = "") -> DigitQuestion:
    """Whether a digit of the class `label` is there."""
    answer = "yes" if label in scene.labels else "no"
    return DigitQuestion("presence", subset, f"Is there a digit {label}?", answer)


def count(scene: SeveralDigits) -> DigitQuestion:
    """How many digits there are."""
    return DigitQuestion("count", "", "How many digits are there?", NUMBERS[len(scene.labels)])


def leftmost(scene: SeveralDigits) -> DigitQuestion:
    """The digit whose centre is farthest to the left."""
    return _which(scene, "leftmost", [-x for x, _ in scene.centres])


def rightmost(scene: SeveralDigits) -> DigitQuestion:
    """The digit whose centre is farthest to the right."""
    return _which(scene, "rightmost", [x for x, _ in scene.centres])


def largest(scene: SeveralDigits) -> DigitQuestion:
    """The digit with the longest edge."""
    return _which(scene, "largest", list(scene.edges))


def relation(scene: SeveralDigits, a: int, b: int) -> DigitQuestion:
    """Whether the scene's digit number `a` has its centre to the left of that of number `b`."""
    text = f"Is the {scene.labels[a]} left of the {scene.labels[b]}?"
    answer = "yes" if scene.centres[a][0] < scene.centres[b][0] else "no"
    return DigitQuestion("relation", "", text, answer)


def _which(scene: SeveralDigits, category: str, values: list[float]) -> DigitQuestion:
    """The class of the digit with the highest value."""
    answer = str(scene.labels[int(np.argmax(values))])
    return DigitQuestion(category, "", f"Which digit is {category}?", answer)


def _asked(rng: np.random.Generator, scene: SeveralDigits, subset: str, there: bool) -> int:
    """The class that presence is asked about: one that is there, or an absent one by the rule."""
    if there:
        return int(rng.choice(scene.labels))
    absent = [label for label in BY_FREQUENCY if label not in scene.labels]
    if subset == "adversarial":
        present = int(rng.choice(scene.labels))
        return next(label for label in CONFUSED[present] if label in absent)
    return int(rng.choice(absent[:3] if subset == "popular" else absent))
