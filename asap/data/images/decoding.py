"""Decodes files to RGB pictures, and maps pixel masks to object patches."""

import copy
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from PIL import Image, UnidentifiedImageError
from timm.data.transforms import CenterCropOrPad, ResizeKeepRatio, TrimBorder
from torch import Tensor
from torchvision.transforms import CenterCrop, Resize

from asap.data.base import PatchGrid, Transform
from asap.data.images.formats import ending_of, formats_of, unread_format
from asap.errors import one_line

MIN_SIDE = 2  # pixels
OBJECT_PERCENT = 10  # a patch with at least this share of object pixels is an object patch
MOST_PIXELS = 2**26  # after resizing (268 MB), which a very thin picture may exceed
_OBJECT_LEVEL = 128  # of 255: from this value on, a pixel of a resized mask's edge is object


class UnreadableImage(Exception):
    """An image that cannot be used. The message is one line, without the path of the image."""


def open_rgb(file: Path | BytesIO, transform: Transform | None = None) -> Image.Image:
    """Decode a file, or its content, as timm's evaluation does: the first frame, as RGB.

    EXIF orientation and colour profiles are ignored. Grey, palette, CMYK and transparent pictures
    are converted; of 16-bit colour the upper 8 bits are read. Raises `UnreadableImage` on damaged
    files, on pictures that are too small or too large (also after resizing by `transform`), and on
    modes that the conversion would clip to white. For the formats see `formats.py`.
    """
    ending = ending_of(file.name) if isinstance(file, Path) else ""
    try:
        with Image.open(file, formats=formats_of(ending)) as image:
            _check(image)
            if transform is not None:
                check_resized(image.size, transform)
            return image.convert("RGB")
    except UnreadableImage:
        raise
    except UnidentifiedImageError as error:
        raise UnreadableImage(_unidentified(file)) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UnreadableImage(_too_large()) from error
    except Exception as error:  # decoders fail on damaged bytes in any way; each one is recorded
        raise UnreadableImage(f"truncated or damaged ({_reason(error)})") from error


class Header(NamedTuple):
    """The header of a picture: Pillow's name of the format; stored (width, height) in pixels."""

    format: str
    size: tuple[int, int]


def header(file: Path | BytesIO) -> Header:
    """The header of a file, or of its content. Raises `UnreadableImage` if there is none."""
    try:
        ending = ending_of(file.name) if isinstance(file, Path) else ""
        with (
            warnings.catch_warnings(action="ignore"),
            Image.open(file, formats=formats_of(ending)) as image,
        ):
            return Header(image.format or "unknown", image.size)
    except Exception as error:  # as in `open_rgb`
        raise UnreadableImage(f"no header of a picture ({_reason(error)})") from error


def _check(image: Image.Image) -> None:
    """Check the header, before any pixel is decoded. Raises `UnreadableImage`."""
    width, height = image.size
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise UnreadableImage(_too_large())
    if min(width, height) < MIN_SIDE:
        raise UnreadableImage(f"{width} x {height} pixels: each side needs at least {MIN_SIDE}")
    if image.mode.startswith("I") or image.mode == "F":
        raise UnreadableImage(f"more than 8 bits a pixel (mode {image.mode}): save it as 8-bit")


def _unidentified(file: Path | BytesIO) -> str:
    """The error text for a file in no supported format."""
    beginning = _beginning(file)
    if (name := unread_format(beginning)) is None:
        return "not an image in a known format"
    return f"not an image in a format that is read, but {name}: save it as JPEG or PNG"


def _beginning(file: Path | BytesIO) -> bytes:
    if isinstance(file, BytesIO):
        return file.getvalue()[:16]
    with file.open("rb") as opened:
        return opened.read(16)


