"""timm's evaluation transform in two parts: picture -> bytes, which can be kept, -> floats.

Both parts are the transform's own steps, so that nothing is computed in another way than timm does.
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
_PROBES = ((500, 375), (61, 298), (9, 11))  # (width, height) of the pictures that prove a split


@dataclass(frozen=True)
class Split:
    """The two parts, the shape of what lies between them, and what defines the first."""

    pixels: transforms.Compose  # RGB picture -> RGB picture
    floats: transforms.Compose  # UInt8[ndarray, "h w 3"] -> Float[Tensor, "3 h w"]
    shape: tuple[int, int, int]  # h, w, 3

    @property
    def size(self) -> int:
        """Bytes of a crop."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @property
    def identity(self) -> list[list[Any]]:
        """Every pixel step with all of its settings, as plain data."""
        return [[type(step).__name__, _settings(step)] for step in self.pixels.transforms]

    def crop(self, picture: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
        """The first part. RequestError on a crop of another shape than the probes had."""
        crop = np.array(self.pixels(picture))  # a copy, which torch may take
        if crop.shape != self.shape or crop.dtype != np.uint8:
            raise _refusal(f"it makes {crop.shape} of {picture.size} and {self.shape} of others")
        return crop

    def image(self, crop: UInt8[np.ndarray, "h w 3"]) -> Float[Tensor, "3 h w"]:
        """The second part."""
        image: Any = self.floats(crop)
        return image


def split(transform: Transform) -> Split:
    """The parts of a timm evaluation transform, proved on pictures to give what the whole gives.

    Raises RequestError on a transform with a step that is not known, that draws at random, or that
    comes in another order.
    """
    steps = list(getattr(transform, "transforms", ()))
    at = next((i for i, step in enumerate(steps) if type(step) in _TO_FLOAT), None)
    if at is None:
        raise _refusal("it has no step that makes a tensor")
    for known, part in ((_PIXELS, steps[:at]), (_FLOATS, steps[at + 1 :])):
        if odd := [step for step in part if type(step) not in known or _random(step)]:
            raise _refusal(f"the step {type(odd[0]).__name__} is not known here")
    pixels, floats = transforms.Compose(steps[:at]), transforms.Compose(steps[at:])
    draw = np.random.default_rng(0)
    pictures = [
        Image.fromarray(draw.integers(0, 256, (height, width, 3), np.uint8))
        for width, height in _PROBES
    ]
    parts = Split(pixels, floats, np.asarray(pixels(pictures[0])).shape)
    if not all(torch.equal(parts.image(parts.crop(p)), transform(p)) for p in pictures):
        raise _refusal("its two parts give other numbers than the whole")
    return parts


def _random(step: Any) -> bool:
    """Does a step draw anything at random."""
    said = vars(step)
    chances = [value for name, value in said.items() if name.endswith("_prob")]
    return any(chances) or isinstance(said.get("interpolation"), tuple | list)


def _settings(step: Any) -> dict[str, str]:
    """What a step was made with, without what torch adds to a module."""
    said = {k: v for k, v in vars(step).items() if not k.startswith("_") and k != "training"}
    return {name: str(said[name]) for name in sorted(said)}


def _refusal(reason: str) -> RequestError:
    return RequestError(
        f"the preprocessing cannot be cached ({reason}): set data.cache=null to decode every time"
    )
