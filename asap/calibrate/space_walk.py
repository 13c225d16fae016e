"""Which setting of a method meets a MACs budget: a walk over grids. The caller measures.

MACs need not fall with a knob (a later stop also changes how much is removed), so every setting of
the grid is tried, and a line of the grid that steps over the budget is halved there. Where costs
can be forecast, the grid is walked on forecasts, and what is measured are the settings that they
put into the window.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise, product
from typing import Any

from asap.methods.search_space import SearchDimension

Space = Sequence[SearchDimension]
CLOSEST = 3  # settings on each side that are measured in full to find the nearest
NEAR = 0.1  # points below the budget that are near enough for a single knob, or for a forecast
HALVINGS = 12  # at most, between two neighbours of a grid
Options = Mapping[str, Any]


@dataclass(frozen=True)
class Budget:
    """MACs against dense in %, negative, and how many points below it a setting may lie."""

    macs_pct: float
    window: float

    def holds(self, macs_pct: float, window: float | None = None) -> bool:
        """True if a cost is at the budget or at most `window` points below it."""
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
    """The chosen setting; if none, `reason`, and `ways`: settings that would reach the budget."""

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


def several(knobs: Space) -> bool:
    """True if more than one knob has a choice of values."""
    return sum(len(knob.grid) > 1 for knob in knobs) > 1


def key_of_options(options: Options) -> str:
    """A text that is equal for equal settings, whatever the order of their options."""
    return repr(sorted(options.items()))


def describe(point: Point) -> str:
    """A setting and its cost, in words."""
    options = ", ".join(f"{name}={value}" for name, value in point.options.items())
    return f"{options} ({point.macs_pct:+.2f} % MACs)"


# ---- which setting is chosen


class _Tried:
    """Remembers every setting, so that none is measured twice."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self.points: dict[str, Point | None] = {}

    def __call__(self, options: dict[str, Any]) -> Point | None:
        key = key_of_options(options)
        if key not in self.points:
            self.points[key] = self.measure(options, True)
        return self.points[key]

    def fully(self, point: Point) -> Point:
        """The point over all images."""
        if point.top1 is None:
            options = dict(point.options)
            self.points[key_of_options(options)] = point = self.measure(options, False) or point
        return point


def search(
    knobs: Space,
    budget: Budget,
    measure: Measure,
    forecast: Forecast | None = None,
    blind: bool = False,
) -> Found:
    """The best setting at or up to `window` points below the budget.

    If one knob has a choice, or `blind` (no labels): the setting nearest to the budget. If several
    have: the best accuracy, ties to the nearest, then to the first tried. If no setting of the
    grids is there, every knob in turn is widened by its values beyond; what this finds is reported,
    not chosen.
    """
    tried = _Tried(measure)
    point, seen = _best(knobs, budget, tried, forecast, blind)
    ways = []
    if point is None:
        for i, knob in enumerate(knobs):
            wider = [*knobs[:i], knob.widened(), *knobs[i + 1 :]]
            wider_differs = wider[i].grid != knob.grid
            way = _best(wider, budget, tried, forecast, blind)[0] if wider_differs else None
            ways += [way] if way else []
    ends = [] if point else _nearest(seen, budget, tried)
    reason = None if point else _unreachable(knobs, budget, ends, ways)
    points = tuple(p for p in tried.points.values() if p is not None)
    nearest = min(ends, key=lambda p: abs(p.macs_pct - budget.macs_pct), default=None)
    return Found(point, points, reason, tuple(ways), nearest)


def search_blind(
    knobs: Space, budget: Budget, measure: Measure, forecast: Forecast | None = None
) -> Found:
    """`search` by MACs alone, since labels must not choose among settings that meet the budget.

    The first knob with a choice is varied, the others stay at the row's own values. All of them are
    varied only if that does not reach the budget.
    """
    choices = [i for i, knob in enumerate(knobs) if len(knob.grid) > 1]
    if len(choices) > 1:
        first = [replace(knobs[choices[0]], beyond=())]
        found = search(first, budget, measure, forecast, blind=True)
        if found.point is not None:
            return found
    return search(knobs, budget, measure, forecast, blind=True)


def most_accurate(knobs: Space, measure: Measure) -> Found:
    """The most accurate of all settings of these grids, whatever they cost; ties to the first."""
    settings = product(*(knob.grid for knob in knobs))
    names = [knob.name for knob in knobs]
    points = [measure(dict(zip(names, values, strict=True)), False) for values in settings]
    tried = tuple(p for p in points if p is not None)
    return Found(max(tried, key=lambda p: p.top1 or 0.0, default=None), tried)


def _best(
    knobs: Space,
    budget: Budget,
    tried: _Tried,
    forecast: Forecast | None,
    blind: bool,
) -> tuple[Point | None, list[Point]]:
    """The chosen setting of these grids, if any, and all settings that were tried or forecast."""
    single = not several(knobs)
    near = min(NEAR, budget.window) if single else budget.window
    points = _forecast(knobs, budget, forecast) if forecast else []
    if points:
        likely = _likely(knobs, budget, points)
        points = [p for p in (tried(dict(p.options)) for p in likely) if p is not None] or points
    else:
        points = _points_of(knobs, budget, near, tried)
    fitting = [p for p in points if p.top1 is not None and budget.holds(p.macs_pct)]
    rank = (lambda p: p.macs_pct) if single or blind else (lambda p: (p.top1, p.macs_pct))
    return max(fitting, key=rank, default=None), points


