"""A batch of packed images whose lengths the device alone knows."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Int32, Shaped
from torch import Tensor


@dataclass(frozen=True)
class RaggedTokens:
    """Packed tokens, without padding; what lies behind the last image's has no meaning.

    rows, sizes: as in `PackedTokens`. offsets: the first row of every image, and the number of all.
    longest: no image has more tokens. length: of every image, None if they may differ. merged:
    whether any size may differ from 1. source: by image, the token that holds each patch now (-1 =
    dropped).
    """

    rows: Float[Tensor, "rows dim"]
    sizes: Float[Tensor, "rows"]
    offsets: Int32[Tensor, "images_1"]
    longest: int
    length: int | None
    merged: bool
    source: Int[Tensor, "images patches"]

    def first(
        self, values: Float[Tensor, "rows dim"], count: int
    ) -> Float[Tensor, "images count dim"]:
        """The values of every image's first `count` tokens, of which no image has fewer."""
        return values[self.offsets[:-1, None] + torch.arange(count, device=values.device)]

    def behind(
        self, values: Shaped[Tensor, "rows *dim"], skip: int
    ) -> tuple[Shaped[Tensor, "images n *dim"], Bool[Tensor, "images n"] | None]:
        """The values of every image's tokens but the first `skip`, and which of them there are
        (None: all); the others have any value.
        """
        images = len(self.offsets) - 1
        if self.length is not None:
            return values[: images * self.length].unflatten(0, (images, -1))[:, skip:], None
        place = torch.arange(skip, self.longest, device=values.device)
        places = (self.offsets[:-1, None] + place).clamp(max=len(values) - 1)
        return values[places], place < self.offsets.diff()[:, None]
