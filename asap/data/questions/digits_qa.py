"""The embedded default: questions about scenes of one to three handwritten digits."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np
from jaxtyping import Bool
from PIL import Image

from asap.data.base import DataSet, Transform
from asap.data.digits import render as digits
from asap.data.digits.questions import questions_of
from asap.data.digits.several import several
from asap.data.options import DataOptions, Opening, refuse_files
from asap.data.questions.kinds import KINDS
from asap.data.questions.question_set import Question, QuestionSet
from asap.errors import counted
from asap.spec.check import at_least, one_of


@dataclass(frozen=True)
class DigitsQaOptions(DataOptions):
    """Which questions: split (evaluation, calibration or train), how many scenes, and their seed.

    Raises RequestError on an unknown split, a negative seed and `pictures` below 1.
    """

    split: str = "evaluation"
    pictures: int = 300
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("data.split", self.split, digits.SPLITS)
        at_least("data.pictures", self.pictures, 1)
        at_least("data.seed", self.seed, 0)

    def open(self, opening: Opening) -> DataSet:
        spec = opening.spec
        refuse_files(spec, "choose data=questions for questions of your own")
        questions, hashes = _asked(self.split, self.seed, self.pictures)
        about = (
            f"questions about digits, {self.split} digits, {len(questions):,} questions about "
            f"{counted(self.pictures, 'scene')}, seed {self.seed}"
        )
        found = QuestionSet(
            questions, _Scenes(self.split, self.seed, hashes), opening.transform,
            opening.patch_grid, name="digits_qa", about=about,
        )  # fmt: skip
        found.title = spec.title
        return found.first(opening.limit)


class _Scenes:
    """Rendered scenes as `Pictures`."""

    has_masks = True

    def __init__(self, split: str, seed: int, hashes: Sequence[bytes]):
        self.split, self.seed, self._hashes = split, seed, hashes
        self.paths = [f"{split}/{i:06d}" for i in range(len(hashes))]

    def hashes(self, positions: Sequence[int], index: Path | None) -> list[bytes]:
        return [self._hashes[i] for i in positions]

    def open(self, i: int, transform: Transform) -> Image.Image:
        return Image.fromarray(several(self.split, self.seed, i).image)

    def mask(self, i: int) -> Bool[np.ndarray, "height width"]:
        return np.logical_or.reduce(several(self.split, self.seed, i).masks)


@lru_cache(maxsize=4)
def _asked(split: str, seed: int, count: int) -> tuple[list[Question], list[bytes]]:
    """The questions about the first scenes of a split, and the SHA-256 of each scene's pixels.

    The pixels are hashed because another version of the renderer's libraries may round differently.
    """
    questions: list[Question] = []
    hashes: list[bytes] = []
    for i in range(count):
        for one in questions_of(split, seed, i):
            kind = "yes_no" if one.answer in ("yes", "no") else "exact"
            name = f"{one.category}-{one.subset}" if one.subset else one.category
            right = KINDS[kind].read([one.answer])
            questions.append(Question(name, i, one.text, kind, right, one.category, one.subset))
        hashes.append(sha256(several(split, seed, i).image.tobytes()).digest())
    return questions, hashes
