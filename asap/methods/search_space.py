"""What calibration may vary of a method, and what lies between two values of an option."""

from dataclasses import dataclass, replace
from typing import Any, Literal

Between = Literal["nothing", "whole", "real"]
DIGITS = 4  # significant digits of a value found between two others


@dataclass(frozen=True)
class SearchDimension:
    """One option that moves what a method costs.

    name: the option. grid: the values that are tried, none where it stays as it is. between:
    whether "whole" or "real" numbers may be tried between two neighbours of the grid, or
    "nothing". blocks: if above 0, a list of so many whole numbers is allowed too, one entry a
    block, one higher in the first blocks.
    beyond: values tried only where the grid reaches no budget, to say what would reach it.
    """

    name: str
    grid: tuple[Any, ...] = ()
    between: Between = "nothing"
    blocks: int = 0
    beyond: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        """Raises ValueError for a knob without values, and for lists of what is not whole."""
        if not (self.grid or self.beyond) or (self.blocks and self.between != "whole"):
            raise ValueError(f"{self} is not possible: give values, and blocks=0 unless whole")

    def rank(self, value: Any) -> float:
        """Where a value stands on the knob; a list stands at its mean."""
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
        """A total over the blocks as a number or, where it does not divide, as a list."""
        each, rest = divmod(total, steps)
        return each if rest == 0 else [each + 1] * rest + [each] * (steps - rest)

    def widened(self) -> "SearchDimension":
        """The knob with the values beyond its grid."""
        grid = [*self.grid, *(v for v in self.beyond if v not in self.grid)]
        ordered = grid if self.between == "nothing" else sorted(grid, key=self.rank)
        return replace(self, grid=tuple(ordered), beyond=())


def doubling(last: int) -> tuple[int, ...]:
    """0, 1, 2, 4, 8, ... and `last`: a grid for whole numbers that are then halved between."""
    powers = [2**i for i in range(max(last, 1).bit_length()) if 2**i < last]
    return tuple(dict.fromkeys((0, *powers, last)))
