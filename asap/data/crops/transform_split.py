"""timm's evaluation transform in two parts: picture to bytes (which are cached), bytes to floats.

Both parts consist of the transform's own steps, so everything is computed as timm computes it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from timm.data.transforms import (
    CenterCropOrPad,
    MaybeToTensor,
    ResizeKeepRatio,
    TrimBorder,
)
from torch import Tensor
from torchvision import transforms

from asap.data.base import Transform
from asap.errors import RequestError

_PIXELS = (transforms.Resize, ResizeKeepRatio, transforms.CenterCrop, CenterCropOrPad, TrimBorder)
_TO_FLOAT = (transforms.ToTensor, MaybeToTensor)
_FLOATS = (transforms.Normalize,)
_PROBES = ((500, 375), (61, 298), (9, 11))  # (width, height) of the pictures that test a split


@dataclass(frozen=True)
class Split:
    """The two parts, and the shape of the crop that the first one makes."""

    pixels: transforms.Compose  # RGB picture -> RGB picture
    floats: transforms.Compose  # UInt8[ndarray, "h w 3"] -> Float[Tensor, "3 h w"]
    shape: tuple[int, int, int]  # h, w, 3

    @property
    def size(self) -> int:
        """Size of a crop in bytes."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def identity(self) -> list[list[Any]]:
        """Every step of the first part with all of its settings, as plain data."""
        return [[type(step).__name__, _settings(step)] for step in self.pixels.transforms]

    def crop(self, picture: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
        """Apply the first part. RequestError if the crop's shape is not `shape`."""
        crop = np.array(self.pixels(picture))  # a copy, which torch may take
        if crop.shape != self.shape or crop.dtype != np.uint8:
            raise _refusal(f"it makes {crop.shape} of {picture.size} and {self.shape} of others")
        return crop

    def image(self, crop: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "3 h w"]:
        """Apply the second part."""
        image: Any = self.floats(crop)
        return image


def split(transform: Transform) -> Split:
    """Split a timm evaluation transform, and test on pictures that both parts give the same result.

    Raises RequestError if a step is unknown, random, or in an unexpected order.
    """
    if (found := halves(transform)) is None:
        raise _refusal("it has no step that makes a tensor")
    for known, part in ((_PIXELS, found[0]), (_FLOATS, found[1][1:])):
        if odd := [step for step in part if type(step) not in known or _random(step)]:
            raise _refusal(f"the step {type(odd[0]).__name__} is not known here")
    pixels, floats = map(transforms.Compose, found)
    draw = np.random.default_rng(0)
    pictures = [
        Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8))
        for width, height in _PROBES
    ]
    parts = Split(pixels, floats, np.asarray(pixels(pictures[0])).shape)
    if not all(torch.equal(parts.image(parts.crop(p)), transform(p)) for p in pictures):
        raise _refusal("its two parts give other numbers than the whole")
    return parts


def halves(transform: Transform) -> tuple[list[Any], list[Any]] | None:
    """The steps on pictures, and the one that makes a tensor with those after it; None if no step
    does."""
    steps = list(getattr(transform, "transforms", ()))
    at = next((i for i, step in enumerate(steps) if type(step) in _TO_FLOAT), None)
    return None if at is None else (steps[:at], steps[at:])


def _random(step: Any) -> bool:
    """True if a step draws anything at random."""
    settings = vars(step)
    chances = [value for name, value in settings.items() if name.endswith("_prob")]
    return any(chances) or isinstance(settings.get("interpolation"), tuple | list)


def _settings(step: Any) -> dict[str, str]:
    """The settings of a step, without the attributes that torch adds to a module."""
    settings = {k: v for k, v in vars(step).items() if not k.startswith("_") and k != "training"}
    return {name: str(settings[name]) for name in sorted(settings)}


def _refusal(reason: str) -> RequestError:
    return RequestError(
        f"the preprocessing cannot be cached ({reason}): set data.cache=null to decode every time"
    )
