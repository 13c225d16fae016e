"""What calibration may vary of a method, and what lies between two values of an option."""

from dataclasses import dataclass, replace
from typing import Any, Literal

Between = Literal["nothing", "whole", "real"]
DIGITS = 4  # significant digits of a value found between two others


@dataclass(frozen=True)
class SearchDimension:
    """One option that changes the cost of a method (a knob).

    name: the option. grid: the values to try; empty if it stays as it is. between: whether "whole"
    or "real" numbers may be tried between two neighbours of the grid, or "nothing". blocks: if
    above 0, a list of that many whole numbers is allowed too, one entry a block, one higher in the
    first blocks. beyond: values tried only if the grid does not reach the budget, to say what would
    reach it.
    """

    name: str
    grid: tuple[Any, ...] = ()
    between: Between = "nothing"
    blocks: int = 0
    beyond: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError without values, and for `blocks` with numbers that are not whole."""
        if not (self.grid or self.beyond) or (self.blocks and self.between != "whole"):
            raise ValueError(f"{self} is not possible: give values, and blocks=0 unless whole")

    def rank(self, value: Any) -> float:
        """The position of a value on the knob; a list is at its mean."""
        return float(sum(value) / len(value) if isinstance(value, list | tuple) else value)

    def middle(self, low: Any, high: Any) -> Any | None:
        """A value about halfway between two others, None if nothing lies between them."""
        if self.between == "nothing":
            return None
        if self.between == "real":
            middle = float(f"{(low + high) / 2:.{DIGITS}g}")
            return middle if low < middle < high else None
        steps = max(self.blocks, 1)
        first, last = (round(self.rank(value) * steps) for value in (low, high))
        return None if last - first < 2 else self._whole((first + last) // 2, steps)

    def _whole(self, total: int, steps: int) -> int | list[int]:
        """A total over the blocks as one number or, if it does not divide evenly, as a list."""
        each, rest = divmod(total, steps)
        return each if rest == 0 else [each + 1] * rest + [each] * (steps - rest)

    def widened(self) -> "SearchDimension":
        """The knob with the values of `beyond` in its grid."""
        grid = [*self.grid, *(v for v in self.beyond if v not in self.grid)]
        ordered = grid if self.between == "nothing" else sorted(grid, key=self.rank)
        return replace(self, grid=tuple(ordered), beyond=())


def doubling(last: int) -> tuple[int, ...]:
    """0, 1, 2, 4, 8, ... and `last`: a grid of whole numbers, for a knob that may be halved."""
    powers = [2**i for i in range(max(last, 1).bit_length()) if 2**i < last]
    return tuple(dict.fromkeys((0, *powers, last)))
