"""The lazy walk of a batch of images, block after block."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.core.accelerated import accelerated
from asap.core.square_products import square_product
from asap.core.transition import first_walk, rollout_on, start_vectors, walk_on, walk_vectors
from asap.methods.asap.options import AsapOptions
from asap.methods.base import Decision, KeptState


@runtime_checkable
class Walk(Protocol):
    """Column mass and class row of every image's cumulative transition matrix; P on demand."""

    def advance(
        self,
        attention: Float[Tensor, "b n n"],
        images: Int[Tensor, "b"],
        block: int,
        watched: Bool[Tensor, "b"] | None = None,
    ) -> int:
        """Walk through one more block (from 0) for some images; returns the MACs per image.

        `watched`: those of them that it matters for (None: all), the others' maps are left over.
        """
        ...

    def mass(self, images: Int[Tensor, "k"]) -> Float[Tensor, "k n"]: ...

    def class_row(self, images: Int[Tensor, "k"]) -> Float[Tensor, "k n"]: ...

    def matrix(
        self, images: Int[Tensor, "k"], every_block: bool = False
    ) -> tuple[Float[Tensor, "k n n"], int]:
        """P of some images, and the MACs per image of computing it once.

        `every_block`: the caller asks in every block, for all images that are still watched.
        """
        ...


@runtime_checkable
class DecidingWalk(Walk, Protocol):
    """A walk that also decides around a sink, which takes one launch on a GPU."""

    def around_sink(
        self, options: AsapOptions, prefix: int, chosen: Bool[Tensor, "b"] | None
    ) -> Decision:
        """What becomes of all images (of the `chosen` ones, if given), with the MACs of P alone.

        For an anchor that the walk's vectors tell and for distances between rows of P, without a
        token budget.
        """
        ...


@dataclass
class VectorWalk:
    """The paper's order. Two vectors per image decide; P is computed only when an image stops.

    Keeps the head-averaged maps of all blocks until the forward pass ends: B L N^2 numbers. The
    images of a block can come in several calls: the maps of an image are in the calls that it was
    in, and images whose P is asked for together were in the same calls from the start. If every
    block was one call, all of them were in it, and nothing has to be read from the device.
    """

    alpha: float
    vectors: Float[Tensor, "images 2 n"]
    maps: list[Float[Tensor, "b n n"]] = field(default_factory=list)
    places: list[Int[Tensor, "images"]] = field(default_factory=list)  # image -> row there, or -1
    blocks: list[int] = field(default_factory=list)  # of the calls
    held: list[Float[Tensor, "images n n"]] = field(default_factory=list)  # P, where it is kept
    grown: int = 0  # calls that are in the P that is kept

    def advance(
        self,
        attention: Float[Tensor, "b n n"],
        images: Int[Tensor, "b"],
        block: int,
        watched: Bool[Tensor, "b"] | None = None,
    ) -> int:
        self.vectors[images] = walk_vectors(self.vectors[images], attention, self.alpha)
        place = images.new_full((len(self.vectors),), -1)
        place[images] = torch.arange(len(images), device=images.device)
        self.maps.append(attention)
        self.places.append(place)
        self.blocks.append(block)
        return 2 * attention.shape[-1] ** 2

    def mass(self, images: Int[Tensor, "k"]) -> Float[Tensor, "k n"]:
        return self.vectors[images, 0]

    def class_row(self, images: Int[Tensor, "k"]) -> Float[Tensor, "k n"]:
        return self.vectors[images, 1]

    def matrix(
        self, images: Int[Tensor, "k"], every_block: bool = False
    ) -> tuple[Float[Tensor, "k n n"], int]:
        if every_block:
            return self._grow(images), (len(self.maps) - 1) * self.vectors.shape[-1] ** 3
        rows = torch.stack(self.places)[:, images]
        shown = [True] * len(rows)
        if len(set(self.blocks)) < len(self.blocks):
            shown = (rows[:, 0] >= 0).tolist()
        calls = [maps for maps, here in zip(self.maps, shown, strict=True) if here]
        rows = rows if all(shown) else rows[shown]
        tokens = self.vectors.shape[-1]
        if square_product(self.vectors) is None:
            walk = self._through([maps[row] for maps, row in zip(calls, rows, strict=True)])
        else:  # image by image: P stays in the cache, and maps need no copies
            walk = self.vectors.new_empty(len(images), tokens, tokens)
            for one, row in zip(walk.split(1), rows.t().tolist(), strict=True):
                self._through([maps[i, None] for maps, i in zip(calls, row, strict=True)], one)
        return walk, (len(calls) - 1) * tokens**3

    def _through(
        self, maps: Sequence[Float[Tensor, "k n n"]], out: Float[Tensor, "k n n"] | None = None
    ) -> Float[Tensor, "k n n"]:
        """P of some images from their maps, from the first block to the last."""
        walk = first_walk(maps[0], self.alpha, out)
        for attention in maps[1:]:
            walk = walk_on(walk, attention, self.alpha, out)
        return walk

    def _grow(self, images: Int[Tensor, "k"]) -> Float[Tensor, "k n n"]:
        """P by one product for each block since the last time; earlier maps are not needed."""
        if not self.held:
            count, tokens = len(self.vectors), self.vectors.shape[-1]
            self.held.append(self.vectors.new_zeros(count, tokens, tokens))
        walk = self.held[0][images]
        for call in range(self.grown, len(self.maps)):
            attention = self.maps[call][self.places[call][images]]
            first = call == 0
            walk = (
                first_walk(attention, self.alpha) if first else walk_on(walk, attention, self.alpha)
            )
            self.maps[call] = attention[:0]
        self.held[0][images], self.grown = walk, len(self.maps)
        return walk


