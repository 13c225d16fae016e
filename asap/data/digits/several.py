"""Scenes of one to three handwritten digits, which questions are asked about.

The digits of a scene are of different classes and do not touch. Their classes are not equally
frequent (`CLASS_WEIGHTS`), so that a model may learn to expect the frequent ones. A scene depends
only on (split, seed, index), and its source digits belong to the split, see `render.py`.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations

import numpy as np

from asap.data.digits import render as digits
from asap.data.digits.render import SIZE, Placement

MOST_DIGITS = 3
GENERATOR_VERSION = 1
# The classes of digits, the most frequent first, and the weights with which they are drawn.
BY_FREQUENCY = (3, 7, 0, 5, 1, 8, 2, 9, 4, 6)
CLASS_WEIGHTS = tuple(2.0 - 1.5 * BY_FREQUENCY.index(label) / 9 for label in range(10))

_SCENE = 3  # the kind of what is drawn; clips have 1 and 2
_SMALLEST, _LARGEST = 28.0, 44.0  # pixels, the edge of a digit
_LARGER = 4.0  # pixels: the largest digit's edge over that of every other one
_ASIDE = 10.0  # pixels: no two centres are closer from left to right
_APART = 1.05  # of half the sum of two edges: their centres' distance along one axis at least


@dataclass(frozen=True)
class SeveralDigits:
    """One scene. The tuples have an entry for each digit, in the order in which they are drawn.

    `image` is (112, 112, 3) uint8; `masks` are (112, 112) bool, without a common pixel; `labels`
    are classes 0..9, all different; `centres` are (x, y) in pixels from the left and from the top;
    `edges` are heights and widths in pixels; `digits` are indices of source digits, 0..1796.
    """

    image: np.ndarray
    masks: tuple[np.ndarray, ...]
    labels: tuple[int, ...]
    centres: tuple[tuple[float, float], ...]
    edges: tuple[float, ...]
    digits: tuple[int, ...]


@lru_cache(maxsize=8)  # the questions about a scene are asked beside the scene itself
def several(split: str, seed: int, index: int) -> SeveralDigits:
    """Scene number `index` of a split; its arrays are not to be written into.

    Raises ValueError on a split that there is not.
    """
    if split not in digits.SPLITS:
        raise ValueError(f"split={split!r} is unknown: use one of {', '.join(digits.SPLITS)}")
    rng = digits.random_numbers(GENERATOR_VERSION, _SCENE, split, seed, index)
    count = 1 + int(rng.integers(MOST_DIGITS))
    weights = np.array(CLASS_WEIGHTS) / sum(CLASS_WEIGHTS)
    labels = tuple(int(c) for c in rng.choice(10, count, replace=False, p=weights))
    chosen = tuple(int(rng.choice(digits.digits_of_class(split, label))) for label in labels)
    places, inks = _placed(rng, chosen)
    picture = digits.textured_ground(rng, texture=1.0)
    for ink in inks:
        picture = digits.inked(picture, rng.uniform(175, 255, 3).astype(np.float32), ink)
    image = digits.rounded(picture + rng.normal(0, 4, (SIZE, SIZE, 1)))
    return SeveralDigits(
        image,
        tuple(ink >= digits.MASK_LEVEL for ink in inks),
        labels,
        tuple((at.cx, at.cy) for at in places),
        tuple(at.edge for at in places),
        chosen,
    )


def _placed(
    rng: np.random.Generator, chosen: tuple[int, ...]
) -> tuple[list[Placement], list[np.ndarray]]:
    """Places of the source digits `chosen`, drawn until they are good, and their ink."""
    sources = digits.source()[0]
    while True:
        places = [_place(rng) for _ in chosen]
        if _distinct(places):
            inks = [digits.drawn(sources[i], at) for i, at in zip(chosen, places, strict=True)]
            if not any((a.astype(bool) & b.astype(bool)).any() for a, b in combinations(inks, 2)):
                return places, inks


def _place(rng: np.random.Generator) -> Placement:
    edge = rng.uniform(_SMALLEST, _LARGEST)
    reach = edge * 0.55
    cx, cy = rng.uniform(reach, SIZE - reach, 2)
    return Placement(edge, *digits.random_shape(rng), float(cx), float(cy))


def _distinct(places: list[Placement]) -> bool:
    """Whether the digits are apart, and leftmost, rightmost and largest are plain to see."""
    edges = sorted((at.edge for at in places), reverse=True)
    if len(edges) > 1 and edges[0] - edges[1] < _LARGER:
        return False
    for a, b in combinations(places, 2):
        aside, above = abs(a.cx - b.cx), abs(a.cy - b.cy)
        if aside < _ASIDE or max(aside, above) < _APART * (a.edge + b.edge) / 2:
            return False
    return True
