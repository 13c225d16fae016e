"""What a block adds to the trace of all images, in one launch instead of some twenty small ones."""

from dataclasses import dataclass
from typing import Any, no_type_check

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from asap.engine.kernels.launch import jit, next_power_of_2, reaches, tl

MOST = 4  # columns of a launch
LAST, SMALLEST, SMALLEST_COUNT = 1, 2, 3  # how a value meets what is there; 0: no column


@dataclass(frozen=True)
class Written:
    """One value of every image, and where it goes: int64 or float32 (b,), in any strides.

    combine: LAST: the new value counts; SMALLEST: the smaller number, of which NaN is none;
    SMALLEST_COUNT: the smaller one of those that are not negative.
    """

    held: Tensor
    value: Tensor
    combine: int = LAST


@jit
@no_type_check
def _write(held, held_row, value, value_row, image, takes, COMBINE: tl.constexpr):
    """The column's new value for some images."""
    if COMBINE > 0:
        to = held + image * held_row
        new = tl.load(value + image * value_row, mask=takes, other=0).to(held.dtype.element_ty)
        if COMBINE > 1:
            old = tl.load(to, mask=takes, other=0)
            if COMBINE == 2:
                new = tl.where((old < new) | (new != new), old, new)
            else:
                missing = (old < 0) | (new < 0)
                new = tl.where(missing, tl.maximum(old, new), tl.minimum(old, new))
        tl.store(to, new, mask=takes)


# Columns lie in other places of a trace from block to block: aligned in one, not in the next.
@jit(
    do_not_specialize=["images", "number", "spent", "width"],
    do_not_specialize_on_alignment=[
        f"{kind}{i}" for kind in ("held", "value") for i in range(MOST)
    ],
)
@no_type_check
def _values_kernel(
    chosen,
    total,
    macs,
    averaged,
    stop_block,
    held0,
    held1,
    held2,
    held3,
    value0,
    value1,
    value2,
    value3,
    row0,
    row1,
    row2,
    row3,
    step0,
    step1,
    step2,
    step3,
    images,
    number,
    spent,
    width,
    BLOCK: tl.constexpr,
    COMBINE0: tl.constexpr,
    COMBINE1: tl.constexpr,
    COMBINE2: tl.constexpr,
    COMBINE3: tl.constexpr,
    HAS_CHOSEN: tl.constexpr,
    HAS_MACS: tl.constexpr,
    HAS_AVERAGED: tl.constexpr,
    REDUCED: tl.constexpr,
):
    """Values of BLOCK images."""
    image = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    takes = image < images
    if HAS_CHOSEN:
        takes = takes & (tl.load(chosen + image, mask=takes, other=0) != 0)
    added = tl.zeros((BLOCK,), tl.int64) + spent
    if HAS_MACS:
        added = tl.load(macs + image, mask=takes, other=0).to(tl.int64)
    if HAS_AVERAGED:
        added += tl.load(averaged + image, mask=takes, other=0) * width
    tl.store(total + image, tl.load(total + image, mask=takes, other=0) + added, mask=takes)
    if REDUCED:
        before = tl.load(stop_block + image, mask=takes, other=1)
        tl.store(stop_block + image, tl.zeros_like(before) + number, mask=takes & (before == 0))
    _write(held0, row0, value0, step0, image, takes, COMBINE0)
    _write(held1, row1, value1, step1, image, takes, COMBINE1)
    _write(held2, row2, value2, step2, image, takes, COMBINE2)
    _write(held3, row3, value3, step3, image, takes, COMBINE3)


def write_values(
    total: Int[Tensor, "b"],
    macs: int | Int[Tensor, "b"],
    columns: list[Written],
    chosen: Bool[Tensor, "b"] | None = None,
    reduced: tuple[Int[Tensor, "b"], int] | None = None,
    averaged: tuple[Int[Tensor, "b"], int] | None = None,
) -> None:
    """Add `macs` to the `total` of the `chosen` images (None: all), and write their columns.

    reduced: `stop_block`, and the number of this block, which is written where there is none yet.
    averaged: rows averaged of each image and the MACs of one, which are added too.
    """
    if not reaches(total) or len(columns) > MOST:
        _plain(total, macs, columns, chosen, reduced, averaged)
        return
    given = [*columns, *[Written(total, total, 0)] * (MOST - len(columns))]
    block = next_power_of_2(min(len(total), 256), 16)
    how: dict[str, Any] = {f"COMBINE{i}": one.combine for i, one in enumerate(given)}
    _values_kernel[(-(-len(total) // block),)](
        total if chosen is None else chosen,
        total,
        macs if isinstance(macs, Tensor) else total,
        total if averaged is None else averaged[0],
        total if reduced is None else reduced[0],
        *(one.held for one in given),
        *(one.value for one in given),
        *(one.held.stride(0) for one in given),
        *(one.value.stride(0) for one in given),
        len(total),
        0 if reduced is None else reduced[1],
        0 if isinstance(macs, Tensor) else macs,
        0 if averaged is None else averaged[1],
        BLOCK=block,
        **how,
        HAS_CHOSEN=chosen is not None,
        HAS_MACS=isinstance(macs, Tensor),
        HAS_AVERAGED=averaged is not None,
        REDUCED=reduced is not None,
        num_warps=1,
    )


def _plain(
    total: Int[Tensor, "b"],
    macs: int | Int[Tensor, "b"],
    columns: list[Written],
    chosen: Bool[Tensor, "b"] | None,
    reduced: tuple[Int[Tensor, "b"], int] | None,
    averaged: tuple[Int[Tensor, "b"], int] | None,
) -> None:
    """The same operation by operation."""
    takes = torch.ones_like(total, dtype=torch.bool) if chosen is None else chosen
    total += takes * macs
    if averaged is not None:
        total += takes * averaged[0] * averaged[1]
    if reduced is not None:
        held, number = reduced
        held.masked_fill_(takes & (held == 0), number)
    for one in columns:
        old, new = one.held, one.value.to(one.held.dtype)
        if one.combine == SMALLEST:
            new = torch.fmin(old, new)
        elif one.combine == SMALLEST_COUNT:
            missing = (old < 0) | (new < 0)
            new = torch.where(missing, torch.maximum(old, new), torch.minimum(old, new))
        one.held.copy_(torch.where(takes, new, old))
