"""The embedded default: scenes of real handwritten digits, with known object masks.

Each scene puts one of scikit-learn's 1,797 handwritten digits (bundled with the package, no
download) at a random position, size, tilt and slant on a textured colour ground. Strokes are always
brighter than the ground. A scene depends only on (split, seed, index).

Source of the digits: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI
Machine Learning Repository (1998), https://doi.org/10.24432/C50P49, CC BY 4.0; the copy in
`sklearn.datasets.load_digits` is its test part. The data does not name the writers, so the splits
are made by index: evaluation digits never occur in training or calibration scenes.
"""

from dataclasses import dataclass
from functools import cache
from importlib.metadata import distribution

import numpy as np
from PIL import Image

SIZE = 112  # pixels, height and width of a scene
CLASSES = tuple(str(d) for d in range(10))
SPLITS = ("train", "calibration", "evaluation")
GENERATOR_VERSION = 1
MASK_LEVEL = 96  # of 255: a pixel with at least this much ink belongs to the object


@dataclass(frozen=True)
class Scene:
    """One labelled picture.

    `image` is (112, 112, 3) uint8, `mask` is (112, 112) bool, `digit` is the index of the source
    digit, 0..1796.
    """

    image: np.ndarray
    mask: np.ndarray
    label: int
    digit: int


@dataclass(frozen=True)
class Difficulty:
    """How hard scenes are: range of the digit's edge in pixels, texture strength in [0, 1]."""

    smallest: float = 36.0
    largest: float = 64.0
    texture: float = 1.0


def split_of(digit: int) -> str:
    """The split of a source digit: one third for evaluation, one in 18 for calibration."""
    if digit % 3 == 2:
        return "evaluation"
    return "calibration" if digit % 18 == 0 else "train"


@cache
def source() -> tuple[np.ndarray, np.ndarray]:
    """The source digits, (1797, 8, 8) uint8 with ink 0..255, and their labels, (1797,) int."""
    # What `load_digits` reads, without half a second for importing scikit-learn.
    file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = np.loadtxt(str(file), delimiter=",")
    images = table[:, :-1].reshape(-1, 8, 8)
    return np.round(images * (255 / 16)).astype(np.uint8), table[:, -1].astype(int)


@cache
def digits_of(split: str) -> tuple[int, ...]:
    """Indices of the source digits of a split."""
    if split not in SPLITS:
        raise ValueError(f"split={split!r} is unknown: use one of {', '.join(SPLITS)}")
    return tuple(i for i in range(len(source()[0])) if split_of(i) == split)


@cache
def digits_of_class(split: str, label: int) -> tuple[int, ...]:
    """Indices of the source digits of a split that show `label`, 0..9."""
    return tuple(i for i in digits_of(split) if source()[1][i] == label)


def random_numbers(
    version: int, kind: int, split: str, seed: int, index: int
) -> np.random.Generator:
    """Numbers for one example: `kind` says for which of its parts, or for what kind of example."""
    return np.random.default_rng([version, kind, SPLITS.index(split), seed, index])


def scene(split: str, seed: int, index: int, difficulty: Difficulty | None = None) -> Scene:
    """Scene number `index` of a split. Digits are taken in turn, so all occur equally often."""
    difficulty = difficulty or Difficulty()
    digits = digits_of(split)
    rng = np.random.default_rng([GENERATOR_VERSION, SPLITS.index(split), seed, index])
    digit = digits[index % len(digits)]
    images, labels = source()
    ink = drawn(images[digit], _placement(rng, difficulty))
    ground = textured_ground(rng, difficulty.texture)
    stroke = rng.uniform(175, 255, 3)
    image = painted(ground, stroke, ink, rng.normal(0, 4, (SIZE, SIZE, 1)))
    return Scene(image, ink >= MASK_LEVEL, int(labels[digit]), digit)


@dataclass(frozen=True)
class Placement:
    """Where and how a digit is drawn.

    edge: its height and width in pixels; tilt: radians; slant: of the upright strokes; aspect: its
    width against its height; cx, cy: of its centre, in pixels from the left and from the top.
    """

    edge: float
    tilt: float
    slant: float
    aspect: float
    cx: float
    cy: float


def random_shape(rng: np.random.Generator) -> tuple[float, float, float]:
    """Tilt, slant and aspect of a digit."""
    tilt, slant = np.deg2rad(rng.uniform(-20, 20)), rng.uniform(-0.15, 0.15)
    return float(tilt), slant, float(np.exp(rng.uniform(-0.12, 0.12)))


def _placement(rng: np.random.Generator, difficulty: Difficulty) -> Placement:
    edge = rng.uniform(difficulty.smallest, difficulty.largest)
    tilt, slant, aspect = random_shape(rng)
    reach = edge * 0.55
    cx, cy = rng.uniform(reach, SIZE - reach, 2)
    return Placement(edge, tilt, slant, aspect, cx, cy)


def drawn(digit: np.ndarray, at: Placement) -> np.ndarray:
    """A source digit's ink on the canvas, (112, 112) uint8, under an affine map."""
    scale = 8 / at.edge  # source pixels per scene pixel
    cos, sin = np.cos(at.tilt), np.sin(at.tilt)
    rotate = np.array([[cos, sin], [-sin, cos]])
    inverse = scale * np.array([[at.aspect, at.slant], [0, 1 / at.aspect]]) @ rotate
    padded = np.pad(digit, 2)
    offset = np.array([6.0, 6.0]) - inverse @ np.array([at.cx, at.cy])
    coefficients = (*inverse[0], offset[0], *inverse[1], offset[1])
    canvas = Image.fromarray(padded).transform(
        (SIZE, SIZE), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC
    )
    return np.asarray(canvas)


def painted(
    ground: np.ndarray, stroke: np.ndarray, ink: np.ndarray, noise: np.ndarray
) -> np.ndarray:
    """The picture, (112, 112, 3) uint8: ink (112, 112) uint8 of the colour `stroke` (3,) on a
    ground (112, 112, 3), and noise (112, 112, 1) over both.
    """
    return rounded(inked(ground, stroke, ink) + noise)


def inked(ground: np.ndarray, stroke: np.ndarray, ink: np.ndarray) -> np.ndarray:
    """Ink (112, 112) uint8 of the colour `stroke` (3,) on a ground (112, 112, 3), as floats."""
    alpha = ink[..., None].astype(np.float32) / 255
    return ground * (1 - alpha) + stroke * alpha


def rounded(picture: np.ndarray) -> np.ndarray:
    """Floats as pixels: uint8, 0 to 255."""
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def textured_ground(rng: np.random.Generator, texture: float) -> np.ndarray:
    """A dark coloured ground, (112, 112, 3) float32: a base colour and two octaves of noise."""
    ground = np.broadcast_to(rng.uniform(30, 100, 3), (SIZE, SIZE, 3)).astype(np.float32)
    for cells, strength in ((4, 45.0), (14, 22.0)):
        noise = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
        smooth = Image.fromarray(noise).resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        ground += texture * strength * (np.asarray(smooth, dtype=np.float32) / 127.5 - 1)
    return np.clip(ground, 0, 150)
