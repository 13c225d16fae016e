"""Apply decisions: move, average and drop tokens, once, for every method."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from asap.core.packed import Ragged, Run
from asap.engine.trace import Trace
from asap.methods.base import Decision


@dataclass(frozen=True)
class Plan:
    """Where every row of a ragged batch goes within its image (-1 = dropped), and its weight."""

    target: Int[Tensor, "total"]
    weight: Float[Tensor, "total"]
    lengths: tuple[int, ...]
    released: frozenset[int]  # images no longer shown to the method


@dataclass(frozen=True)
class Answer:
    """A decision about a run's images, or about the `chosen` ones among them."""

    run: Run
    decision: Decision  # for all of the run's images, whatever it says of the others
    chosen: Bool[Tensor, "images"] | None


def lengths_left(run: Run, answer: Answer | None) -> tuple[int, ...]:
    """Tokens left of every image of a run."""
    count = len(run.images)
    if answer is None:
        return (run.length,) * count
    left = answer.decision.left
    if answer.chosen is None:
        return (left,) * count if isinstance(left, int) else tuple(left.tolist())
    return tuple(torch.where(answer.chosen, left, run.length).tolist())


def plan(batch: Ragged, answers: Sequence[Answer | None]) -> Plan | None:
    """The decisions of all runs as one plan; None if no image changes."""
    target, weight = _places(batch), torch.ones_like(batch.sizes)
    lengths = dict(zip(batch.images, batch.lengths, strict=True))
    released: set[int] = set()
    for answer in answers:
        if answer is None:
            continue
        run, decision, chosen = answer.run, answer.decision, answer.chosen
        view = (len(run.images), run.length)
        if chosen is None:
            chosen = target.new_ones(view[0], dtype=torch.bool)
        old = target[run.rows].view(view)
        target[run.rows] = torch.where(chosen[:, None], decision.target, old).flatten()
        if decision.weight is not None:
            weight[run.rows] = torch.where(chosen[:, None], decision.weight, 1.0).flatten()
        lengths |= zip(run.images, lengths_left(run, answer), strict=True)
        if decision.final:
            released |= {i for i, c in zip(run.images, chosen.tolist(), strict=True) if c}
    if not any(answers):
        return None
    return Plan(target, weight, tuple(lengths[i] for i in batch.images), frozenset(released))


def _places(batch: Ragged) -> Int[Tensor, "total"]:
    """Every row's place within its image."""
    device = batch.rows.device
    lengths = torch.tensor(batch.lengths, device=device)
    starts = (lengths.cumsum(0) - lengths).repeat_interleave(lengths)
    return torch.arange(len(batch.rows), device=device) - starts


def regroup(
    batch: Ragged, moves: Plan, trace: Trace
) -> tuple[Ragged, Int[Tensor, "images"], Int[Tensor, "new"]]:
    """The batch after the plan; per image how many rows were averaged; every new row's old row.

    Watched images come first, the others follow by length. A token with weight 1 and no partner is
    copied bit for bit; averages are taken in at least float32. Updates the trace's assignment.
    """
    order = _order(batch, moves)
    images = tuple(batch.images[i] for i in order)
    lengths = tuple(moves.lengths[i] for i in order)
    destination, owner = _destinations(batch, moves, order)
    valid = destination >= 0
    total = sum(lengths)
    mixed = averaged_rows(destination[None], moves.weight[None])[0]
    source = destination.new_zeros(total)
    kept = valid.nonzero()[:, 0]
    source[destination[kept]] = kept
    rows = batch.rows.index_select(0, source)
    rows = _average(rows, batch, moves, destination, mixed)
    sizes = batch.sizes.new_zeros(total).index_add_(0, destination[valid], batch.sizes[valid])
    averaged = torch.bincount(owner[mixed], minlength=len(images)).cpu()
    _follow(trace, batch, moves.target)
    watched = sum(i not in moves.released for i in batch.images[: batch.watched])
    merged = batch.merged or bool(mixed.any())
    after = replace(
        batch,
        rows=rows,
        sizes=sizes,
        lengths=lengths,
        images=images,
        watched=watched,
        merged=merged,
    )
    return after, averaged, source


def averaged_rows(
    target: Int[Tensor, "b n"], weight: Float[Tensor, "b n"] | None
) -> Bool[Tensor, "b n"]:
    """Tokens that take part in an average: their output has several members, or they a weight."""
    to, kept = target.clamp(min=0), target >= 0
    members = torch.zeros_like(to).scatter_add(1, to, kept.long()).gather(1, to)
    mixed = members > 1 if weight is None else (members > 1) | (weight != 1)
    return mixed & kept


def _order(batch: Ragged, moves: Plan) -> list[int]:
    """Positions of the images in their new order."""
    unwatched = set(batch.images[batch.watched :]) | moves.released

    def key(position: int) -> tuple[bool, int]:
        image = batch.images[position]
        return image in unwatched, moves.lengths[position]

    return sorted(range(len(batch.images)), key=key)


def _destinations(
    batch: Ragged, moves: Plan, order: list[int]
) -> tuple[Int[Tensor, "total"], Int[Tensor, "total"]]:
    """Every row's new row (-1 = dropped), and the image of the batch that it belongs to."""
    device = batch.rows.device
    starts, first = [0] * len(order), 0
    for position in order:
        starts[position] = first
        first += moves.lengths[position]
    old = torch.tensor(batch.lengths, device=device)
    start = torch.tensor(starts, device=device).repeat_interleave(old)
    owner = torch.tensor(batch.images, device=device).repeat_interleave(old)
    return torch.where(moves.target >= 0, start + moves.target, -1), owner


def _average(
    rows: Float[Tensor, "new dim"],
    batch: Ragged,
    moves: Plan,
    destination: Int[Tensor, "total"],
    mixed: Tensor,
) -> Float[Tensor, "new dim"]:
    """Replace the outputs that have several members, or one with a weight, by weighted sums."""
    members = mixed.nonzero()[:, 0]
    if not len(members):
        return rows
    outputs, slot = destination[members].unique(return_inverse=True)
    parts = batch.rows[members].to(batch.sizes.dtype) * moves.weight[members, None]
    sums = parts.new_zeros(len(outputs), rows.shape[1]).index_add_(0, slot, parts)
    rows[outputs] = sums.to(rows.dtype)
    return rows


def _follow(trace: Trace, batch: Ragged, target: Int[Tensor, "total"]) -> None:
    """Patches follow the tokens that hold them."""
    first = 0
    target = target.cpu()
    for run in batch.runs():
        count = len(run.images) * run.length
        local = target[first : first + count].view(len(run.images), run.length)
        first += count
        index = torch.tensor(run.images)
        held = trace.assignment[index]
        moved = local.gather(1, held.clamp(min=0))
        trace.assignment[index] = torch.where(held >= 0, moved, held)
