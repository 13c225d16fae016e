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

from asap.data.digits import questions
from asap.data.digits.questions import CONFUSED, DigitQuestion
from asap.data.digits.several import BY_FREQUENCY, SeveralDigits
from tiny_llava.model import BOS, EOS, ID, PAD
from tiny_llava.scenes import Scenes

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
    """Prompts after `n_rows` rows of pictures, padded to one length m. Of b scenes.

    `ids` (b, m) int64; `positions` (b, k + m) and `sees` (b, 1, k + m, k + m) bool, of the prefix,
    the picture and the prompts, k rows before these; `asked` (j,) and `at` (j,): scene and place
    among k + m rows from which the j words of answers are read, the word and then EOS for each
    prompt; `answers` (j,) int64.
    """

    ids: Tensor
    positions: Tensor
    sees: Tensor
    asked: Tensor
    at: Tensor
    answers: Tensor


def turns(asked: list[list[DigitQuestion]], n_rows: int) -> Turns:
    """The questions of b scenes, one list a scene."""
    before = len(PREFIX) + n_rows
    prompts = [[[*prompt_ids(q), ID[q.answer], ID[EOS]] for q in of_scene] for of_scene in asked]
    longest = max(sum(map(len, of_scene)) for of_scene in prompts)
    ids = torch.full((len(asked), longest), ID[PAD])
    positions = torch.arange(before + longest).repeat(len(asked), 1)
    turn = torch.full((len(asked), before + longest), -1)  # -1: what every turn sees; padding too
    found: list[tuple[int, int, int]] = []
    for i, of_scene in enumerate(prompts):
        start = 0
        for number, prompt in enumerate(of_scene):
            end = start + len(prompt)
            ids[i, start:end] = torch.tensor(prompt)
            turn[i, before + start : before + end] = number
            positions[i, before + start : before + end] = before + torch.arange(len(prompt))
            found += [(i, before + end - 3, prompt[-2]), (i, before + end - 2, prompt[-1])]
            start = end
    scene, at, answers = torch.tensor(found).T
    shared = torch.arange(before + longest) < before
    same = turn[:, :, None] == turn[:, None, :]
    causal = torch.ones(before + longest, before + longest, dtype=torch.bool).tril()
    return Turns(ids, positions, ((same | shared) & causal)[:, None], scene, at, answers)


def training_questions(
    labels: np.ndarray, places: np.ndarray, rng: np.random.Generator
) -> list[DigitQuestion]:
    """About one training scene, (3,) classes and (3, 3) places: every digit that is there and as
    many that are not, by the three rules in turn; count, leftmost, rightmost, largest; and both
    directions of one relation.
    """
    scene = described(labels, places)
    absent = [c for c in BY_FREQUENCY if c not in scene.labels]
    asked = [questions.presence(label, scene) for label in scene.labels]
    for label in scene.labels:
        match rng.integers(3):
            case 0:
                other = rng.choice(absent)
            case 1:
                other = rng.choice(absent[:3])
            case _:
                other = next(c for c in CONFUSED[label] if c in absent)
        asked.append(questions.presence(int(other), scene))
    asked += [questions.count(scene), questions.leftmost(scene), questions.rightmost(scene)]
    asked.append(questions.largest(scene))
    if len(scene.labels) > 1:
        a, b = (int(i) for i in rng.choice(len(scene.labels), 2, replace=False))
        asked += [questions.relation(scene, a, b), questions.relation(scene, b, a)]
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


def of_batch(scenes: Scenes, chosen: np.ndarray, seed: int, step: int) -> list[list[DigitQuestion]]:
    """Training questions about the scenes `chosen`, other ones in every step."""
    rng = np.random.default_rng([seed, step])
    return [training_questions(scenes.labels[i], scenes.places[i], rng) for i in chosen]
