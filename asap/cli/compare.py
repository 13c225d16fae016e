"""python -m asap.compare: two records, paired image by image.

    python -m asap.compare demo "ToMe" "ASAP (pool.)"    two rows of a table
    python -m asap.compare 1f882d13 48f8c71b             two records by their keys
    python -m asap.compare demo                          the rows of a table with their keys
    python -m asap.compare                               all records

A table is called by its title or file name, a row by its label; the beginning of a title, label or
key is enough where it is the only one. Prints the difference with its interval and McNemar's p, and
shows the images on which the two disagree most. Of yes/no questions it counts, lists in a CSV and
draws the answers that the second row corrects and corrupts. Exit codes: 0 done; 2 the request is
wrong.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from asap.cli.compare_flips import show_flips, stem_of_pair
from asap.cli.console import Parser, as_flags, set_up_logging
from asap.cli.recorded_spec import session_of
from asap.errors import RequestError, counted
from asap.measure.timed_images import to_bytes
from asap.publish.all_records import label_of
from asap.publish.pictures.panels import NOT_FINITE, named
from asap.records.disk import guarded
from asap.records.store import Cell, Store
from asap.report.answer_text import answer_text
from asap.report.benchmarks.named import named as named_benchmark
from asap.report.benchmarks.values import score_of
from asap.report.disagreement import Comparison, compare
from asap.report.named import row_named, table_named
from asap.report.nonfinite import nonfinite
from asap.report.pairs import Pair, pair_sheet
from asap.report.result import Result, RowRef, accuracy_name
from asap.report.statistics import PairedDifference
from asap.spec.paths import path_argument

log = logging.getLogger("asap")


def main(arguments: list[str] | None = None) -> int:
    """Compare, or list what can be compared; the exit code."""
    given = _parser().parse_args(as_flags(arguments, "results"))
    set_up_logging()
    try:
        cells = _cells(given.results)
        if len(given.names) < 2:
            _list(cells, given.results, given.names)
            return 0
        first, second = _two(cells, given.results, given.names)
        found = compare(first, second)
        log.info("%s", summary(found))
        _show_images(found, _find(cells, str(first.key)), given.images, given.results)
        show_flips(first, second, _find(cells, str(second.key)), given.images, given.results)
    except RequestError as error:
        log.error("error: %s", error)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m asap.compare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", help="two keys, or a table and two of its rows")
    parser.add_argument(
        "--results", type=path_argument, default=Path("results"), help="default: results"
    )
    parser.add_argument("--images", type=_count, default=8, help="how many to show; default: 8")
    return parser


def _count(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not possible: give 0 or more")
    return int(text)


def _cells(results: Path) -> list[Cell]:
    if not (results / "runs").is_dir():
        raise RequestError(f"{results}/runs does not exist: run an experiment first, or make demo")
    return [cell for cell in Store(results / "runs").cells() if cell.record("accuracy")]


def _list(cells: list[Cell], results: Path, names: list[str]) -> None:
    """All records, or those of one table."""
    if not cells:
        raise RequestError("there is no accuracy record yet: run an experiment first")
    if names and any(cell.key.startswith(names[0]) for cell in cells):
        raise RequestError(f"{names[0]!r} alone cannot be compared: give the key of another record")
    called = {cell.key: label_of(_record(cell)) for cell in cells}
    if names:
        rows = table_named(results, names[0]).rows
        named = [(row.records.get("accuracy"), row.label) for row in rows]
        called = {key: label for key, label in named if key in called}
    listed = [cell for cell in cells if cell.key in called]
    for cell in listed:
        record = _record(cell)
        about = f"{called[cell.key]}, {record['backbone']}, {record['data']}"
        name = accuracy_name(record)
        log.info("%s  %s %6.2f %%  %s", cell.key, name, record["top1"], about)
    if len(listed) > 1:
        log.info("compare two of them: python -m asap.compare %s %s", listed[0].key, listed[-1].key)


def _two(cells: list[Cell], results: Path, names: list[str]) -> tuple[Result, Result]:
    """Two records by their keys, or by their rows in a table."""
    if len(names) > 3:
        raise RequestError(f"{len(names)} names are given: give two keys, or a table and two rows")
    if len(names) == 3:
        table = table_named(results, names[0])
        rows = [row_named(table, name) for name in names[1:]]
        found = [_result(_find(cells, row.records["accuracy"]), row.label) for row in rows]
    else:
        found = [_result(_find(cells, name)) for name in names]
    if found[0].key == found[1].key:
        first, second = names[-2:]
        raise RequestError(f"{first!r} and {second!r} are one record: give two different ones")
    return found[0], found[1]


def _find(cells: list[Cell], start: str) -> Cell:
    """The one record whose key begins so."""
    found = [cell for cell in cells if cell.key.startswith(start)]
    if len(found) != 1:
        what = "no record" if not found else f"{len(found)} records"
        raise RequestError(
            f"{what} with a key that begins with {start!r}: python -m asap.compare lists all; or "
            "give a table and the labels of two of its rows"
        )
    return found[0]


def _record(cell: Cell) -> dict[str, Any]:
    record = cell.record("accuracy")
    assert record is not None
    return record


def _result(cell: Cell, label: str | None = None) -> Result:
    row = RowRef(label or label_of(_record(cell)), records={"accuracy": cell.key})
    return Result.from_store(Store(cell.path.parent), row)


def summary(found: Comparison) -> str:
    """The comparison in words."""
    paired, (low, high) = found.paired, found.paired.interval
    examples = found.first.things
    lines = [_line("first ", found.first), _line("second", found.second)]
    lines += [
        f"second - first: {paired.difference:+.2f} points, 95 % interval "
        f"[{low:+.2f}, {high:+.2f}], n = {paired.n:,}",
        _which(paired, examples),
        *_of_numbers(found),
        f"different predictions on {counted(len(found.images), examples[:-1])}",
    ]
    return "\n".join(lines)


def _of_numbers(found: Comparison) -> list[str]:
    """A line on a benchmark's number, where that is no mean of scores."""
    score, change = score_of(found.second), found.number
    if score is None or change is None:
        return []
    said = f"{named_benchmark(score['name']).title}, second - first: {change.difference:+.2f}"
    if change.interval is not None:
        said += f", 95 % interval [{change.interval[0]:+.2f}, {change.interval[1]:+.2f}]"
    return [f"{said} ({score['metric']})"]


