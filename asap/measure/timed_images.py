"""Real images for timing: decoded once, held on the device as bytes, normalised there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from asap.data.base import DataSet
from asap.errors import RequestError

Prepare = Callable[[Tensor], Tensor]  # UInt8[Tensor, "b 3 h w"] -> normalised Float, same shape


@dataclass(frozen=True)
class TimedImages:
    """Images of a data set on a device, in shuffled order, with their ids for random draws."""

    pixels: UInt8[Tensor, "n 3 h w"]
    ids: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.ids)

    def batches(self, size: int) -> list["TimedImages"]:
        """All full batches of `size`; they share no image, and leftover images are not used.

        RequestError if there is no full batch.
        """
        if not 1 <= size <= len(self):
            raise RequestError(f"batch_size={size}: give 1 to {len(self)}, the images there are")
        starts = range(0, len(self) - size + 1, size)
        return [TimedImages(self.pixels[i : i + size], self.ids[i : i + size]) for i in starts]

    @property
    def shape(self) -> torch.Size:
        return self.pixels.shape


def load_pictures(
    data: DataSet,
    count: int,
    mean: Sequence[float],
    std: Sequence[float],
    device: torch.device | str = "cpu",
    seed: int = 0,
) -> TimedImages:
    """`count` images drawn from the whole data set, or all of them if it is smaller; the frames of
    a clip one after the other.

    The data set's samples are normalised with `mean` and `std`. That is undone exactly, since they
    were bytes before. Unreadable images are skipped; RequestError if none is left.
    """
    order = np.random.default_rng(seed).permutation(len(data))
    pixels: list[Tensor] = []
    ids: list[int] = []
    for position in order.tolist():
        if len(ids) >= count:
            break
        sample = data[position]
        if sample.inputs is not None:
            pixels += to_bytes(sample.inputs, mean, std)
            ids += sample.image_ids
    if not ids:
        raise RequestError(
            f"no image to time out of {len(data)}: none can be read, or count={count}"
        )
    return TimedImages(torch.stack(pixels[:count]).to(device), tuple(ids[:count]))


def to_bytes(
    image: Float[Tensor, "*b 3 h w"], mean: Sequence[float], std: Sequence[float]
) -> UInt8[Tensor, "*b 3 h w"]:
    """The bytes that images were before they were scaled to [0, 1] and normalised."""
    centre, spread = (image.new_tensor(values)[:, None, None] for values in (mean, std))
    return ((image * spread + centre) * 255).round().clamp(0, 255).to(torch.uint8)


def normaliser(
    mean: Sequence[float], std: Sequence[float], dtype: torch.dtype, device: torch.device | str
) -> Prepare:
    """A function that turns bytes on the device into normalised images of `dtype`.

    It computes in at least float32.
    """
    kind = torch.promote_types(dtype, torch.float32)
    centre, spread = (
        255 * torch.tensor(values, dtype=kind, device=device)[:, None, None]
        for values in (mean, std)
    )

    def prepare(pixels: UInt8[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return pixels.to(kind).sub_(centre).div_(spread).to(dtype)

    return prepare
