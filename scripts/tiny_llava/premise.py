"""The premise of token reduction, tested: are answers in the rows of the object?

Rows are taken away between the tower and the projector. A model meets the premise if the rows of
the digits alone answer about as well as all rows, those of the background alone clearly worse, and
half of all rows, drawn at random, something in between.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from asap.data.digits.questions import CATEGORIES, DigitQuestion
from asap.report.statistics import mean_interval, share_interval
from tiny_llava.language import LanguageTraining
from tiny_llava.turns import turns

READINGS = ("all", "object", "background", "half")
MEAN = "mean"  # of the six categories, each with equal weight
LEAST = {"presence": 0.93, "count": 0.93, "leftmost": 0.85}  # accuracies with all rows
OBJECT_LOSS, BACKGROUND_LOSS = 0.05, 0.15  # of the mean: at most, at least
_TOGETHER = 50  # scenes


@dataclass(frozen=True)
class Share:
    """Right answers of `n`, as a share with its 95 % interval, clustered by scene."""

    share: float
    low: float
    high: float
    n: int


Found = Mapping[str, Mapping[str, Share]]  # reading -> category, or MEAN -> share


def kept_rows(reading: str, objects: np.ndarray, seed: int) -> np.ndarray:
    """Which rows a reading keeps, (n, 64) bool, where `objects` (n, 64) bool are object patches.

    Raises ValueError on an unknown reading.
    """
    match reading:
        case "all":
            return np.ones_like(objects)
        case "object":
            return objects
        case "background":
            return ~objects
        case "half":
            rng = np.random.default_rng(seed)
            place = rng.random(objects.shape).argsort(1).argsort(1)
            return place < objects.shape[1] // 2
    raise ValueError(f"reading={reading!r} is unknown: use one of {', '.join(READINGS)}")


def right_answers(
    model: LanguageTraining, rows: Tensor, kept: np.ndarray, asked: list[list[DigitQuestion]]
) -> list[np.ndarray]:
    """For each scene, which of its questions are answered right, bool.

    `rows` (n, 64, width) are the tower's, `kept` (n, 64) bool those that the model gets, in order.
    """
    found: list[np.ndarray] = []
    for start in range(0, len(asked), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        right = model.right(rows[part], turns(asked[part], torch.from_numpy(kept[part]))).numpy()
        found += np.split(right, np.cumsum([len(of_scene) for of_scene in asked[part]])[:-1])
    return found


def by_category(asked: list[list[DigitQuestion]], right: list[np.ndarray]) -> dict[str, Share]:
    """Accuracy of each category, and their mean."""
    scene = np.repeat(np.arange(len(asked)), [len(of_scene) for of_scene in asked])
    category = np.array([q.category for of_scene in asked for q in of_scene])
    hits, found = np.concatenate(right), {}
    deviation = np.zeros(len(hits))  # of each answer from its category, as it weighs in the mean
    for name in CATEGORIES:
        of_it = category == name
        share, n = float(hits[of_it].mean()), int(of_it.sum())
        found[name] = Share(share, *share_interval(hits[of_it], scene[of_it]), n)
        deviation[of_it] = (hits[of_it] - share) * len(hits) / (len(CATEGORIES) * n)
    mean = float(np.mean([s.share for s in found.values()]))
    found[MEAN] = Share(mean, *mean_interval(mean + deviation, scene), len(hits))
    return found


def premise(
    model: LanguageTraining,
    rows: Tensor,
    objects: np.ndarray,
    asked: list[list[DigitQuestion]],
    seed: int = 0,
) -> Found:
    """Accuracies of every reading, by category: a pure function of its arguments."""
    return {
        reading: by_category(
            asked, right_answers(model, rows, kept_rows(reading, objects, seed), asked)
        )
        for reading in READINGS
    }


def shortfalls(found: Found) -> list[str]:
    """Where the premise is missed, a sentence each; none if it is met."""
    mean = {reading: found[reading][MEAN].share for reading in READINGS}
    dense = mean["all"]
    missed = [
        f"{category} with all rows is {found['all'][category].share:.3f}, below {least}"
        for category, least in LEAST.items()
        if found["all"][category].share < least
    ]
    if mean["object"] < dense - OBJECT_LOSS:
        missed.append(
            f"object rows alone lose {dense - mean['object']:.3f} of the mean {dense:.3f}, "
            f"more than {OBJECT_LOSS}"
        )
    if mean["background"] > dense - BACKGROUND_LOSS:
        missed.append(
            f"background rows alone lose {dense - mean['background']:.3f} of the mean {dense:.3f}, "
            f"less than {BACKGROUND_LOSS}"
        )
    if not mean["background"] < mean["half"] < dense:
        missed.append(
            f"half of the rows at random has a mean of {mean['half']:.3f}, "
            f"not between {mean['background']:.3f} and {dense:.3f}"
        )
    return missed
