"""The settings of a method's grids, and those between neighbours that step over the budget."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise, product

from asap.calibrate.budget import Budget, Point, Try
from asap.methods.search_space import Knob

HALVINGS = 12  # at most, between two neighbours of a grid


def points_of(knobs: Sequence[Knob], budget: Budget, near: float, tried: Try) -> list[Point]:
    """Every setting of the grids; a line of them that steps over the window is halved there."""
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


def lines(knob: Knob, points: Sequence[Point]) -> list[list[Point]]:
    """The points that differ in one knob only, together."""
    lines: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        lines[repr([v for k, v in point.options.items() if k != knob.name])].append(point)
    return list(lines.values())


def _halved(
    knob: Knob, points: Sequence[Point], budget: Budget, near: float, tried: Try
) -> list[Point]:
    """New settings between neighbours along one knob, on lines without a setting near enough."""
    found = []
    for line in lines(knob, points):
        if any(budget.holds(p.macs_pct, near) for p in line):
            continue
        ordered = sorted(line, key=lambda p: knob.rank(p.options[knob.name]))
        for low, high in pairwise(ordered):
            found += _between(knob, low, high, budget, near, tried)
    return found


def _between(
    knob: Knob, low: Point, high: Point, budget: Budget, near: float, tried: Try
) -> list[Point]:
    """Settings between two that lie on either side of the budget, nearer to it with every step."""
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
