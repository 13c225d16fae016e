"""Which setting of a method meets a MACs budget: a search over grids. Nothing is measured here.

MACs need not fall with a knob (a later stop also changes how much is removed), so every setting of
the grid is tried. Where costs can be forecast, the grid is walked on forecasts, and what is
measured are the settings that they put into the window.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, product
from typing import Any

from asap.calibrate.budget import Budget, Forecast, Found, Measure, Options, Point, describe
from asap.calibrate.grid import lines, points_of
from asap.methods.search_space import Knob

CLOSEST = 3  # settings on each side that are measured again to name the nearest
NEAR = 0.1  # points below the budget: one knob alone is not halved further, nor is a forecast


class _Tried:
    """Remembers every setting, so that none is measured twice."""

    def __init__(self, measure: Measure) -> None:
        self.measure = measure
        self.points: dict[str, Point | None] = {}

    def __call__(self, options: dict[str, Any]) -> Point | None:
        key = _key(options)
        if key not in self.points:
            self.points[key] = self.measure(options, True)
        return self.points[key]

    def fully(self, point: Point) -> Point:
        """The point over all images."""
        if point.top1 is None:
            options = dict(point.options)
            self.points[_key(options)] = point = self.measure(options, False) or point
        return point


def _key(options: Options) -> str:
    return repr(sorted(options.items()))


def search(
    knobs: Sequence[Knob],
    budget: Budget,
    measure: Measure,
    forecast: Forecast | None = None,
    blind: bool = False,
) -> Found:
    """The best setting at or up to `window` points below the budget.

    One knob that has a choice, or `blind` (no labels): the setting nearest to the budget. More:
    the best accuracy, ties to the nearest, then to the first tried. If the grids reach no setting
    there, every knob in turn is widened by its values beyond, and what is found then is said but
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
    knobs: Sequence[Knob], budget: Budget, measure: Measure, forecast: Forecast | None = None
) -> Found:
    """`search` by MACs alone, so that no label chooses among settings that all meet the budget.

    The first knob with a choice is turned, the others stay at the row's own values; only if that
    reaches no budget are all of them turned.
    """
    choices = [i for i, knob in enumerate(knobs) if len(knob.grid) > 1]
    if len(choices) > 1:
        first = [replace(knobs[choices[0]], beyond=())]
        found = search(first, budget, measure, forecast, blind=True)
        if found.point is not None:
            return found
    return search(knobs, budget, measure, forecast, blind=True)


def most_accurate(knobs: Sequence[Knob], measure: Measure) -> Found:
    """The most accurate of all settings of these grids, whatever they cost; ties to the first."""
    settings = product(*(knob.grid for knob in knobs))
    names = [knob.name for knob in knobs]
    points = [measure(dict(zip(names, values, strict=True)), False) for values in settings]
    tried = tuple(p for p in points if p is not None)
    return Found(max(tried, key=lambda p: p.top1 or 0.0, default=None), tried)


def _best(
    knobs: Sequence[Knob],
    budget: Budget,
    tried: _Tried,
    forecast: Forecast | None,
    blind: bool,
) -> tuple[Point | None, list[Point]]:
    """The chosen setting of these grids, if any, and all that were tried or forecast for it."""
    single = sum(len(knob.grid) > 1 for knob in knobs) < 2
    near = min(NEAR, budget.window) if single else budget.window
    points = _forecast(knobs, budget, forecast) if forecast else []
    if points:
        likely = _likely(knobs, budget, points)
        points = [p for p in (tried(dict(p.options)) for p in likely) if p is not None] or points
    else:
        points = points_of(knobs, budget, near, tried)
    fitting = [p for p in points if p.top1 is not None and budget.holds(p.macs_pct)]
    rank = (lambda p: p.macs_pct) if single or blind else (lambda p: (p.top1, p.macs_pct))
    return max(fitting, key=rank, default=None), points


def _forecast(knobs: Sequence[Knob], budget: Budget, forecast: Forecast) -> list[Point]:
    """The grid and what is halved between, with forecast costs, measured on no image."""

    def guess(options: dict[str, Any]) -> Point | None:
        cost = forecast(options)
        return None if cost is None else Point(options, cost, None, 0)

    return points_of(knobs, budget, min(NEAR, budget.window), guess)


def _likely(knobs: Sequence[Knob], budget: Budget, points: Sequence[Point]) -> list[Point]:
    """Of the settings forecast in the window the nearest to the budget, one for each time that a
    line along the first knob comes through it.
    """
    knob = next(knob for knob in knobs if knob.grid)
    found = []
    for line in lines(knob, points):
        if knob.between != "nothing":
            line.sort(key=lambda p: knob.rank(p.options[knob.name]))
        for inside, stretch in groupby(line, lambda p: budget.holds(p.macs_pct)):
            found += [max(stretch, key=lambda p: p.macs_pct)] if inside else []
    return found


def _nearest(points: Sequence[Point], budget: Budget, tried: _Tried) -> list[Point]:
    """The settings next to the budget on either side, over all images."""
    ends = []
    for side in (True, False):
        there = [p for p in points if (p.macs_pct > budget.macs_pct) == side]
        there.sort(key=lambda p: abs(p.macs_pct - budget.macs_pct))
        forecast = any(p.images == 0 for p in there[:CLOSEST])  # their order is known
        close = [tried.fully(p) for p in there[: 1 if forecast else CLOSEST]]
        ends += [min(close, key=lambda p: abs(p.macs_pct - budget.macs_pct))] if close else []
    return ends


def _unreachable(
    knobs: Sequence[Knob], budget: Budget, nearest: Sequence[Point], ways: Sequence[Point]
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
