"""The training scenes as arrays: drawn once, kept in a file, shared by all steps."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from tqdm import tqdm

from asap.data.digits.several import MOST_DIGITS, several

SIDE, PATCH = 8, 14  # patches along an edge of a scene; pixels along an edge of a patch
BACKGROUND = 10  # the label of a patch that shows no digit
OBJECT = 0.10  # from this share of its pixels on, a patch shows the digit, as in the product
_BLOCK = 500  # scenes drawn by one process at a time


@dataclass(frozen=True)
class Scenes:
    """`n` scenes of a split.

    `images` (n, 112, 112, 3) uint8; `patches` (n, 64) int8, the class of the digit that a patch
    shows, or `BACKGROUND`; `labels` (n, 3) int8, classes in the order of drawing, -1 where there is
    no digit; `places` (n, 3, 3) float32, the digits' x, y and edge in pixels.
    """

    images: np.ndarray
    patches: np.ndarray
    labels: np.ndarray
    places: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def first(self, n: int) -> "Scenes":
        return Scenes(self.images[:n], self.patches[:n], self.labels[:n], self.places[:n])


def patch_labels(masks: tuple[np.ndarray, ...], labels: tuple[int, ...]) -> np.ndarray:
    """Labels of the 64 patches, (64,) int8, from the digits' pixels."""
    shares = np.stack(
        [m.reshape(SIDE, PATCH, SIDE, PATCH).mean((1, 3), dtype=np.float64).ravel() for m in masks]
    )
    classes = np.array(labels)[shares.argmax(0)]
    return np.where(shares.sum(0) >= OBJECT, classes, BACKGROUND).astype(np.int8)


def drawn_block(split: str, seed: int, n: int, start: int) -> Scenes:
    """Scenes `start` to `start + _BLOCK`, of `n`."""
    found = [several(split, seed, i) for i in range(start, min(start + _BLOCK, n))]
    labels = np.full((len(found), MOST_DIGITS), -1, np.int8)
    places = np.zeros((len(found), MOST_DIGITS, 3), np.float32)
    for row, scene in enumerate(found):
        count = len(scene.labels)
        labels[row, :count] = scene.labels
        places[row, :count, :2] = scene.centres
        places[row, :count, 2] = scene.edges
    return Scenes(
        np.stack([s.image for s in found]),
        np.stack([patch_labels(s.masks, s.labels) for s in found]),
        labels,
        places,
    )


def blocks(split: str, seed: int, n: int, workers: int) -> Iterator[Scenes]:
    """The scenes in blocks, in order."""
    draw, starts = partial(drawn_block, split, seed, n), range(0, n, _BLOCK)
    if workers < 2:
        yield from map(draw, starts)
        return
    with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
        yield from pool.map(draw, starts)


def scenes_of(split: str, seed: int, n: int, folder: Path, workers: int = 1) -> Scenes:
    """The first `n` scenes of a split, from the file in `folder` that holds them, or drawn into it.

    The images are mapped from the file, so they need no memory of their own.
    """
    folder = folder / f"{split}-{seed}-{n}"
    names = ("images", "patches", "labels", "places")
    files = [folder / f"{name}.npy" for name in names]
    if not all(file.exists() for file in files):
        folder.mkdir(parents=True, exist_ok=True)
        bar = tqdm(total=n, desc=f"{split} scenes", unit="scene", mininterval=5)
        parts = []
        for part in blocks(split, seed, n, workers):
            parts.append(part)
            bar.update(len(part))
        bar.close()
        for file, name in zip(files, names, strict=True):
            temporary = file.with_suffix(".tmp.npy")
            np.save(temporary, np.concatenate([getattr(part, name) for part in parts]))
            temporary.replace(file)
    return Scenes(*(np.load(file, mmap_mode="r") for file in files))