def _which(paired: PairedDifference, examples: str) -> str:
    lost = counted(paired.b, examples[:-1])
    if paired.partial:
        return (
            f"the second scores less on {lost} and more on {paired.c:,}: "
            f"Student's p = {paired.p:.3g}"
        )
    return (
        f"only the first is right on {lost}, only the second on {paired.c:,}: "
        f"McNemar's exact p = {paired.p:.3g}"
    )


def _line(place: str, result: Result) -> str:
    record = result.measured
    return (
        f"{place}: {result.label} ({record['backbone']}), {accuracy_name(record)} "
        f"{record['top1']:.2f} %, {result.gmacs:.4g} GMACs, n = {record['n']:,}, "
        f"{record['n_failed']:,} unreadable, {nonfinite(record):,} not finite, "
        f"record {record['key']}"
    )


def _show_images(found: Comparison, cell: Cell, count: int, results: Path) -> None:
    """Print the surest disagreements and, if the data is still there, draw them."""
    shown = found.images.head(count)
    for row in shown.to_dict("records"):
        first, second = (
            NOT_FINITE if (said := _said(row[n])) is None else _in_line(said)
            for n in ("first", "second")
        )
        about = row["path"]
        if "question" in row:
            about += f": {answer_text(row['question'])}"
        log.info("  %s: label %s, first %s, second %s", about, row["label"], first, second)
    if shown.empty:
        return
    stem = stem_of_pair(found.first, found.second)
    try:
        files = _draw(found, shown, cell, results, results / "figures" / stem)
    except RequestError as error:
        log.warning("no pictures: %s", error)
        return
    log.info("files:")
    for path in files:
        log.info("  %s", path)


def _said(predicted: int | str | None) -> int | str | None:
    """The predicted class or the answer; None if it is not finite."""
    return None if isinstance(predicted, int) and predicted < 0 else predicted


def _in_line(said: int | str) -> int | str:
    return answer_text(said) if isinstance(said, str) else said


def _in_words(predicted: int | str | None, classes: Sequence[str]) -> str:
    said = _said(predicted)
    return answer_text(said) if isinstance(said, str) else named(said, classes)


def _draw(
    found: Comparison, shown: pd.DataFrame, cell: Cell, results: Path, path: Path
) -> list[Path]:
    """Draw the pairs as pictures. RequestError if the record's data or backbone is missing."""
    session = session_of(cell, found.first, results)
    data, pre = session.data, session.preprocessing.identity
    pairs = []
    for row in shown.to_dict("records"):
        inputs = data[row["index"]].inputs
        if inputs is None:
            continue
        image = inputs[len(inputs) // 2]  # of a clip its middle frame
        pixels = to_bytes(image, pre["mean"], pre["std"]).permute(1, 2, 0).numpy()
        label, first, second = (
            _in_words(row[name], data.classes) for name in ("label", "first", "second")
        )
        right = bool(row["first_right"]), bool(row["second_right"])
        pairs.append(Pair(pixels, label, first, second, right, asked=row.get("question", "")))
    with guarded(path.parent):
        return pair_sheet(pairs, (found.first.label, found.second.label), path)
