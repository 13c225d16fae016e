"""Where the pixels of a transformed picture come from: a transform as a map of coordinates."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from timm.data.transforms import CenterCropOrPad, ResizeKeepRatio
from torch import Tensor
from torchvision.transforms import CenterCrop, Resize

from asap.data.base import PatchGrid, Transform
from asap.errors import RequestError


@dataclass(frozen=True)
class Map:
    """A point (x, y) of the result comes from (x * scale[0] + offset[0], ...) of the original.

    Coordinates are continuous, in pixels: pixel i covers i to i + 1. `size`: the result's (width,
    height).
    """

    scale: tuple[float, float]
    offset: tuple[float, float]
    size: tuple[int, int]

    def patch_centres(
        self, grid: PatchGrid
    ) -> tuple[Float[Tensor, " n_patches"], Float[Tensor, " n_patches"]]:
        """x and y, in the original, of the patches' centres in row-major order; float64."""
        rows, columns = grid
        x = (torch.arange(columns, dtype=torch.float64) + 0.5) * self.size[0] / columns
        y = (torch.arange(rows, dtype=torch.float64) + 0.5) * self.size[1] / rows
        x, y = x * self.scale[0] + self.offset[0], y * self.scale[1] + self.offset[1]
        return x.repeat(rows), y.repeat_interleave(columns)


def map_of(transform: Transform, size: tuple[int, int]) -> Map:
    """The map of a timm evaluation transform for pictures of (width, height) `size`.

    Raises RequestError on a step whose geometry is not known.
    """
    geometry: list[Any] = []
    for step in getattr(transform, "transforms", [transform]):
        if type(step).__name__ in ("MaybeToTensor", "ToTensor", "MaybePILToTensor", "PILToTensor"):
            break
        geometry.append(step)
    return _composed(tuple(geometry), size)


@lru_cache(maxsize=256)
def _composed(steps: tuple[Any, ...], size: tuple[int, int]) -> Map:
    """The map of resizing and cropping steps."""
    scale, offset = (1.0, 1.0), (0.0, 0.0)
    for step in steps:
        after = step(Image.new("RGB", size)).size  # applied to a blank picture, to round as it does
        if isinstance(step, Resize | ResizeKeepRatio):
            scale = (scale[0] * size[0] / after[0], scale[1] * size[1] / after[1])
        elif isinstance(step, CenterCrop | CenterCropOrPad):
            cut = (_cut(size[0], after[0]), _cut(size[1], after[1]))
            offset = (offset[0] + cut[0] * scale[0], offset[1] + cut[1] * scale[1])
        else:
            raise RequestError(
                f"the preprocessing has the step {type(step).__name__}, through which boxes cannot "
                "be followed: set data.boxes=null"
            )
        size = after
    return Map(scale, offset, size)


def _cut(before: int, after: int) -> int:
    """Pixels cut off before the first one that is kept; negative if padding was added."""
    return round((before - after) / 2) if before >= after else -((after - before) // 2)
