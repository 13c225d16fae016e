"""Clips of a handwritten digit that moves: the class is the motion, so a head must use time.

In the middle of a clip all motions look alike: the digit is near the centre of the picture and of
middle size. Its first and last frames do tell most motions apart. The ground stays as it is. A clip
depends only on (split, seed, index), and its digit belongs to the split, see `render.py`.
"""

from dataclasses import dataclass

import numpy as np

from asap.data.digits import render as digits
from asap.data.digits.render import SIZE, Placement

MOTIONS = ("left", "right", "up", "down", "grow", "shrink", "still", "circle")
FRAMES = 32
GENERATOR_VERSION = 1
_CLIP, _ORDER = 1, 2  # what is drawn: a clip, or the order of a block's motions


@dataclass(frozen=True)
class MovingDigit:
    """One labelled clip.

    `frames` is (32, 112, 112, 3) uint8, `label` the position of its motion in `MOTIONS`, `digit`
    the index of the source digit, 0..1796.
    """

    frames: np.ndarray
    label: int
    digit: int


def label_of(split: str, seed: int, index: int) -> int:
    """The motion of a clip: each of eight neighbouring clips has another one, in random order."""
    block, place = divmod(index, len(MOTIONS))
    order = _rng(_ORDER, split, seed, block).permutation(len(MOTIONS))
    return int(order[place])


def digit_of(split: str, index: int) -> int:
    """The source digit of a clip. Digits are taken in turn, so all occur equally often."""
    there = digits.digits_of(split)
    return there[index % len(there)]


def clip(split: str, seed: int, index: int) -> MovingDigit:
    """Clip number `index` of a split."""
    label, digit = label_of(split, seed, index), digit_of(split, index)
    rng = _rng(_CLIP, split, seed, index)
    placements = _path(MOTIONS[label], rng)
    ground = digits.textured_ground(rng, texture=1.0)
    stroke = rng.uniform(175, 255, 3).astype(np.float32)
    noise = rng.normal(0, 4, (SIZE, SIZE, 1)).astype(np.float32)
    source = digits.source()[0][digit]
    frames = [digits.painted(ground, stroke, digits.drawn(source, at), noise) for at in placements]
    return MovingDigit(np.stack(frames), label, digit)


def _rng(kind: int, split: str, seed: int, number: int) -> np.random.Generator:
    return digits.random_numbers(GENERATOR_VERSION, kind, split, seed, number)


def _path(motion: str, rng: np.random.Generator) -> list[Placement]:
    """Where the digit is in each frame. All is drawn whatever the motion, so middles are alike."""
    time = np.linspace(-1, 1, FRAMES)  # 0 is the middle
    x, y = (np.full(FRAMES, at) for at in SIZE / 2 + rng.uniform(-8, 8, 2))
    edge = np.full(FRAMES, rng.uniform(36, 48))
    reach, ratio = rng.uniform(22, 30), rng.uniform(1.5, 1.8)  # pixels; of sizes, end to middle
    radius, start, turn = rng.uniform(14, 20), rng.uniform(0, 2 * np.pi), rng.choice([-1, 1])
    match motion:
        case "left" | "right":
            x += reach * time * (1 if motion == "right" else -1)
        case "up" | "down":
            y += reach * time * (1 if motion == "down" else -1)
        case "grow" | "shrink":
            edge *= ratio ** (time if motion == "grow" else -time)
        case "circle":
            angle = start + turn * np.pi * time
            x += radius * (np.cos(angle) - np.cos(start))
            y += radius * (np.sin(angle) - np.sin(start))
    shape = digits.random_shape(rng)
    return [
        Placement(float(e), *shape, float(cx), float(cy))
        for e, cx, cy in zip(edge, x, y, strict=True)
    ]
