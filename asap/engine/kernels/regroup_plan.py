"""Where the rows of a packed batch go after a decision, found on the device.

Every image lists its kept tokens sorted by output, then by place (a sort of one key each, so the
same on every run); an output is a range of that list. Images stay in their order.
"""

from dataclasses import dataclass
from typing import no_type_check

import torch
from jaxtyping import Bool, Float, Int, Int32, Int64
from torch import Tensor

from asap.engine.kernels.launch import jit, next_power_of_2, reaches, tl


@dataclass(frozen=True)
class RegroupPlan:
    """What becomes of the rows of B images; rows are numbered in the packed batch.

    offsets: the first new row of every image, and their number. members: the old rows by output;
    new row r takes those from `begin[r]` to `end[r]` (int32, as many as there were old rows; what
    lies behind the last new row has no meaning). reduced: images whose tokens were changed;
    watched: those still to be asked about. source: the token that holds each patch (-1 = dropped).
    averaged: rows averaged in each image. counts: new rows, images watched, most tokens of an
    image, images reduced, for the host.
    """

    offsets: Int32[Tensor, "images_1"]
    members: Int32[Tensor, "rows"]
    begin: Int32[Tensor, "rows"]
    end: Int32[Tensor, "rows"]
    reduced: Bool[Tensor, "images"]
    watched: Bool[Tensor, "images"]
    source: Int64[Tensor, "images patches"]
    averaged: Int64[Tensor, "images"]
    counts: Int32[Tensor, "4"]

    @staticmethod
    def empty(rows: int, images: int, patches: int, device: torch.device) -> "RegroupPlan":
        """Room for the plan of a batch of at most `rows` rows."""

        def room(*shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.zeros(*shape, dtype=dtype, device=device)

        return RegroupPlan(
            offsets=room(images + 1),
            members=room(rows),
            begin=room(rows),
            end=room(rows),
            reduced=room(images, dtype=torch.bool),
            watched=room(images, dtype=torch.bool),
            source=room(images, patches, dtype=torch.int64),
            averaged=room(images, dtype=torch.int64),
            counts=room(4),
        )


@jit(do_not_specialize=["images", "n", "patches", "all_left"])
@no_type_check
def _plan_kernel(
    target,
    weight,
    left,
    chosen,
    watched,
    offsets,
    source,
    new_offsets,
    members,
    begin,
    end,
    reduced,
    still,
    new_source,
    averaged,
    counts,
    images,
    n,
    patches,
    all_left,
    WIDTH: tl.constexpr,
    IMAGES: tl.constexpr,
    PATCHES: tl.constexpr,
    HAS_WEIGHT: tl.constexpr,
    HAS_LEFT: tl.constexpr,
    HAS_CHOSEN: tl.constexpr,
    HAS_WATCHED: tl.constexpr,
    FINAL: tl.constexpr,
):
    """The plan of one image; its first new row is the sum of the lengths before it."""
    image = tl.program_id(0)
    every = tl.arange(0, IMAGES)
    known = every < images
    lengths = tl.load(offsets + every + 1, mask=known, other=0)
    lengths -= tl.load(offsets + every, mask=known, other=0)
    shown = known
    if HAS_WATCHED:
        shown = known & (tl.load(watched + every, mask=known, other=0) != 0)
    taken = shown
    if HAS_CHOSEN:
        taken = shown & (tl.load(chosen + every, mask=known, other=0) != 0)
    remaining = tl.full((IMAGES,), all_left, tl.int32)
    if HAS_LEFT:
        remaining = tl.load(left + every, mask=known, other=0).to(tl.int32)
    lengths = tl.where(taken, remaining, lengths)
    if FINAL:
        shown = shown & (taken == 0)
    here = every == image
    changed = tl.sum((here & taken).to(tl.int32), 0)
    length = tl.sum(tl.where(here, lengths, 0), 0)
    first = tl.sum(tl.where(every < image, lengths, 0), 0)
    tl.store(new_offsets + image + 1, first + length)
    tl.store(reduced + image, (changed != 0).to(reduced.dtype.element_ty))
    watching = tl.sum((here & shown).to(tl.int32), 0)
    tl.store(still + image, (watching != 0).to(still.dtype.element_ty))
    if image == 0:
        tl.store(new_offsets, 0)
        tl.store(counts, tl.sum(lengths, 0))
        tl.store(counts + 1, tl.sum(shown.to(tl.int32), 0))
        tl.store(counts + 2, tl.max(lengths, 0))
        tl.store(counts + 3, tl.sum(taken.to(tl.int32), 0))

    old = tl.load(offsets + image)
    place = tl.arange(0, WIDTH)
    patch = tl.arange(0, PATCHES)
    holder = tl.load(source + image * patches + patch, mask=patch < patches, other=-1)
    target += image.to(tl.int64) * n
    outputs = place < length
    if changed == 0:
        tl.store(members + old + place, old + place, mask=outputs)
        tl.store(begin + first + place, old + place, mask=outputs)
        tl.store(end + first + place, old + place + 1, mask=outputs)
        tl.store(averaged + image, 0)
        tl.store(new_source + image * patches + patch, holder, mask=patch < patches)
        return
    held = (patch < patches) & (holder >= 0)
    moved = tl.load(target + holder, mask=held, other=-1)
    moved = tl.where(held, moved.to(tl.int64), -1)
    tl.store(new_source + image * patches + patch, moved, mask=patch < patches)

    to = tl.load(target + place, mask=place < n, other=-1).to(tl.int32)
    stays = (to >= 0) & (to < length)
    kept = tl.sum(stays.to(tl.int32), 0)
    order = tl.sort(tl.where(stays, to * WIDTH + place, 2147483647))
    listed = place < kept
    tl.store(members + old + place, order, mask=listed)
    tl.store(begin + first + place, old, mask=outputs)  # an output without members is empty
    tl.store(end + first + place, old, mask=outputs)
    tl.debug_barrier()  # each looks at the entries beside its own
    before = tl.load(members + old + place - 1, mask=listed & (place > 0), other=-1)
    after = tl.load(members + old + place + 1, mask=place + 1 < kept, other=-1)
    tl.debug_barrier()
    mine = order // WIDTH
    opens = listed & ((place == 0) | (before // WIDTH != mine))
    closes = listed & ((place + 1 == kept) | (after // WIDTH != mine))
    tl.store(members + old + place, old + order % WIDTH, mask=listed)
    tl.store(begin + first + mine, old + place, mask=opens)
    tl.store(end + first + mine, old + place + 1, mask=closes)
    alone = opens & closes
    if HAS_WEIGHT:
        mine_weight = tl.load(weight + image.to(tl.int64) * n + order % WIDTH, mask=alone, other=1)
        alone = alone & (mine_weight == 1.0)
    tl.store(averaged + image, (kept - tl.sum(alone.to(tl.int32), 0)).to(tl.int64))


def plan_regroup(
    target: Int[Tensor, "images n"],
    left: Int[Tensor, "images"] | int,
    offsets: Int32[Tensor, "images_1"],
    source: Int64[Tensor, "images patches"],
    rows: int,
    weight: Float[Tensor, "images n"] | None = None,
    chosen: Bool[Tensor, "images"] | None = None,
    watched: Bool[Tensor, "images"] | None = None,
    final: bool = False,
    out: RegroupPlan | None = None,
) -> RegroupPlan:
    """The plan of a decision about the `chosen` ones (None: all) of the `watched` images (None:
    all), which have n tokens each; the other images, of any length up to n, stay as they are.

    target, left, weight: as in `asap.methods.base.Decision`, ignored where not chosen. offsets: of
    the old rows, at most `rows`. final: reduced images are no longer watched. `out` is overwritten;
    it must not share `offsets` or `watched` with the arguments, but may share `source`.
    """
    images, n = target.shape
    patches = source.shape[1]
    plan = RegroupPlan.empty(rows, images, patches, target.device) if out is None else out
    if not reaches(target):
        _plain(target, left, offsets, source, weight, chosen, watched, final, plan)
        return plan
    target = target.contiguous()
    _plan_kernel[(images,)](
        target,
        target if weight is None else weight.contiguous(),
        left if isinstance(left, Tensor) else target,
        target if chosen is None else chosen,
        target if watched is None else watched,
        offsets,
        source,
        plan.offsets,
        plan.members,
        plan.begin,
        plan.end,
        plan.reduced,
        plan.watched,
        plan.source,
        plan.averaged,
        plan.counts,
        images,
        n,
        patches,
        left if isinstance(left, int) else 0,
        WIDTH=next_power_of_2(n, 16),
        IMAGES=next_power_of_2(images, 16),
        PATCHES=next_power_of_2(patches, 16),
        HAS_WEIGHT=weight is not None,
        HAS_LEFT=isinstance(left, Tensor),
        HAS_CHOSEN=chosen is not None,
        HAS_WATCHED=watched is not None,
        FINAL=final,
        num_warps=4 if n <= 256 else 8,
    )
    return plan


def _plain(
    target: Int[Tensor, "images n"],
    left: Int[Tensor, "images"] | int,
    offsets: Int32[Tensor, "images_1"],
    source: Int64[Tensor, "images patches"],
    weight: Float[Tensor, "images n"] | None,
    chosen: Bool[Tensor, "images"] | None,
    watched: Bool[Tensor, "images"] | None,
    final: bool,
    plan: RegroupPlan,
) -> None:
    """The same, image by image."""
    images, n = target.shape
    shown = torch.ones(images, dtype=torch.bool, device=target.device)
    shown = shown if watched is None else watched.clone()
    taken = shown if chosen is None else shown & chosen
    lengths = torch.where(taken, left, offsets.diff())
    plan.offsets[0] = 0
    plan.offsets[1:] = lengths.cumsum(0)
    plan.reduced.copy_(taken)
    plan.watched.copy_(shown & ~taken if final else shown)
    most = int(lengths.max()) if images else 0
    counted = int(lengths.sum()), int(plan.watched.sum()), most, int(taken.sum())
    plan.counts.copy_(torch.tensor(counted))
    plan.averaged.zero_()
    held = target.long().gather(1, source.clamp(min=0))
    held = torch.where(source >= 0, held, -1)
    plan.source.copy_(torch.where(taken[:, None], held, source))
    for image in range(images):
        old, first = int(offsets[image]), int(plan.offsets[image])
        length = int(lengths[image])
        if taken[image]:
            to = target[image].long()
            to = torch.where(to < length, to, -1)
            order = to.argsort(stable=True)
            order = order[to[order] >= 0]
            number = torch.bincount(to[order], minlength=length)
            ends = number.cumsum(0)
            own = torch.ones(n, device=to.device) if weight is None else weight[image]
            alone = (number[to[order]] == 1) & (own[order] == 1)
            plan.averaged[image] = len(order) - int(alone.sum())
        else:
            order = torch.arange(length, device=target.device)
            number, ends = torch.ones_like(order), order + 1
        plan.members[old : old + len(order)] = (old + order).int()
        plan.begin[first : first + length] = (old + ends - number).int()
        plan.end[first : first + length] = (old + ends).int()
