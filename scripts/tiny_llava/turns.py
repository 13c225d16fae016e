"""Questions as token ids, and several of them in one sequence after the rows of the picture.

All questions of a scene share the picture, but no question sees another: each has the positions,
and sees the rows, that it has when it is asked alone. So training is on the very prompts that are
asked later, at the cost of one sequence a scene.
"""

import re
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from asap.data.digits import questions
from asap.data.digits.questions import CONFUSED, DigitQuestion
from asap.data.digits.several import BY_FREQUENCY, SeveralDigits
from tiny_llava.model import BOS, EOS, ID, PAD
from tiny_llava.scenes import BACKGROUND, PATCH, Scenes

PREFIX = (ID[BOS], ID["user"], ID[":"])  # what precedes the picture
_END = (ID["assistant"], ID[":"])


def ids_of(text: str) -> list[int]:
    """The words of a text as ids, as the tokenizer splits it."""
    return [ID[word] for word in re.findall(r"\w+|[^\w\s]", text.lower())]


def prompt_ids(question: DigitQuestion) -> list[int]:
    """What follows the picture, up to the place of the answer."""
    return [*ids_of(question.text), *_END]


@dataclass(frozen=True)
class Turns:
    """Prompts after n rows of pictures, padded to one length m. Of b scenes.

    `ids` (b, m) int64; `positions` (b, k) and `sees` (b, 1, k, k) bool, of the k = 3 + n + m rows
    of prefix, picture and prompts; `asked` (j,) and `at` (j,): scene and place among the k rows
    from which the j words of answers are read, the word and then EOS for each prompt; `answers`
    (j,) int64.
    """

    ids: Tensor
    positions: Tensor
    sees: Tensor
    asked: Tensor
    at: Tensor
    answers: Tensor


def turns(asked: list[list[DigitQuestion]], kept: Tensor) -> Turns:
    """The questions of b scenes, one list a scene, after the rows `kept` (b, n) bool.

    The others are seen by nothing and have no position, as if they were not there.
    """
    first = len(PREFIX) + kept.shape[1]
    prompts = [[[*prompt_ids(q), ID[q.answer], ID[EOS]] for q in of_scene] for of_scene in asked]
    longest = max(sum(map(len, of_scene)) for of_scene in prompts)
    there = F.pad(F.pad(kept, (len(PREFIX), 0), value=True), (0, longest), value=True)
    before = len(PREFIX) + kept.sum(1)
    ids = torch.full((len(asked), longest), ID[PAD])
    positions = there.cumsum(1) - 1
    turn = torch.full(there.shape, -1)  # -1: what every turn sees; padding too
    found: list[tuple[int, int, int]] = []
    for i, of_scene in enumerate(prompts):
        start = 0
        for number, prompt in enumerate(of_scene):
            end = start + len(prompt)
            ids[i, start:end] = torch.tensor(prompt)
            turn[i, first + start : first + end] = number
            positions[i, first + start : first + end] = before[i] + torch.arange(len(prompt))
            found += [(i, first + end - 3, prompt[-2]), (i, first + end - 2, prompt[-1])]
            start = end
    scene, at, answers = torch.tensor(found).T
    length = there.shape[1]
    shared = torch.arange(length) < first
    same = turn[:, :, None] == turn[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    sees = (same | shared) & causal & there[:, None, :]
    return Turns(ids, positions, sees[:, None], scene, at, answers)


def training_questions(
    labels: np.ndarray, places: np.ndarray, rng: np.random.Generator
) -> list[DigitQuestion]:
    """About one training scene, (3,) classes and (3, 3) places: two digits that are there and two
    that are not, by the three rules; count, leftmost, rightmost, largest; both directions of one
    relation; and where every digit is, by column.
    """
    scene = described(labels, places)
    absent = [c for c in BY_FREQUENCY if c not in scene.labels]
    asked = [questions.presence(int(rng.choice(scene.labels)), scene) for _ in range(2)]
    for rule in rng.choice(3, 2, replace=False):
        match rule:
            case 0:
                other = rng.choice(absent)
            case 1:
                other = rng.choice(absent[:3])
            case _:
                present = int(rng.choice(scene.labels))
                other = next(c for c in CONFUSED[present] if c in absent)
        asked.append(questions.presence(int(other), scene))
    asked += [questions.count(scene), questions.leftmost(scene), questions.rightmost(scene)]
    asked.append(questions.largest(scene))
    if len(scene.labels) > 1:
        a, b = (int(i) for i in rng.choice(len(scene.labels), 2, replace=False))
        asked += [questions.relation(scene, a, b), questions.relation(scene, b, a)]
    return asked + by_column(scene)


def by_column(scene: SeveralDigits) -> list[DigitQuestion]:
    """In which column of patches, 0 to 7, a digit has its centre; and the reverse, where no other
    digit has its centre there. Asked in training alone, to have it learn more about places.
    """
    columns = [int(x) // PATCH for x, _ in scene.centres]
    asked = []
    for label, column in zip(scene.labels, columns, strict=True):
        asked.append(
            DigitQuestion("column", "", f"In which column is the digit {label}?", str(column))
        )
        if columns.count(column) == 1:
            asked.append(
                DigitQuestion("column", "", f"Which digit is in column {column}?", str(label))
            )
    return asked


def described(labels: np.ndarray, places: np.ndarray) -> SeveralDigits:
    """What questions need to know of a scene; without its picture."""
    n = int((labels >= 0).sum())
    return SeveralDigits(
        image=np.zeros((0, 0, 3), np.uint8),
        masks=(),
        labels=tuple(int(label) for label in labels[:n]),
        centres=tuple((float(x), float(y)) for x, y, _ in places[:n]),
        edges=tuple(float(edge) for edge in places[:n, 2]),
        digits=(),
    )


def of_batch(
    scenes: Scenes, chosen: np.ndarray, seed: int, step: int
) -> tuple[list[list[DigitQuestion]], Tensor]:
    """Training questions about the scenes `chosen`, and the rows (b, 64) bool that are kept: other
    ones in every step.

    Of every other scene, some rows of the background are left out: a share of them that is drawn,
    0 to 1. Rows of digits never are.
    """
    rng = np.random.default_rng([seed, step])
    asked = [training_questions(scenes.labels[i], scenes.places[i], rng) for i in chosen]
    shares = rng.random((len(chosen), 1)) * (np.arange(len(chosen)) % 2)[:, None]
    dropped = rng.random((len(chosen), scenes.patches.shape[1])) < shares
    kept = ~dropped | (scenes.patches[chosen] != BACKGROUND)
    return asked, torch.from_numpy(kept)
