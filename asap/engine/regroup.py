"""Apply decisions: move, average and drop tokens, once, for every method."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.core.constants import on_device
from asap.core.grouped_sums import grouped_sums
from asap.core.packed import PackedTokens, Segment
from asap.engine.backend import Backend
from asap.engine.host import to_host
from asap.methods.base import Decision


@dataclass(frozen=True)
class Answer:
    """A decision about a segment's images, or about the `chosen` ones among them."""

    segment: Segment
    decision: Decision  # for all of the segment's images; ignored for those not chosen
    chosen: Bool[Tensor, "images"] | None

    def outcome(self) -> Int[Tensor, "2 images"]:
        """Tokens left of every image, and whether it is reduced; on the device."""
        left, chosen = self.decision.left, self.chosen
        if chosen is None:
            chosen = torch.ones(
                len(self.segment.images), dtype=torch.bool, device=self.decision.target.device
            )
        return torch.stack([torch.where(chosen, left, self.segment.length), chosen.long()])


@dataclass(frozen=True)
class Outcome:
    """What the host knows of a block's decisions: tokens left of every image, in packed order, and
    whether it is reduced.
    """

    left: Int[np.ndarray, "images"]
    reduced: Bool[np.ndarray, "images"]


def outcome_of(batch: PackedTokens, answers: Sequence[Answer]) -> Outcome:
    """What becomes of all images.

    Reads the device once, or not at all if every decision has a number of tokens left that was
    known beforehand.
    """
    left, reduced = np.array(batch.lengths), np.zeros(len(batch.lengths), dtype=bool)
    unknown = []
    for answer in answers:
        if isinstance(answer.decision.left, int) and answer.chosen is None:
            left[answer.segment.places] = answer.decision.left
            reduced[answer.segment.places] = True
        else:
            unknown.append(answer)
    if unknown:
        read = to_host(torch.cat([answer.outcome() for answer in unknown], dim=1)).numpy()
        first = 0
        for answer in unknown:
            part = slice(first, first := first + len(answer.segment.images))
            left[answer.segment.places] = read[0, part]
            reduced[answer.segment.places] = read[1, part] > 0
    return Outcome(left, reduced)


def regroup(
    batch: PackedTokens,
    answers: Sequence[Answer],
    outcome: Outcome,
    backend: Backend,
    averages: bool = True,
) -> tuple[PackedTokens, Int[Tensor, "all_images"], Int[Tensor, "new"]]:
    """The batch after the decisions; rows averaged of every image; the old row of every new one.

    Active images come first, the others follow by length. A token with weight 1 and no partner is
    copied bit for bit; averages are taken in at least float32, members in the order of the rows.
    (Sizes and counts are whole numbers, whose sums are exact in any order.) `averages`: False where
    no method may average; where a look is free, ValueError if one does.
    """
    target, weight = _moves(batch, answers)
    active = np.arange(len(batch.lengths)) < batch.active
    final = np.zeros_like(active)
    for answer in answers:
        final[answer.segment.places] = answer.decision.final
    active &= ~(final & outcome.reduced)
    order = np.lexsort((outcome.left, ~active))
    lengths = outcome.left[order]
    total = int(lengths.sum())

    starts = np.empty_like(lengths)
    starts[order] = lengths.cumsum() - lengths
    start = batch.per_row(on_device(tuple(starts.tolist()), target.device))
    destination = torch.where(target >= 0, start + target, -1)
    slot = torch.where(target >= 0, destination, total)  # one row more, for all that is dropped
    old = torch.arange(len(slot), device=slot.device)
    source = slot.new_zeros(total + 1).scatter_(0, slot, old)[:total]
    mixed = averaged_rows(destination[None], weight[None])[0] if averages or backend.looks else None
    if not averages and mixed is not None:
        if bool(mixed.any()):
            raise ValueError("a method cannot average tokens at position 'in_attention'")
        mixed = None
    rows = batch.rows.index_select(0, source)
    if mixed is not None:
        rows = _average(rows, batch, slot, weight, mixed, backend)
    after = replace(
        batch,
        rows=rows,
        sizes=batch.sizes.new_zeros(total + 1).index_add_(0, slot, batch.sizes)[:total],
        positions=_lowest(batch.positions, slot, total),
        source=_followed(batch, target),
        lengths=tuple(lengths.tolist()),
        images=tuple(np.array(batch.images)[order].tolist()),
        active=int(active.sum()),
        merged=batch.merged or (mixed is not None and _merges(mixed, backend)),
    )
    return after, _counted(batch, mixed), source


