"""Residual, weighted sums by output, compaction and LayerNorm of a packed batch in one pass.

A new row is the sum of its members' `row + update`, rounded to the rows' precision, times their
weights; sums are in float32, in the order of the plan, so the same on every run. A row with one
member of weight 1 is copied bit for bit.
"""

from dataclasses import dataclass
from typing import no_type_check

import torch
from jaxtyping import Float, Int32, Int64
from torch import Tensor
from torch.nn import functional as F

from asap.engine.kernels.launch import jit, next_power_of_2, runs, tl
from asap.engine.kernels.norm import layer_norm
from asap.engine.kernels.regroup_plan import RegroupPlan

SHORT = 8  # members of an output that are added one after the other, for all rows of a tile


@dataclass(frozen=True)
class RegroupedRows:
    """The new rows, and what is known of each: as many as there were, of which those behind the
    last new one have no meaning.

    rows, hidden (their LayerNorm, None if none was asked for): (rows, dim). sizes: patches that a
    row stands for; log_sizes: their natural logarithms; positions: the lowest of its members.
    """

    rows: Float[Tensor, "rows dim"]
    hidden: Float[Tensor, "rows dim"] | None
    sizes: Float[Tensor, "rows"]
    log_sizes: Float[Tensor, "rows"]
    positions: Int64[Tensor, "rows"]

    @staticmethod
    def empty(
        rows: Float[Tensor, "rows dim"], sizes: Float[Tensor, "rows"], norm: bool
    ) -> "RegroupedRows":
        """Room for as many rows, `norm`: with their LayerNorm."""
        return RegroupedRows(
            rows=torch.empty_like(rows),
            hidden=torch.empty_like(rows) if norm else None,
            sizes=torch.ones_like(sizes),
            log_sizes=torch.zeros_like(sizes),
            positions=torch.zeros(len(rows), dtype=torch.int64, device=rows.device),
        )


@jit
@no_type_check
def _sum_of(rows, update, at, mask, HAS_UPDATE: tl.constexpr):
    """row + update, rounded as the rows are, in float32."""
    value = tl.load(rows + at, mask=mask, other=0.0)
    if HAS_UPDATE:
        value = value.to(tl.float32) + tl.load(update + at, mask=mask, other=0.0).to(tl.float32)
        value = value.to(rows.dtype.element_ty)
    return value.to(tl.float32)


@jit(do_not_specialize=["n"])
@no_type_check
def _rows_kernel(
    rows,
    update,
    weight,
    sizes,
    positions,
    old_offsets,
    offsets,
    reduced,
    members,
    begin,
    end,
    new_rows,
    hidden,
    new_sizes,
    log_sizes,
    new_positions,
    norm_weight,
    norm_bias,
    eps,
    n,
    D: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
    CHUNK: tl.constexpr,
    SHORT: tl.constexpr,
    LAST: tl.constexpr,
    HAS_UPDATE: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_NORM: tl.constexpr,
):
    """TILE new rows of one image."""
    image = tl.program_id(1)
    first = tl.load(offsets + image)
    length = tl.load(offsets + image + 1) - first
    if tl.program_id(0) * TILE >= length:
        return
    place = tl.program_id(0) * TILE + tl.arange(0, TILE)
    inside = place < length
    opens = tl.load(begin + first + place, mask=inside, other=0)
    number = tl.load(end + first + place, mask=inside, other=0) - opens
    old = tl.load(old_offsets + image)
    weight += image.to(tl.int64) * n
    weighs = tl.load(reduced + image) != 0
    width = tl.arange(0, WIDTH)
    real = (width < D)[None, :]

    has = number > 0
    member = tl.load(members + opens, mask=has, other=0).to(tl.int64)
    sums = _sum_of(
        rows, update, member[:, None] * D + width[None, :], has[:, None] & real, HAS_UPDATE
    )
    if HAS_WEIGHT:
        share = tl.load(weight + member - old, mask=has & weighs, other=1.0).to(tl.float32)
        sums *= share[:, None]
    size = tl.load(sizes + member, mask=has, other=0.0)
    position = tl.load(positions + member, mask=has, other=0)
    for at in range(1, tl.max(tl.where(number <= SHORT, number, 1), 0)):
        has = (at < number) & (number <= SHORT)
        member = tl.load(members + opens + at, mask=has, other=0).to(tl.int64)
        value = _sum_of(
            rows, update, member[:, None] * D + width[None, :], has[:, None] & real, HAS_UPDATE
        )
        if HAS_WEIGHT:
            share = tl.load(weight + member - old, mask=has & weighs, other=1.0).to(tl.float32)
            value *= share[:, None]
        sums += value
        size += tl.load(sizes + member, mask=has, other=0.0)
        lower = tl.load(positions + member, mask=has, other=LAST)
        position = tl.minimum(position, lower)
    if tl.max(number, 0) > SHORT:
        for one in range(0, TILE):
            mine = tl.arange(0, TILE) == one
            many = tl.sum(tl.where(mine, number, 0), 0)
            if many > SHORT:
                start = tl.sum(tl.where(mine, opens, 0), 0)
                for next_one in range(1, many, CHUNK):
                    steps = next_one + tl.arange(0, CHUNK)
                    further = tl.load(members + start + steps, mask=steps < many, other=0)
                    further = further.to(tl.int64)
                    part = _sum_of(
                        rows,
                        update,
                        further[:, None] * D + width[None, :],
                        (steps < many)[:, None] & real,
                        HAS_UPDATE,
                    )
                    if HAS_WEIGHT:
                        weights = tl.load(
                            weight + further - old, mask=(steps < many) & weighs, other=1.0
                        )
                        part *= weights.to(tl.float32)[:, None]
                    sums += tl.where(mine[:, None], tl.sum(part, 0)[None, :], 0.0)
                    more = tl.sum(tl.load(sizes + further, mask=steps < many, other=0.0), 0)
                    size += tl.where(mine, more, 0.0)
                    low = tl.load(positions + further, mask=steps < many, other=LAST)
                    position = tl.where(mine, tl.minimum(position, tl.min(low, 0)), position)

    new = (first + place).to(tl.int64)
    tl.store(new_sizes + new, size, mask=inside)
    tl.store(log_sizes + new, tl.log(tl.where(size > 0, size, 1.0)), mask=inside)
    tl.store(new_positions + new, position, mask=inside)
    rounded = sums.to(new_rows.dtype.element_ty)
    to = new[:, None] * D + width[None, :]
    tl.store(new_rows + to, rounded, mask=inside[:, None] & real)
    if HAS_NORM:
        value = rounded.to(tl.float32)
        normed = layer_norm(value, norm_weight, norm_bias, eps, D, WIDTH, True, True)
        tl.store(hidden + to, normed.to(hidden.dtype.element_ty), mask=inside[:, None] & real)


