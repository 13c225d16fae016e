"""Patches of images as rows, so that the patch embedding is a matrix product.

A convolution whose stride is its kernel's side is a linear map of patches; the library's
convolution takes 10 to 30 times as long as the product (and changes the layout of its output).
"""

from typing import no_type_check

import torch
from jaxtyping import Float
from torch import Tensor

from asap.engine.kernels.launch import jit, next_power_of_2, runs, tl


@jit
@no_type_check
def _patches_kernel(
    images,
    out,
    CHANNELS: tl.constexpr,
    DOWN: tl.constexpr,
    ACROSS: tl.constexpr,
    SIDE: tl.constexpr,
    WIDTH: tl.constexpr,
    LINES: tl.constexpr,
):
    """LINES lines of patches. A strip, SIDE rows of pixels of one channel, is contiguous: line
    after line of SIDE pixels, which all go to different rows of the output.
    """
    strip = tl.program_id(1)
    row, channel = strip // CHANNELS, strip % CHANNELS
    image = tl.program_id(2).to(tl.int64)
    line = tl.program_id(0) * LINES + tl.arange(0, LINES)
    pixel = tl.arange(0, WIDTH)
    inside = (line < SIDE * ACROSS)[:, None] & (pixel < SIDE)[None, :]
    plane = images + (image * CHANNELS + channel) * (DOWN * SIDE * ACROSS * SIDE)
    given = plane + row * (SIDE * ACROSS * SIDE) + line[:, None] * SIDE + pixel[None, :]
    patch = row * ACROSS + line % ACROSS
    column = channel * (SIDE * SIDE) + line // ACROSS * SIDE
    place = (patch * (CHANNELS * SIDE * SIDE) + column)[:, None] + pixel[None, :]
    first = image * (DOWN * ACROSS * CHANNELS * SIDE * SIDE)
    tl.store(out + first + place, tl.load(given, mask=inside), mask=inside)


def patches_of(
    images: Float[Tensor, "b channels height width"],
    patch: int,
    out: Float[Tensor, "patches numbers"] | None = None,
) -> Float[Tensor, "patches numbers"]:
    """Square patches, row by row, image by image; in each the channels, then rows of pixels.

    That is the order of a convolution's weight: `weight.flatten(1)` embeds them. Height and width
    are multiples of the side `patch`.
    """
    b, channels, height, width = images.shape
    down, across, numbers = height // patch, width // patch, channels * patch * patch
    if (down * patch, across * patch) != (height, width):
        raise ValueError(f"images of {height} x {width} pixels have no whole patches of {patch}")
    if out is None:
        out = torch.empty(b * down * across, numbers, dtype=images.dtype, device=images.device)
    if not runs(images):
        cut = images.reshape(b, channels, down, patch, across, patch)
        out.view(b, down, across, channels, patch, patch).copy_(cut.permute(0, 2, 4, 1, 3, 5))
        return out
    side = next_power_of_2(patch)
    lines = min(4096 // side, next_power_of_2(patch * across))
    _patches_kernel[(-(-patch * across // lines), channels * down, b)](
        images.contiguous(),
        out,
        CHANNELS=channels,
        DOWN=down,
        ACROSS=across,
        SIDE=patch,
        WIDTH=side,
        LINES=lines,
        num_warps=4,
    )
    return out
