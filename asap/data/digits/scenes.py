"""The embedded default as a data set: scenes of handwritten digits, with object masks."""

from dataclasses import dataclass
from functools import cache
from hashlib import sha256

import numpy as np
from PIL import Image

from asap.data.base import PatchGrid, Sample, Transform, image_sample
from asap.data.digits import render as digits
from asap.data.images.decoding import mask_to_patches
from asap.data.options import DataOptions, Opening, refuse_files
from asap.spec.check import at_least, one_of


@dataclass(frozen=True)
class DigitOptions(DataOptions):
    """Which scenes: split (evaluation, calibration or train), how many, and the seed of the draw.

    Raises RequestError on an unknown split, a negative seed and `images` below 1.
    """

    split: str = "evaluation"
    images: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        one_of("data.split", self.split, digits.SPLITS)
        at_least("data.images", self.images, 1)
        at_least("data.seed", self.seed, 0)

    def open(self, opening: Opening) -> "DigitScenes":
        spec = opening.spec
        refuse_files(spec, "choose data=folder")
        count = self.images if opening.limit is None else min(opening.limit, self.images)
        return DigitScenes(
            self.split, count, self.seed, opening.transform, opening.patch_grid, spec.title
        )


class DigitScenes:
    """The first `n` scenes of a split. Scenes of the same source digit share a cluster."""

    name = "digits"
    task = "classification"
    classes = digits.CLASSES
    n_classes = len(digits.CLASSES)
    clustered = True
    scored = None

    def __init__(
        self,
        split: str,
        n: int,
        seed: int,
        transform: Transform,
        patch_grid: PatchGrid | None = None,
        title: str | None = None,
    ):
        self.split, self.n, self.seed = split, n, seed
        self.transform = transform
        self.patch_grid = patch_grid
        self.has_masks = patch_grid is not None
        about = f"digit scenes, {split} digits, {n:,} images, seed {seed}"
        self.description = about if title is None else f"{title}: {about}"

    @property
    def digest(self) -> str:
        return _digests(self.split, self.n, self.seed)[0]

    @property
    def label_digest(self) -> str:
        return _digests(self.split, self.n, self.seed)[1]

    @property
    def reading_order(self) -> range:
        return range(self.n)

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Sample:
        if not 0 <= i < self.n:
            raise IndexError(f"scene {i} of {self.n}")
        scene = digits.scene(self.split, self.seed, i)
        mask = None
        if self.patch_grid is not None:
            mask = mask_to_patches(scene.mask, self.transform, self.patch_grid)
        image = self.transform(Image.fromarray(scene.image))
        return image_sample(i, i, f"{self.split}/{i:06d}", scene.label, scene.digit, image, mask)


@cache
def _digests(split: str, n: int, seed: int) -> tuple[str, str]:
    """SHA-256 of the rendered pixels with their labels, and of the labels alone.

    The pixels are hashed because another version of the renderer's libraries may round differently.
    """
    pixels, labels = sha256(), sha256()
    for i in range(n):
        scene = digits.scene(split, seed, i)
        label = np.int64(scene.label).tobytes()
        pixels.update(scene.image.tobytes() + label)
        labels.update(label)
    return pixels.hexdigest(), labels.hexdigest()