@dataclass
class MatrixWalk:
    """P kept and updated in every block: for rollout order, which has no vector recursion, and for
    measuring the cost of accumulation. Its memory stays, also for passes that are recorded."""

    alpha: float
    order: str
    walk: Float[Tensor, "images n n"]

    def restart(self) -> None:
        """Nothing to do: the first block overwrites P."""

    def advance(
        self,
        attention: Float[Tensor, "b n n"],
        images: Int[Tensor, "b"],
        block: int,
        watched: Bool[Tensor, "b"] | None = None,
    ) -> int:
        attention = attention.to(self.walk.dtype)
        step = rollout_on if self.order == "rollout" else walk_on
        whole = self._whole(images)
        room = self.walk if whole else None
        if block == 0:
            after = first_walk(attention, self.alpha, room)
        else:
            after = step(self.walk if whole else self.walk[images], attention, self.alpha, room)
        if not whole:
            self.walk[images] = after
        return 0 if block == 0 else attention.shape[-1] ** 3

    def mass(self, images: Int[Tensor, "k"]) -> Float[Tensor, "k n"]:
        return (self.walk if self._whole(images) else self.walk[images]).sum(1)

    def class_row(self, images: Int[Tensor, "k"]) -> Float[Tensor, "k n"]:
        return self.walk[images, 0]

    def matrix(
        self, images: Int[Tensor, "k"], every_block: bool = False
    ) -> tuple[Float[Tensor, "k n n"], int]:
        return self.walk[images], 0

    def _whole(self, images: Int[Tensor, "k"]) -> bool:
        """While all images are there they are in the order of the batch, and need no copies."""
        return len(images) == len(self.walk)


@dataclass
class KeptVectors:
    """Column mass and class row of all images in fixed memory, in the order of the batch.

    block: the one that the walk has come to, from 0.
    """

    alpha: float
    vectors: Float[Tensor, "images 2 n"]
    block: int = field(default=0, init=False)

    def mass(self, images: Int[Tensor, "k"]) -> Float[Tensor, "k n"]:
        return self.vectors[:, 0]

    def class_row(self, images: Int[Tensor, "k"]) -> Float[Tensor, "k n"]:
        return self.vectors[:, 1]

    @property
    def matrix_macs(self) -> int:
        """MACs per image of P, by one product in every block after the first."""
        return self.block * self.vectors.shape[2] ** 3


@dataclass
class KeptWalk(KeptVectors):
    """The paper's order in fixed memory: vectors and P of all images go on in every block.

    For passes that are recorded, which can keep nothing block by block: `images` are all images, in
    their order. `walk` is None where no P is needed.
    """

    walk: Float[Tensor, "images n n"] | None

    def restart(self) -> None:
        self.vectors.copy_(start_vectors(len(self.vectors), self.vectors.shape[2], self.vectors))

    def advance(
        self,
        attention: Float[Tensor, "b n n"],
        images: Int[Tensor, "b"],
        block: int,
        watched: Bool[Tensor, "b"] | None = None,
    ) -> int:
        shares = attention.to(self.vectors.dtype)
        self.vectors.copy_(walk_vectors(self.vectors, shares, self.alpha))
        if self.walk is not None:
            if block == 0:
                first_walk(shares, self.alpha, self.walk)
            else:
                walk_on(self.walk, shares, self.alpha, self.walk)
        self.block = block
        return 2 * attention.shape[-1] ** 2

    def matrix(
        self, images: Int[Tensor, "k"], every_block: bool = False
    ) -> tuple[Float[Tensor, "k n n"], int]:
        assert self.walk is not None
        return self.walk, self.matrix_macs


def kept_walk(
    order: str,
    alpha: float,
    keep_matrix: bool,
    with_matrix: bool,
    images: int,
    tokens: int,
    like: Tensor,
) -> KeptState:
    """As `make_walk`, in memory that stays; `with_matrix`: P will be asked for."""
    if order == "walk" and not keep_matrix:
        size = images, tokens, like
        if (found := accelerated("kept_walk", like, alpha, with_matrix, *size)) is not None:
            return found
        room = like.new_zeros(images, tokens, tokens) if with_matrix else None
        return KeptWalk(alpha, start_vectors(*size), room)
    return MatrixWalk(alpha, order, like.new_zeros(images, tokens, tokens))


def make_walk(
    order: str, alpha: float, keep_matrix: bool, images: int, tokens: int, like: Tensor
) -> Walk:
    """The walk for an order; `like` gives dtype and device."""
    if order == "walk" and not keep_matrix:
        return VectorWalk(alpha, start_vectors(images, tokens, like))
    return MatrixWalk(alpha, order, like.new_zeros(images, tokens, tokens))