def _forecast(knobs: Space, budget: Budget, forecast: Forecast) -> list[Point]:
    """The settings of the grid and those halved between, with forecast costs: nothing is run."""

    def guess(options: dict[str, Any]) -> Point | None:
        cost = forecast(options)
        return None if cost is None else Point(options, cost, None, 0)

    return _points_of(knobs, budget, min(NEAR, budget.window), guess)


def _likely(knobs: Space, budget: Budget, points: Sequence[Point]) -> list[Point]:
    """The settings to measure, one for each time that a line along the first knob crosses the
    window: the one that is forecast nearest to the budget.
    """
    knob = next(knob for knob in knobs if knob.grid)
    found = []
    for line in _lines(knob, points):
        if knob.between != "nothing":
            line.sort(key=lambda p: knob.rank(p.options[knob.name]))
        for inside, stretch in groupby(line, lambda p: budget.holds(p.macs_pct)):
            found += [max(stretch, key=lambda p: p.macs_pct)] if inside else []
    return found


def _nearest(points: Sequence[Point], budget: Budget, tried: _Tried) -> list[Point]:
    """The nearest settings above and below the budget, measured over all images."""
    ends = []
    for side in (True, False):
        there = [p for p in points if (p.macs_pct > budget.macs_pct) == side]
        there.sort(key=lambda p: abs(p.macs_pct - budget.macs_pct))
        forecast = any(p.images == 0 for p in there[:CLOSEST])  # their order is known
        close = [tried.fully(p) for p in there[: 1 if forecast else CLOSEST]]
        ends += [min(close, key=lambda p: abs(p.macs_pct - budget.macs_pct))] if close else []
    return ends


def _unreachable(
    knobs: Space, budget: Budget, nearest: Sequence[Point], ways: Sequence[Point]
) -> str:
    """One line: what was tried, how near it came, what would reach the budget."""
    varied = " and ".join(k.name for k in knobs if k.grid)
    low, high = budget.macs_pct - budget.window, budget.macs_pct
    text = f"unreachable: no setting of {varied} costs {low:+g} to {high:+g} % MACs"
    text += f"; nearest {' and '.join(map(describe, nearest))}" if nearest else ""
    if ways:
        return f"{text}; would be reached by {' or by '.join(describe(p) for p in ways)}"
    tried = [k.name for k in knobs if k.widened().grid != k.grid]
    return f"{text}; nor do the wider values of {', '.join(tried)}" if tried else text


# ---- the settings of the grids and between them


def _points_of(knobs: Space, budget: Budget, near: float, tried: Try) -> list[Point]:
    """Every setting of the grids; where a line of them steps over the window, it is halved."""
    turned = [knob for knob in knobs if knob.grid]
    settings = (
        {knob.name: value for knob, value in zip(turned, values, strict=True)}
        for values in product(*(knob.grid for knob in turned))
    )
    points = [p for p in map(tried, settings) if p is not None]
    divisible = [k for k in knobs if len(k.grid) > 1 and k.between != "nothing"]
    for knob in (*divisible, *divisible):  # again: one knob's new values are lines for the other
        points += _halved(knob, points, budget, near, tried)
        if any(budget.holds(p.macs_pct) for p in points):
            break
    return points


def _lines(knob: SearchDimension, points: Sequence[Point]) -> list[list[Point]]:
    """The points in groups (lines) that differ in one knob only."""
    found: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        found[repr([v for k, v in point.options.items() if k != knob.name])].append(point)
    return list(found.values())


def _halved(
    knob: SearchDimension, points: Sequence[Point], budget: Budget, near: float, tried: Try
) -> list[Point]:
    """New settings between neighbours along one knob, on lines without a setting near enough."""
    found = []
    for line in _lines(knob, points):
        if any(budget.holds(p.macs_pct, near) for p in line):
            continue
        ordered = sorted(line, key=lambda p: knob.rank(p.options[knob.name]))
        for low, high in pairwise(ordered):
            found += _between(knob, low, high, budget, near, tried)
    return found


def _between(
    knob: SearchDimension, low: Point, high: Point, budget: Budget, near: float, tried: Try
) -> list[Point]:
    """Settings between two on either side of the budget, each nearer to it than the one before."""
    found = []
    for _ in range(HALVINGS):
        if (low.macs_pct > budget.macs_pct) == (high.macs_pct > budget.macs_pct):
            break
        value = knob.middle(low.options[knob.name], high.options[knob.name])
        point = None if value is None else tried({**low.options, knob.name: value})
        if point is None:
            break
        found.append(point)
        if budget.holds(point.macs_pct, near):
            break
        same = (point.macs_pct > budget.macs_pct) == (low.macs_pct > budget.macs_pct)
        low, high = (point, high) if same else (low, point)
    return found