def averaged_rows(
    target: Int[Tensor, "b n"], weight: Float[Tensor, "b n"] | None
) -> Bool[Tensor, "b n"]:
    """Tokens that take part in an average: they have a weight, or share an output with others."""
    to, kept = target.clamp(min=0), target >= 0
    members = torch.zeros_like(to).scatter_add(1, to, kept.long()).gather(1, to)
    mixed = members > 1 if weight is None else (members > 1) | (weight != 1)
    return mixed & kept


def _moves(
    batch: PackedTokens, answers: Sequence[Answer]
) -> tuple[Int[Tensor, "total"], Float[Tensor, "total"]]:
    """Where every row goes within its image (-1 = dropped), and its weight."""
    target, weight = batch.places(), torch.ones_like(batch.sizes)
    for answer in answers:
        rows, decision, chosen = answer.segment.rows, answer.decision, answer.chosen
        view = (len(answer.segment.images), answer.segment.length)
        where = None if chosen is None else chosen[:, None]
        for held, new in ((target, decision.target), (weight, decision.weight)):
            if new is not None:
                kept = held[rows].view(view)
                held[rows] = (new if where is None else torch.where(where, new, kept)).flatten()
    return target, weight


def _average(
    rows: Float[Tensor, "new dim"],
    batch: PackedTokens,
    slot: Int[Tensor, "total"],
    weight: Float[Tensor, "total"],
    mixed: Bool[Tensor, "total"],
    backend: Backend,
) -> Float[Tensor, "new dim"]:
    """Replace outputs with several members, or with one that has a weight, by weighted sums.

    Where a look is free, only the members of these outputs are summed; else all rows.
    """
    outputs = torch.zeros(len(rows) + 1, dtype=torch.bool, device=rows.device)
    outputs = outputs.index_put((torch.where(mixed, slot, len(rows)),), mixed.new_ones(()))[:-1]
    if not backend.looks:
        parts = batch.rows.to(batch.sizes.dtype) * weight[:, None]
        sums = grouped_sums(parts, slot, len(rows))
        return torch.where(outputs[:, None], sums.to(rows.dtype), rows)
    members, places = mixed.nonzero()[:, 0], outputs.nonzero()[:, 0]
    if not len(members):
        return rows
    parts = batch.rows[members].to(batch.sizes.dtype) * weight[members, None]
    place = (outputs.long().cumsum(0) - 1)[slot[members]]
    rows[places] = grouped_sums(parts, place, len(places)).to(rows.dtype)
    return rows


def _merges(mixed: Bool[Tensor, "total"], backend: Backend) -> bool:
    """False if nothing was averaged, where that can be read without waiting for the device."""
    return bool(mixed.any()) if backend.looks else True


def _counted(batch: PackedTokens, mixed: Bool[Tensor, "total"] | None) -> Int[Tensor, "all_images"]:
    """The number of averaged rows of every image of the batch."""
    none = batch.index.new_zeros(len(batch.source))
    return none if mixed is None else none.index_add_(0, batch.per_row(batch.index), mixed.long())


def _lowest(
    positions: Int[Tensor, "total"], slot: Int[Tensor, "total"], total: int
) -> Int[Tensor, "new"]:
    """The lowest position among the members of every output."""
    held = positions.new_full((total + 1,), torch.iinfo(positions.dtype).max)
    return held.scatter_reduce(0, slot, positions, "amin")[:total]


def _followed(
    batch: PackedTokens, target: Int[Tensor, "total"]
) -> Int[Tensor, "all_images patches"]:
    """Patches follow the tokens that hold them."""
    moved = target[batch.starts()[:, None] + batch.source.clamp(min=0)]
    return torch.where(batch.source >= 0, moved, batch.source)
