"""The rows that a vision tower under a method gives a language model, in the order it reads them.

The order is that of the lowest patch that each row holds, unless the method's own order means
something (`Method.own_order`). Prefix rows are not sent, but the class row where the method counts
it in its budget (`Method.class_row_to_llm`).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from asap.core.packed import PackedTokens
from asap.engine.executor import ReducedViT
from asap.engine.host import to_host
from asap.engine.trace import Trace

ORDERS = ("method", "spatial")


@dataclass(frozen=True)
class VisualRows:
    """Rows of several images, image after image: `lengths[i]` rows belong to image i."""

    rows: Float[Tensor, "total dim"]
    lengths: tuple[int, ...]

    def of(self, image: int) -> Float[Tensor, "m dim"]:
        """The rows of one image, in order."""
        first = sum(self.lengths[:image])
        return self.rows[first : first + self.lengths[image]]


class VisualTower:
    """A vision tower under a method as the encoder of a language model.

    order: "method" | "spatial" (by the lowest patch for every method). ValueError for another one,
    and for a model that does not end with plain tokens.
    """

    def __init__(self, model: ReducedViT, order: str = "method") -> None:
        if order not in ORDERS:
            raise ValueError(f"order={order!r} is not possible: use one of {', '.join(ORDERS)}")
        self.model = model
        self.by_patch = order == "spatial" or not model.method.own_order
        prefix = model.adapter.anatomy.prefix
        self.class_row = model.method.class_row_to_llm and model.adapter.anatomy.class_token
        self.not_sent = prefix - self.class_row

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "b 3 h w"], image_ids: Sequence[int] | None = None
    ) -> tuple[VisualRows, Trace, Int[Tensor, "b patches"]]:
        """The rows of each image, what happened to it, and the row that each patch ended in (-1 =
        in none that is sent), on the CPU; all in the order sent.

        Images with equal ids are one picture, which several questions share: it runs once. Its bits
        are those of a run alone. Without ids every image runs.
        """
        if image_ids is None:
            return self._run(images, None)
        ids = [int(one) for one in image_ids]
        first = {one: place for place, one in reversed([*enumerate(ids)])}
        unique = list(dict.fromkeys(ids))
        if len(unique) == len(ids):
            return self._run(images, ids)
        once = images[[first[one] for one in unique]]
        rows, trace, held = self._run(once, unique)
        index = [unique.index(one) for one in ids]
        spread = torch.cat([rows.of(i) for i in index])
        lengths = tuple(rows.lengths[i] for i in index)
        at = torch.tensor(index)
        return VisualRows(spread, lengths), trace.take(at), held[at]

    def _run(
        self, images: Tensor, ids: list[int] | None
    ) -> tuple[VisualRows, Trace, Int[Tensor, "b patches"]]:
        rows, batch, trace = self.model.features(images, ids)
        order, row_of = self._order(batch)
        left = dict(zip(batch.images, batch.lengths, strict=True))
        lengths = tuple(left[i] - self.not_sent for i in range(len(images)))
        held = torch.where(
            batch.source >= 0,
            row_of[batch.starts()[:, None] + batch.source.clamp(min=0)],
            -1,
        )
        return VisualRows(rows[order], lengths), trace, to_host(held)

    def _order(self, batch: PackedTokens) -> tuple[Int[Tensor, "sent"], Int[Tensor, "total"]]:
        """The packed row of every row that is sent, and the place of every packed row among its
        image's sent ones, -1 for one that is not sent."""
        prefix, total = self.model.adapter.anatomy.prefix, len(batch.rows)
        image, place = batch.per_row(batch.index), batch.places()
        stays = place < prefix
        if self.class_row:
            stays &= place > 0
        by = batch.positions if self.by_patch else place
        most = prefix + batch.source.shape[1]  # above every position and place
        key = (image * most + by).masked_fill(stays, len(batch.source) * most)
        sent = total - self.not_sent * len(batch.images)
        order = key.argsort(stable=True)[:sent]
        count = batch.counts.new_zeros(len(batch.source))
        count = count.index_put((batch.index,), batch.counts - self.not_sent)
        starts = count.cumsum(0) - count
        places = torch.arange(sent, device=order.device) - starts[image[order]]
        return order, torch.full_like(image, -1).scatter(0, order, places)