def check_resized(size: tuple[int, int], transform: Transform) -> None:
    """Check that a transform will not resize a picture to no pixels or to too many.

    size: (width, height). Pillow resizes one side after the other, so the picture in between counts
    too. Raises `UnreadableImage`.
    """
    width, height = size
    for step in getattr(transform, "transforms", [transform]):
        after = _after(step, width, height)
        resizes = isinstance(step, Resize | ResizeKeepRatio) or hasattr(step, "size_after")
        most = max(after[0] * after[1], after[0] * height) if resizes else 0
        if min(after) < 1 or most > MOST_PIXELS:
            raise UnreadableImage(
                f"{size[0]} x {size[1]} pixels are too thin: the preprocessing would make it "
                f"{after[0]} x {after[1]}, and may make at most {MOST_PIXELS:,} pixels"
            )
        width, height = after


def _after(step: Any, width: int, height: int) -> tuple[int, int]:
    """(width, height) after a step of a timm evaluation transform, or one that states it."""
    if (stated := getattr(step, "size_after", None)) is not None:
        return stated(width, height)
    if isinstance(step, CenterCrop | CenterCropOrPad):
        return step.size[1], step.size[0]
    if isinstance(step, TrimBorder):
        return width - 2 * step.border_size, height - 2 * step.border_size
    if isinstance(step, ResizeKeepRatio):
        ratios = sorted((height / step.size[0], width / step.size[1]))
        ratio = ratios[1] * step.longest + ratios[0] * (1 - step.longest)
        return round(width / ratio), round(height / ratio)
    if not isinstance(step, Resize):
        return width, height
    sides = [step.size] if isinstance(step.size, int) else list(step.size)
    if len(sides) == 2:
        return sides[1], sides[0]
    short, long = sides[0], int(sides[0] * max(width, height) / min(width, height))
    if step.max_size is not None and long > step.max_size:
        short, long = int(step.max_size * short / long), step.max_size
    return (short, long) if width <= height else (long, short)


def _too_large() -> str:
    return f"more than {Image.MAX_IMAGE_PIXELS:,} pixels: may be a decompression bomb"


def _reason(error: Exception) -> str:
    """The error's text on one line, without the absolute path in an operating system error."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return one_line(text) or type(error).__name__


def mask_to_patches(
    mask: Bool[np.ndarray, "height width"], transform: Transform, patch_grid: PatchGrid
) -> Bool[Tensor, " n_patches"]:
    """Which patches of the transformed picture are object patches, in row-major order; of one that
    is cut into crops, image after image.

    The transform's own geometric steps are applied to the mask, so it still marks the same pixels.
    Raises ValueError if the transform is not a list of steps, or if the grid does not divide the
    transformed picture.
    """
    marked = Image.fromarray(mask.astype(np.uint8) * 255)
    cut = getattr(transform, "views", None)
    views = [_spatial(marked, transform)] if cut is None else cut(marked)
    return torch.cat([_object_patches(view, patch_grid) for view in views])


def _object_patches(picture: Image.Image, patch_grid: PatchGrid) -> Bool[Tensor, " n_patches"]:
    pixels = np.asarray(picture) >= _OBJECT_LEVEL
    rows, columns = patch_grid
    if pixels.shape[0] % rows or pixels.shape[1] % columns:
        raise ValueError(f"a grid of {rows} x {columns} patches does not divide {pixels.shape}")
    patches = pixels.reshape(rows, pixels.shape[0] // rows, columns, -1)
    counts = patches.sum(axis=(1, 3))
    area = pixels.size // counts.size
    return torch.from_numpy(100 * counts >= OBJECT_PERCENT * area).flatten()


def _spatial(picture: Image.Image, transform: Transform) -> Image.Image:
    """Apply the steps of a timm evaluation transform before the one that makes a tensor."""
    steps = getattr(transform, "transforms", None)
    if steps is None:
        raise ValueError("masks need a transform made of steps, as timm's create_transform gives")
    check_resized(picture.size, transform)
    for step in steps:
        result = _padding_with_ground(step)(picture)
        if not isinstance(result, Image.Image):
            break
        picture = result
    return picture


def _padding_with_ground(step: Any) -> Any:
    """The step itself; if it pads pictures with a colour, a copy that pads with zeros."""
    if not hasattr(step, "fill"):
        return step
    step = copy.copy(step)
    step.fill = 0
    return step
