"""What "how many tokens" means, the same for every method."""

from collections.abc import Sequence


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


def is_schedule(r: object) -> bool:
    """Whether `r` is a pair (r, inflection) or a list that `tokens_removed` can read."""
    if not isinstance(r, tuple) or not r or not all(_is_number(v) for v in r):
        return False
    if _is_pair(r):
        return r[0] >= 0 and -1 <= r[1] <= 1
    return all(isinstance(v, int) and v >= 0 for v in r)


def _is_pair(r: Sequence[int | float]) -> bool:
    return len(r) == 2 and (isinstance(r[1], float) or r[1] < 0)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
