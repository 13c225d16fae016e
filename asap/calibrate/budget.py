"""A MACs budget, settings with their costs, and what a search over them found."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Budget:
    """MACs against dense in %, negative, and how many points below it a setting may lie."""

    macs_pct: float
    window: float

    def holds(self, macs_pct: float, window: float | None = None) -> bool:
        """Whether a cost is at the budget or at most `window` points below."""
        below = self.window if window is None else window
        return self.macs_pct - below <= macs_pct <= self.macs_pct


@dataclass(frozen=True)
class Point:
    """A setting with its MACs against dense in %, over `images` images.

    top1: accuracy in %, None where measuring ended early because the cost is clearly outside, NaN
    where no label was looked at.
    """

    options: Options
    macs_pct: float
    top1: float | None
    images: int


@dataclass(frozen=True)
class Found:
    """The chosen setting; without one, `reason` and what would reach the budget (`ways`)."""

    point: Point | None
    points: tuple[Point, ...]  # all that were tried, in order
    reason: str | None = None
    ways: tuple[Point, ...] = ()
    nearest: Point | None = None  # without one, the setting nearest to the budget on either side


# Whether measuring may end early; None: options that do not fit together.
Measure = Callable[[dict[str, Any], bool], Point | None]
Try = Callable[[dict[str, Any]], Point | None]  # a setting with its cost, measured or forecast
# MACs against dense in % of a setting without measuring it; None: not possible for this one.
Forecast = Callable[[Options], float | None]


def describe(point: Point) -> str:
    """A setting and what it costs, in words."""
    options = ", ".join(f"{name}={value}" for name, value in point.options.items())
    return f"{options} ({point.macs_pct:+.2f} % MACs)"
