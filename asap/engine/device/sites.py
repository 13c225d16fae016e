"""What a method is shown of a batch whose layout stays on the device."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from asap.backbones.adapter import BackboneAdapter
from asap.core.constants import on_device
from asap.core.ranking import value_norms
from asap.engine.attention import Heads
from asap.engine.device.flow import Layout
from asap.engine.device.memory import Memory
from asap.methods.base import Method, Site

Seen = tuple[Heads | None, Tensor | None]  # heads, and the attention that the method needs


@dataclass(frozen=True)
class Asked:
    """What stays the same while a method is asked about a batch, block after block.

    state, drawn: as in `Site`. image_ids: None in a recording, whose next batch has others.
    """

    adapter: BackboneAdapter
    method: Method
    memory: Memory
    state: Any
    drawn: Tensor | None
    image_ids: list[int] | None = None


def watched(memory: Memory, layout: Layout) -> Bool[Tensor, "b"] | None:
    """The mask of the images that are still watched; None: all of them."""
    return None if layout.length is not None else memory.plans[layout.side].watched


def whole(memory: Memory, layout: Layout) -> Bool[Tensor, "b"] | None:
    """Of these, the images that have all their tokens; None: all of them."""
    shown = watched(memory, layout)
    if shown is None:
        return None
    return shown & (memory.plans[layout.side].offsets.diff() == memory.ones.shape[1])


def site_at(index: int, layout: Layout, seen: Seen, asked: Asked) -> Site:
    """All images at a block. Those that are no longer watched are among them, with any content."""
    method, memory, needs = asked.method, asked.memory, asked.method.needs
    (heads, shown), held = seen, memory.tokens[layout.side]
    images, mixed = len(memory.ones), layout.length is None and method.mixed_lengths
    at, lengths, n = None, None, layout.length or layout.longest
    if layout.length is None:
        n = n if mixed else memory.ones.shape[1]  # watched images have all their tokens
        at, lengths = _rows(memory, layout, n)
    sizes = memory.ones if at is not None and not mixed else by_image(held.sizes, at, images, n)
    norms = None
    if needs.value_norms and heads is not None:
        norms = by_image(value_norms(heads.v), at, images, n)
        if mixed and lengths is not None:
            place = torch.arange(n, device=norms.device)
            norms = norms.masked_fill(place >= lengths[:, None], 0.0)
        norms = norms[:, asked.adapter.anatomy.prefix :]
    return Site(
        anatomy=asked.adapter.anatomy,
        block=index,
        tokens=by_image(held.rows, at, images, n) if needs.tokens else sizes[..., None][..., :0],
        sizes=sizes,
        images=on_device(tuple(range(images)), sizes.device),
        attention=shown,
        keys=by_head(heads.k, at, images, n) if needs.keys and heads else None,
        values=by_head(heads.v, at, images, n) if needs.values and heads else None,
        value_norms=norms,
        drawn=asked.drawn,
        state=asked.state,
        looks=False,
        watched=watched(memory, layout),
        lengths=lengths if mixed else None,
    )


def _rows(memory: Memory, layout: Layout, n: int) -> tuple[Int[Tensor, "b n"], Int[Tensor, "b"]]:
    """The rows of every image's first n tokens, and how many it has. Behind its last one stand rows
    of other images, not those behind the last row of all, which may hold anything.
    """
    offsets = memory.plans[layout.side].offsets
    places = offsets[:-1, None] + torch.arange(n, device=offsets.device)
    return torch.minimum(places, offsets[-1:] - 1).long(), offsets.diff()


def by_image(x: Tensor, at: Tensor | None, images: int, n: int) -> Tensor:
    """Packed rows as (b, n, ...): a view where images follow one another, else a copy."""
    return x[: images * n].unflatten(0, (images, n)) if at is None else x[at]


def by_head(x: Tensor, at: Tensor | None, images: int, n: int) -> Tensor:
    """Keys or values as (b, heads, n, d)."""
    return by_image(x, at, images, n).transpose(1, 2)