def regroup_rows(
    plan: RegroupPlan,
    offsets: Int32[Tensor, "images_1"],
    longest: int,
    rows: Float[Tensor, "rows dim"],
    update: Float[Tensor, "rows dim"] | None,
    sizes: Float[Tensor, "rows"],
    positions: Int64[Tensor, "rows"],
    weight: Float[Tensor, "images n"] | None = None,
    norm: tuple[Tensor, Tensor, float] | None = None,
    out: RegroupedRows | None = None,
) -> RegroupedRows:
    """The rows after a plan.

    offsets: of the old rows, as the plan was made from. longest: no image keeps more tokens. rows
    and `update` (a residual that is not added yet) are contiguous. weight: as given to the plan.
    norm: weight, bias and epsilon of the LayerNorm of the new rows. `out` is overwritten; it must
    not share memory with the arguments.
    """
    out = RegroupedRows.empty(rows, sizes, norm is not None) if out is None else out
    if not runs(rows):
        _plain(plan, rows, update, sizes, positions, weight, offsets, norm, out)
        return out
    dim, images = rows.shape[1], len(offsets) - 1
    width = next_power_of_2(dim, 16)
    tile = max(1, 2048 // width)
    factor, shift, eps = (rows, rows, 0.0) if norm is None else norm
    _rows_kernel[(-(-longest // tile), images)](
        rows,
        rows if update is None else update,
        rows if weight is None else weight.contiguous(),
        sizes,
        positions,
        offsets,
        plan.offsets,
        plan.reduced,
        plan.members,
        plan.begin,
        plan.end,
        out.rows,
        rows if out.hidden is None else out.hidden,
        out.sizes,
        out.log_sizes,
        out.positions,
        factor,
        shift,
        eps,
        0 if weight is None else weight.shape[1],
        D=dim,
        WIDTH=width,
        TILE=tile,
        CHUNK=max(1, 8192 // width),
        SHORT=SHORT,
        LAST=torch.iinfo(torch.int64).max,
        HAS_UPDATE=update is not None,
        HAS_WEIGHT=weight is not None,
        HAS_NORM=norm is not None,
        num_warps=4,
    )
    return out


def _plain(
    plan: RegroupPlan,
    rows: Float[Tensor, "rows dim"],
    update: Float[Tensor, "rows dim"] | None,
    sizes: Float[Tensor, "rows"],
    positions: Int64[Tensor, "rows"],
    weight: Float[Tensor, "images n"] | None,
    offsets: Int32[Tensor, "images_1"],
    norm: tuple[Tensor, Tensor, float] | None,
    out: RegroupedRows,
) -> None:
    """The same in at least float32."""
    total = int(plan.offsets[-1])
    begin, number = plan.begin[:total].long(), (plan.end - plan.begin)[:total].long()
    output = torch.arange(total, device=rows.device).repeat_interleave(number)
    within = torch.arange(len(output), device=rows.device) - (number.cumsum(0) - number)[output]
    member = plan.members[begin[output] + within].long()
    image = torch.searchsorted(offsets[1:].long(), member, right=True)
    share = sizes.new_ones(len(member))
    if weight is not None:
        own = weight[image, member - offsets[image]].to(share.dtype)
        share = torch.where(plan.reduced[image], own, share)
    whole = rows if update is None else rows + update
    kind = torch.promote_types(rows.dtype, torch.float32)
    parts = whole[member].to(kind) * share[:, None].to(kind)
    sums = parts.new_zeros(total, rows.shape[1]).index_add_(0, output, parts).to(rows.dtype)
    copied = ((number == 1)[output]) & (share == 1)
    sums[output[copied]] = whole[member[copied]]
    out.rows[:total] = sums
    out.sizes[:total] = sizes.new_zeros(total).index_add_(0, output, sizes[member])
    out.log_sizes[:total] = out.sizes[:total].log()
    lowest = positions.new_full((total,), torch.iinfo(positions.dtype).max)
    out.positions[:total] = lowest.scatter_reduce(0, output, positions[member], "amin")
    if norm is not None and out.hidden is not None:
        factor, shift, eps = norm
        out.hidden[:total] = F.layer_norm(sums, sums.shape[1:], factor, shift, eps)
