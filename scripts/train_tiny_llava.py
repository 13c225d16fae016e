"""Train the bundled LLaVA: a small one that answers questions about scenes of digits.

    python scripts/train_tiny_llava.py      # about an hour on 2 CPU cores, resumes after Ctrl-C

Scenes are drawn; the vision tower learns what they show; it is frozen, and its features of all
training scenes are computed once; projector and language model learn to answer; the premise test
asks whether rows of the digits carry the answers; the checkpoint is written, as the hub has it.
Calibration digits decide whether the weights are good enough. Evaluation digits are looked at once,
when they are written. The same command on the same device gives the same weights.
"""

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_llava.bundle import written
from tiny_llava.language import LanguageTraining, start
from tiny_llava.loop import Schedule, trained
from tiny_llava.model import round_to_half, untrained
from tiny_llava.premise import Found, premise, right_answers, shortfalls
from tiny_llava.scenes import BACKGROUND, Scenes, scenes_of
from tiny_llava.tower import TowerTraining, features, start_from_classifier
from tiny_llava.turns import of_batch, turns
from torch import Tensor

from asap.data.digits.questions import DigitQuestion, questions_of

DESCRIPTION = "Train the bundled LLaVA."
CLASSIFIER = Path(__file__).parents[1] / "asap/backbones/weights/digits_vit.safetensors"


@dataclass(frozen=True)
class Recipe:
    """All that decides about the weights, with the scenes of the premise test."""

    seed: int = 0
    train: int = 40_000  # scenes
    calibration: int = 2_000
    evaluation: int = 2_000
    watched: int = 500  # calibration scenes that are measured during training
    tower: Schedule = Schedule(steps=2400, batch=64, rate=1e-3)  # noqa: RUF009
    language: Schedule = Schedule(steps=4000, batch=16, rate=2e-3)  # noqa: RUF009


class Training:
    """The steps, each of which finds in `out` what it has done before."""

    def __init__(self, recipe: Recipe, out: Path, workers: int = 1, save_seconds: float = 120):
        self.recipe, self.out, self.workers, self.save_seconds = recipe, out, workers, save_seconds
        out.mkdir(parents=True, exist_ok=True)
        self.model = untrained(recipe.seed)
        self.tower = self.model.model.vision_tower
        self.language = LanguageTraining(self.model)
        self.log: dict[str, list[dict[str, Any]]] = {}

    def scenes(self, split: str, n: int) -> Scenes:
        return scenes_of(split, self.recipe.seed, n, self.out / "scenes", self.workers)

    def train_tower(self) -> None:
        scenes, seen = self.scenes("train", self.recipe.train), self.watched()
        start_from_classifier(self.tower, CLASSIFIER)
        torch.manual_seed(self.recipe.seed)
        training = TowerTraining(self.tower)
        self.log["tower"] = trained(
            "tower", training, lambda step, chosen: training.loss(scenes, chosen),
            len(scenes), self.recipe.tower, lambda: training.measured(seen),
            self.out / "tower.pt", self.recipe.seed, self.save_seconds,
        )  # fmt: skip
        with (
            torch.no_grad()
        ):  # as the file will have it, so that the features are those of the file
            for parameter in self.tower.parameters():
                parameter.copy_(parameter.half().float())

    def features(self, split: str, scenes: Scenes) -> Tensor:
        file = self.out / f"features-{split}-{len(scenes)}.pt"
        if not file.exists():
            torch.save(features(self.tower, scenes), file.with_suffix(".tmp"))
            file.with_suffix(".tmp").replace(file)
        return torch.load(file, weights_only=True)

    def train_language(self) -> None:
        scenes, seen = self.scenes("train", self.recipe.train), self.watched()
        rows, seen_rows = self.features("train", scenes), self.features("calibration", seen)
        asked, seed = self.asked("calibration", len(seen)), self.recipe.seed
        torch.manual_seed(seed)
        few = min(1000, len(scenes))
        start(self.language, rows[:few], scenes.first(few))

        def loss(step: int, chosen: np.ndarray) -> Tensor:
            questions, kept = of_batch(scenes, chosen, seed, step)
            return self.language.loss(rows[chosen], turns(questions, kept))

        def measured() -> dict[str, float]:
            return _accuracies(self.language, seen_rows, asked)

        self.log["language"] = trained(
            "language model", self.language, loss, len(scenes), self.recipe.language, measured,
            self.out / "language.pt", seed, self.save_seconds,
        )  # fmt: skip
        round_to_half(self.language)

    def premise(self, split: str, n: int) -> Found:
        scenes = self.scenes(split, n)
        objects = np.array(scenes.patches) != BACKGROUND
        rows = self.features(split, scenes)
        return premise(self.language, rows, objects, self.asked(split, n), self.recipe.seed)

    def watched(self) -> Scenes:
        return self.scenes("calibration", self.recipe.calibration).first(self.recipe.watched)

    def asked(self, split: str, n: int) -> list[list[DigitQuestion]]:
        return [list(questions_of(split, self.recipe.seed, i)) for i in range(n)]


def _accuracies(
    model: LanguageTraining, rows: Tensor, asked: list[list[DigitQuestion]]
) -> dict[str, float]:
    """Share of right answers by category, with all rows."""
    right = right_answers(model, rows, np.ones(rows.shape[:2], bool), asked)
    found: dict[str, list[bool]] = {}
    for of_scene, of_it in zip(asked, right, strict=True):
        for question, hit in zip(of_scene, of_it, strict=True):
            found.setdefault(question.category, []).append(bool(hit))
    return {name: round(float(np.mean(hits)), 3) for name, hits in found.items()}


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=DESCRIPTION)
    parser.add_argument("--out", type=Path, default=Path("results/training/digits_llava"))
    parser.add_argument("--bundle", type=Path, help="where to write the checkpoint: <out>/bundle")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw scenes")
    parser.add_argument(
        "--ship-anyway", action="store_true", help="write weights that fail the premise test"
    )
    given = parser.parse_args(arguments)
    recipe = Recipe()
    training = Training(recipe, given.out, given.workers)
    training.train_tower()
    training.train_language()
    found = training.premise("calibration", recipe.calibration)
    missed = shortfalls(found)
    for sentence in missed:
        print(f"premise not met: {sentence}")
    if missed and not given.ship_anyway:
        print("nothing is written: train longer, or write the weights with --ship-anyway")
        return 1
    results = {
        "calibration": found,
        "evaluation": training.premise("evaluation", recipe.evaluation),
    }
    folder = given.bundle or given.out / "bundle"
    report = {"recipe": asdict(recipe), "log": training.log}
    digest = written(training.model, folder, report, results, missed)
    print(f"{folder}  sha256 {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
