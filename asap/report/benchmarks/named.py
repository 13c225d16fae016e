"""The benchmarks of the paper's tables, and how their numbers enter an average there."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

AVERAGE, RELATIVE = "avg", "rel_pct"  # columns of these tables, and keys of ours


@dataclass(frozen=True)
class Benchmark:
    """A benchmark.

    data: its name as data=<name>, and in records; column: in results/paper, and the key of our
    number; divisor: of its number in an average, which the paper takes of MME's total alone;
    tolerance: the largest difference of an unreduced model from the published number; splits: those
    that the published numbers are of, empty: whichever is complete; several: people use several of
    its splits, so tables name it.
    """

    data: str
    column: str
    title: str
    divisor: float = 1.0
    tolerance: float = 0.5
    splits: tuple[str, ...] = ()
    several: bool = False

    @property
    def spec(self) -> str:
        """The format of its numbers."""
        return ".1f" if self.divisor == 1 else ".0f"


BENCHMARKS = (  # in the order of the paper's columns
    Benchmark("gqa", "gqa", "GQA"),
    Benchmark("mme", "mme", "MME", divisor=20.0, tolerance=20.0),
    Benchmark("pope", "pope", "POPE"),
    Benchmark("scienceqa", "sqa_img", "SQA-Img", splits=("test",)),
    Benchmark("vizwiz", "vizwiz", "VizWiz", several=True),
    Benchmark("vqav2", "vqav2", "VQAv2", splits=("test-dev",), several=True),
    Benchmark("mmbench", "mmb_en", "MMB-En"),
)
_BY_COLUMN = {one.column: one for one in BENCHMARKS}
_BY_DATA = {one.data: one for one in BENCHMARKS}


def named(data: str) -> Benchmark:
    """The benchmark of a data set's name; questions of one's own are one that the paper lacks."""
    if data in _BY_DATA:
        return _BY_DATA[data]
    column = "".join(sign if sign.isalnum() else "_" for sign in data.lower())
    return Benchmark(data, column, data)


def in_order(found: Iterable[Benchmark]) -> list[Benchmark]:
    """Each benchmark once: those of the paper in its order, then the others as they come."""
    known = list(dict.fromkeys(found))
    return [*(b for b in BENCHMARKS if b in known), *(b for b in known if b not in BENCHMARKS)]


def average(numbers: Mapping[str, float]) -> float:
    """The paper's Avg of numbers by column: their mean, with MME's total divided by 20.

    ValueError without numbers.
    """
    if not numbers:
        raise ValueError("there is no average of no numbers")
    parts = [value / _divisor(column) for column, value in numbers.items()]
    return sum(parts) / len(parts)


def _divisor(column: str) -> float:
    return _BY_COLUMN[column].divisor if column in _BY_COLUMN else 1.0
