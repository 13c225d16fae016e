"""What "how many tokens" and "in which blocks" mean, the same for every method."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from asap.core.anatomy import Anatomy
from asap.methods.base import require


def tokens_removed(r: int | Sequence[int | float], depth: int) -> tuple[int, ...]:
    """Tokens removed per block: from a number, a pair (r, inflection) or a list, one entry a block.

    A number is the same in every block. `(r, f)` goes linearly from `trunc(r (1 - f))` to `2 r`
    minus that: f = -1 removes 2 r first and nothing last, f = 0 is constant. Any other list is used
    as it is and padded with zeros. A pair counts as (r, f) if f is a float or negative, as ToMe's
    (8, -1.0).
    """
    if isinstance(r, int):
        return (r,) * depth
    if _is_pair(r):
        first = int(r[0] * (1 - r[1]))
        rise, steps = 2 * r[0] - 2 * first, max(depth - 1, 1)
        return tuple(int(first + index * rise / steps) for index in range(depth))
    return tuple(int(v) for v in r)[:depth] + (0,) * (depth - len(r))


def removed_to_leave(tokens: int, patches: int, depth: int) -> tuple[int, ...]:
    """Tokens removed per block so that exactly `tokens` of the patches are left at the end.

    Spread as evenly as can be, the larger numbers first, and never more than half of what is there:
    576 to 128 in 23 blocks is 20 in the first 11, then 19. If halving in every block is not enough,
    more are left.
    """
    left, removed = patches, []
    for blocks in range(depth, 0, -1):
        even = -(-(left - tokens) // blocks)
        needed = left - tokens * 2 ** (blocks - 1)  # what later blocks could not make up for
        removed.append(min(max(even, needed), left // 2))
        left -= removed[-1]
    return tuple(removed)


def is_schedule(r: object) -> bool:
    """Whether `r` is a pair (r, inflection) or a list that `tokens_removed` can read."""
    if not isinstance(r, tuple) or not r or not all(_is_number(v) for v in r):
        return False
    if _is_pair(r):
        return 0 <= r[0] < math.inf and -1 <= r[1] <= 1
    return all(isinstance(v, int) and v >= 0 for v in r)


def _is_pair(r: Sequence[int | float]) -> bool:
    return len(r) == 2 and (isinstance(r[1], float) or r[1] < 0)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def stage_blocks(blocks: Sequence[int] | None, depth: int) -> tuple[int, ...]:
    """The blocks, from 0, of a method that reduces in a few stages.

    None: the usual ones, which divide the depth into four: 3, 6, 9 of 12 blocks; 4, 8, 12 of 16;
    5, 10, 15 of 20; 6, 12, 18 of 24.
    """
    if blocks is not None:
        return tuple(blocks)
    return tuple(sorted({depth * part // 4 for part in (1, 2, 3)}))


def per_stage(value: Any, stages: int) -> tuple[Any, ...]:
    """One value for every stage: the same number for all, or the list's."""
    return tuple(value) if isinstance(value, tuple) else (value,) * stages


def require_blocks(blocks: Any) -> None:
    """Raise ValueError unless `blocks` is None or rising whole numbers from 0 on."""
    if blocks is None:
        return
    whole = isinstance(blocks, tuple) and all(type(b) is int and b >= 0 for b in blocks)
    rising = whole and all(a < b for a, b in pairwise(blocks))
    require(bool(blocks) and rising, "blocks", blocks, "rising whole numbers, at least 0")


def require_stages(anatomy: Anatomy, blocks: Any, name: str, value: Any) -> None:
    """Raise ValueError unless the stages lie in the network and a list has a value for each."""
    inside = blocks is None or blocks[-1] < anatomy.depth
    require(inside, "blocks", blocks, f"below {anatomy.depth}, the blocks of {anatomy.name}")
    stages = len(stage_blocks(blocks, anatomy.depth))
    fits = not isinstance(value, tuple) or len(value) == stages
    require(fits, name, value, f"a number, or a list of {stages}, one for each of the blocks")


def require_rate(value: Any) -> None:
    """Raise ValueError unless `keep_rate` is a number in (0, 1], or several."""
    rates = per_stage(value, 1)
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in rates)
    inside = bool(rates) and numbers and all(0 < v <= 1 for v in rates)
    require(inside, "keep_rate", value, "in (0, 1], one number or one for each of the blocks")


def require_class_token(anatomy: Anatomy, method: str) -> None:
    """Raise ValueError for a backbone without a class token, whose attention the method reads."""
    if not anatomy.class_token:
        raise ValueError(
            f"{method} scores patches by the class token's attention, and {anatomy.name} has no "
            "class token: choose another method"
        )
