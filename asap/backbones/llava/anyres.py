"""Pictures as LLaVA-NeXT sees them: the whole picture, and a grid of crops of an enlarged one.

The picture is enlarged with its aspect kept, put into the middle of a black canvas, and the canvas
is cut into tiles of the tower's size. The whole picture is squeezed into one tile, and comes first.

`native` is LLaVA-NeXT: the canvas is chosen for each picture from the checkpoint's list. `fixed` is
what the tables of token reduction use (VisPruner's code: Theia-4869/VisPruner#3): a canvas of two
by two tiles for every picture, whose padding is read too.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose, Normalize, ToTensor

from asap.backbones.llava.pictures import PictureSettings
from asap.backbones.preprocess import Preprocessing
from asap.core.crops import CropGrid
from asap.errors import RequestError

ANYRES = ("fixed", "native")
FIXED = (2, 2)


@dataclass
class AnyRes:
    """Cuts an RGB picture into the whole of it and its crops.

    grids: canvases, as (down, across) in tiles of `settings.size` pixels. patches: of a side of a
    tile. unpads: whether unreduced pictures are read without padding and with newline rows.
    """

    settings: PictureSettings
    grids: tuple[tuple[int, int], ...]
    patches: int
    unpads: bool

    def __post_init__(self) -> None:
        self._to_tensor: Any = Compose(
            [ToTensor(), Normalize(self.settings.mean, self.settings.std)]
        )

    @property
    def crops(self) -> int:
        """The most images that a picture gives, the whole one among them."""
        return 1 + max(down * across for down, across in self.grids)

    def size_after(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the canvas for a picture of that size."""
        down, across = self._best(width, height)
        return across * self.settings.size, down * self.settings.size

    def grid(self, width: int, height: int) -> CropGrid:
        """How the crops of a picture of that size lie."""
        down, across = self._best(width, height)
        window = _window((width, height), (down, across), self.patches) if self.unpads else None
        return CropGrid(down, across, window)

    def views(self, picture: Image.Image) -> list[Image.Image]:
        """The whole picture and its crops, line by line; padding is black."""
        side, bicubic = self.settings.size, Image.Resampling.BICUBIC
        width, height = self.size_after(*picture.size)
        inside = _inside(picture.size, (width, height))
        canvas = Image.new(picture.mode, (width, height))
        corner = (width - inside[0]) // 2, (height - inside[1]) // 2
        canvas.paste(picture.resize(inside, bicubic), corner)
        crops = [
            canvas.crop((x, y, x + side, y + side))
            for y in range(0, height, side)
            for x in range(0, width, side)
        ]
        return [picture.resize((side, side), bicubic), *crops]

    def __call__(self, picture: Image.Image) -> Float[Tensor, "crops 3 side side"]:
        """The views as the tower reads them: values from 0 to 1, then mean and std."""
        return torch.stack([self._to_tensor(view) for view in self.views(picture)])

    def _best(self, width: int, height: int) -> tuple[int, int]:
        """The canvas that shows most pixels of the picture; of equal ones, that with the least
        left over, then the first."""

        def shown(grid: tuple[int, int]) -> tuple[int, int]:
            down, across = (n * self.settings.size for n in grid)
            scale = min(across / width, down / height)
            pixels = min(int(width * scale) * int(height * scale), width * height)
            return pixels, pixels - down * across

        return max(self.grids, key=shown)


def _inside(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int]:
    """(width, height) of a picture enlarged to a canvas, rounded up along the padded side."""
    by_width, by_height = canvas[0] / size[0], canvas[1] / size[1]
    if by_width < by_height:
        return canvas[0], min(math.ceil(size[1] * by_width), canvas[1])
    return min(math.ceil(size[0] * by_height), canvas[0]), canvas[1]


def _window(
    size: tuple[int, int], grid: tuple[int, int], patches: int
) -> tuple[int, int, int, int]:
    """The patches of a canvas that are no padding, as (top, bottom, left, right).

    The rule is that of the model's code, which rounds in patches, not pixels.
    """
    (width, height), (down, across) = size, (grid[0] * patches, grid[1] * patches)
    if width / height > across / down:
        inside = int(round(height * (across / width), 7))
        border = (down - inside) // 2
        return border, down - border, 0, across
    inside = int(round(width * (down / height), 7))
    border = (across - inside) // 2
    return 0, down, border, across - border


def check_anyres(anyres: str) -> None:
    """RequestError for an unknown mode."""
    if anyres not in ANYRES:
        raise RequestError(
            f"backbone.preprocess.anyres={anyres!r} is not possible: use one of {', '.join(ANYRES)}"
        )


def anyres_preprocessing(
    settings: PictureSettings,
    patch_grid: tuple[int, int],
    canvases: Sequence[Sequence[int]],
    anyres: str,
) -> Preprocessing:
    """The steps from an RGB picture to Float[Tensor, "crops 3 size size"]; its transform is an
    `AnyRes`.

    canvases: the checkpoint's list, (height, width) in pixels. RequestError for an unknown mode.
    """
    check_anyres(anyres)
    native = anyres == "native"
    size = settings.size
    grids = tuple((height // size, width // size) for height, width in canvases)
    transform = AnyRes(settings, grids if native else (FIXED,), patch_grid[0], unpads=native)
    identity: dict[str, Any] = {
        "anyres": anyres,
        "input_size": [3, size, size],
        "interpolation": "bicubic",
        "mean": list(settings.mean),
        "std": list(settings.std),
        **({"canvases": [list(one) for one in canvases]} if native else {}),
    }
    return Preprocessing(transform, patch_grid, identity)
