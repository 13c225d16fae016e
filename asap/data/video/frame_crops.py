"""timm's evaluation transform on the frames of a clip: one crop of each, or three."""

from collections.abc import Callable
from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from timm.data.transforms import CenterCropOrPad
from torch import Tensor
from torchvision.transforms import CenterCrop

from asap.data.base import Transform
from asap.data.crops.transform_split import halves
from asap.data.images.decoding import check_resized
from asap.errors import RequestError

_CROPS = (CenterCrop, CenterCropOrPad)


class FrameCrops:
    """The views of a frame. `crops`: 1, or 3: the beginning, middle and end of the longer side.

    Raises RequestError if the transform is not a list of steps, or has no crop to be moved.
    """

    def __init__(self, transform: Transform, crops: int):
        parts = halves(transform)
        if parts is None:
            raise RequestError(
                "the preprocessing has no step that makes a tensor of a picture: clips need the "
                "list of steps that timm's create_transform gives"
            )
        self._whole = transform
        self._steps: list[Callable[[Any], Any]]
        self._steps, self._floats = parts
        at = [i for i, step in enumerate(self._steps) if isinstance(step, _CROPS)]
        if crops > 1 and not at:
            raise RequestError(
                f"data.crops={crops} needs a preprocessing that cuts out a square: set "
                "backbone.preprocess.crop_mode=center, or data.crops=1"
            )
        self._at = at[-1] if crops > 1 else None

    def pictures(self, frame: UInt8[np.ndarray, "height width 3"]) -> list[Image.Image]:
        """The crops of a frame, all of one size. Raises `UnreadableImage` on a very thin frame."""
        picture = Image.fromarray(frame)
        check_resized(picture.size, self._whole)
        if self._at is None:
            return [_applied(self._steps, picture)]
        before, crop, after = (
            self._steps[: self._at], self._steps[self._at], self._steps[self._at + 1 :]
        )  # fmt: skip
        return [_applied(after, one) for one in _three(crop, _applied(before, picture))]

    def image(self, picture: Image.Image) -> Float[Tensor, "3 h w"]:
        """A crop as the backbone's input."""
        return _applied(self._floats, picture)


def frame_difference(
    crops: list[list[Image.Image]],
) -> Float[Tensor, " changes"]:
    """Mean absolute change of the pixels (0 to 255) from each frame of a view to the next:
    views * (frames - 1) numbers.

    crops: for each view, its frames as the backbone sees them, before normalisation.
    """
    changes = []
    for view in crops:
        pixels = [np.asarray(picture).astype(np.int16) for picture in view]
        changes += [float(np.abs(b - a).mean()) for a, b in pairwise(pixels)]
    return torch.tensor(changes, dtype=torch.float32)


def _applied(steps: list[Callable[[Any], Any]], value: Any) -> Any:
    return reduce(lambda found, step: step(found), steps, value)


def _three(step: Any, picture: Image.Image) -> list[Image.Image]:
    """The crop at the beginning of the longer side, in the middle as the step does, at the end."""
    height, width = step.size
    room = picture.width - width, picture.height - height
    longer = 0 if picture.width >= picture.height else 1
    middle = step(picture)
    if room[longer] <= 0:
        return [middle] * 3
    cut = []
    for offset in (0, room[longer]):
        x, y = (offset, round(room[1] / 2)) if longer == 0 else (round(room[0] / 2), offset)
        cut.append(picture.crop((x, y, x + width, y + height)))
    return [cut[0], middle, cut[1]]
