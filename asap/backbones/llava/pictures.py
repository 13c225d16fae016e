"""Pictures as LLaVA-1.5 sees them: padded to a square, or resized and cropped at the centre.

`pad` is what LLaVA's authors do: the background is the mean colour of CLIP's training pictures.
`crop` is the default of Hugging Face's processor.
"""

from dataclasses import dataclass
from typing import Any

from PIL import Image
from torchvision.transforms import Compose, InterpolationMode, Normalize, Resize, ToTensor

from asap.backbones.preprocess import Preprocessing
from asap.errors import RequestError

MODES = ("pad", "crop")


@dataclass(frozen=True)
class PictureSettings:
    """What a checkpoint states about pictures: pixels of a side, mean and std from 0 to 1."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass
class PadToSquare:
    """Put a picture into the middle of a square as long as its longer side, of colour `fill`.

    Where the two sides differ by an odd number, the left or upper border is the narrower one.
    """

    fill: Any  # (red, green, blue), or a grey value for pictures of one channel

    def size_after(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the result for a picture of that size."""
        side = max(width, height)
        return side, side

    def __call__(self, picture: Image.Image) -> Image.Image:
        """The padded picture, of the same mode; a square one is returned as it is."""
        width, height = picture.size
        if width == height:
            return picture
        square = Image.new(picture.mode, self.size_after(width, height), self.fill)
        square.paste(picture, ((square.width - width) // 2, (square.height - height) // 2))
        return square


@dataclass
class CropCentre:
    """Cut a square of `size` pixels from the middle; of an odd rest, the half rounded down is cut
    from the left and from the top (torchvision's CenterCrop rounds half to even)."""

    size: int

    def size_after(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the result for a picture of that size."""
        return self.size, self.size

    def __call__(self, picture: Image.Image) -> Image.Image:
        """The crop of a picture whose sides are at least `size`."""
        left, top = (picture.width - self.size) // 2, (picture.height - self.size) // 2
        return picture.crop((left, top, left + self.size, top + self.size))


def check_mode(picture: str) -> None:
    """RequestError for an unknown picture mode."""
    if picture not in MODES:
        raise RequestError(
            f"backbone.preprocess.picture={picture!r} is not possible: use one of "
            f"{', '.join(MODES)}"
        )


def preprocessing_for(
    settings: PictureSettings, patch_grid: tuple[int, int], picture: str
) -> Preprocessing:
    """The steps from an RGB picture to Float[Tensor, "3 size size"], in mode pad or crop.

    Bicubic by Pillow, values from 0 to 1, then mean and std. RequestError for an unknown mode.
    """
    check_mode(picture)
    bicubic, size = InterpolationMode.BICUBIC, settings.size
    if picture == "pad":
        fill = tuple(int(255 * value) for value in settings.mean)
        shaped = [PadToSquare(fill), Resize((size, size), bicubic)]
    else:
        shaped = [Resize(size, bicubic), CropCentre(size)]
    transform: Any = Compose([*shaped, ToTensor(), Normalize(settings.mean, settings.std)])
    identity = {
        "input_size": [3, size, size],
        "interpolation": "bicubic",
        "mean": list(settings.mean),
        "picture": picture,
        "std": list(settings.std),
    }
    return Preprocessing(transform, patch_grid, identity)
