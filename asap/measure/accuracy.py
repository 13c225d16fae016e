"""Answers and traces of a reduced model over a data set, by shards that survive an interruption."""

from collections.abc import Callable
from typing import TypeAlias

from asap.data.base import DataSet
from asap.engine.executor import ReducedViT
from asap.measure.joint_evaluation import Evaluation, OneCell, Target, evaluate_range, missing
from asap.measure.questions import PictureEncoder
from asap.records.shards import Shard
from asap.records.store import Cell
from asap.records.tables import Evaluated, joined

Ranges: TypeAlias = list[tuple[int, int]]  # of images: first, one after the last
ROUNDS = 3  # more than one, in case a terminated process still writes overlapping shards


def evaluate(
    model: ReducedViT | PictureEncoder,
    data: DataSet,
    cell: Cell,
    how: Evaluation,
    advance: Callable[[int], object] = lambda images: None,
    spread: Callable[[Ranges], object] | None = None,
) -> Evaluated:
    """One answer per image. Continues from the cell's shards.

    `advance` is called with the number of images done. `spread(ranges)` evaluates ranges of images
    and leaves their shards in the cell, see `workers.spread`; None: this process does it alone.
    """

    def here(ranges: Ranges) -> None:
        evaluate_ranges(model, data, ranges, cell, how, advance)

    lacking = uncovered(cell.shards(), len(data))
    advance(len(data) - count_of(lacking))
    for _ in range(ROUNDS):
        (spread or here)(lacking)
        parts = cell.shards()
        lacking = uncovered(parts, len(data))
        if not lacking:
            return joined([part for _, _, part in parts])
    raise RuntimeError("saved images are missing: is another process removing them?")


def uncovered(parts: list[Shard], total: int) -> Ranges:
    """The ranges of images that no shard holds."""
    return list(missing([(start, stop) for start, stop, _ in parts], total))


def count_of(ranges: Ranges) -> int:
    """How many images are in ranges."""
    return sum(stop - start for start, stop in ranges)


def evaluate_ranges(
    model: ReducedViT | PictureEncoder,
    data: DataSet,
    ranges: Ranges,
    cell: Cell,
    how: Evaluation,
    advance: Callable[[int], object] = lambda images: None,
) -> None:
    """Evaluate ranges of images in this process and leave them as shards."""
    for start, stop in ranges:
        target = Target(cell, model.method)
        evaluate_range(OneCell(model), data, range(start, stop), [target], how, advance)
