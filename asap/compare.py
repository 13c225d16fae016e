"""python -m asap.compare FIRST SECOND: two records, paired image by image.

FIRST and SECOND are keys of records, or the beginning of one. Without them all records are listed.
Prints the difference with its interval and McNemar's p, and shows the images on which the two
disagree most. Exit codes: 0 done; 2 the request is wrong.
"""

import argparse
import logging
import sys
from pathlib import Path

import pandas as pd

from asap.console import set_up_logging
from asap.errors import RequestError
from asap.measure.pictures import to_bytes
from asap.overview import label_of
from asap.report.disagreement import Comparison, compare
from asap.report.pairs import Pair, pair_sheet
from asap.report.result import CellResult
from asap.runs.disk import guarded
from asap.runs.paths import path_argument
from asap.runs.saved import saved_spec
from asap.runs.store import Cell, Store
from asap.scenes.panels import NOT_FINITE, named
from asap.session import Session

log = logging.getLogger("asap")


def main(arguments: list[str] | None = None) -> int:
    """Compare, or list what can be compared; the exit code."""
    given = _parser().parse_args(arguments)
    set_up_logging()
    try:
        cells = _cells(given.results)
        if given.first is None:
            _list(cells)
            return 0
        first, second = _two(cells, given.first, given.second)
        found = compare(_result(first), _result(second))
        log.info("%s", summary(found))
        _show_images(found, first, given.images, given.results)
    except RequestError as error:
        log.error("error: %s", error)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    assert __doc__ is not None
    title, _, text = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m asap.compare", description=title.partition(": ")[2], epilog=text
    )
    parser.add_argument("first", nargs="?", help="key of the reference, such as b4b9a68e")
    parser.add_argument("second", nargs="?", help="key of the record that is set against it")
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
    return [cell for cell in Store(results / "runs").cells() if cell.accuracy()]


def _list(cells: list[Cell]) -> None:
    if not cells:
        raise RequestError("there is no accuracy record yet: run an experiment first")
    for cell in cells:
        record = cell.accuracy()
        assert record is not None
        about = f"{label_of(record)}, {record['backbone']}, {record['data']}"
        log.info("%s  top-1 %6.2f %%  %s", cell.key, record["top1"], about)
    log.info("compare two of them: python -m asap.compare %s %s", cells[0].key, cells[-1].key)


def _find(cells: list[Cell], start: str) -> Cell:
    """The one record whose key begins so."""
    found = [cell for cell in cells if cell.key.startswith(start)]
    if len(found) != 1:
        what = "no record" if not found else f"{len(found)} records"
        raise RequestError(
            f"{what} with a key that begins with {start!r}: python -m asap.compare lists all"
        )
    return found[0]


def _two(cells: list[Cell], first: str, second: str | None) -> tuple[Cell, Cell]:
    if second is None:
        raise RequestError(f"{first!r} alone cannot be compared: give the key of a second record")
    found = _find(cells, first), _find(cells, second)
    if found[0].key == found[1].key:
        raise RequestError(f"{first!r} and {second!r} are one record: give two different ones")
    return found


def _result(cell: Cell) -> CellResult:
    record = cell.accuracy()
    assert record is not None
    return CellResult(label_of(record), None, False, record, cell.predictions, None)


def summary(found: Comparison) -> str:
    """The comparison in words."""
    paired, (low, high) = found.paired, found.paired.interval
    lines = [_line("first ", found.first), _line("second", found.second)]
    lines += [
        f"second - first: {paired.difference:+.2f} points, 95 % interval "
        f"[{low:+.2f}, {high:+.2f}], n = {paired.n:,}",
        f"only the first is right on {paired.b:,} images, only the second on {paired.c:,}: "
        f"McNemar's exact p = {paired.p:.3g}",
        f"different predictions on {len(found.images):,} images",
    ]
    return "\n".join(lines)


def _line(place: str, result: CellResult) -> str:
    record = result.measured
    gmacs = record["gmacs_backbone"] + record["gmacs_method"]
    return (
        f"{place}: {result.label} ({record['backbone']}), top-1 {record['top1']:.2f} %, "
        f"{gmacs:.4g} GMACs, record {record['key']}"
    )


def _show_images(found: Comparison, cell: Cell, count: int, results: Path) -> None:
    """The surest disagreements in lines and, where the data is still there, as pictures."""
    shown = found.images.head(count)
    for row in shown.itertuples():
        first, second = (NOT_FINITE if c < 0 else c for c in (row.first, row.second))
        log.info("  %s: label %s, first %s, second %s", row.path, row.label, first, second)
    if shown.empty:
        return
    stem = f"compare-{found.first.key}-{found.second.key}"
    try:
        files = _draw(found, shown, cell, results / "figures" / stem)
    except RequestError as error:
        log.warning("no pictures: %s", error)
        return
    log.info("files:")
    for path in files:
        log.info("  %s", path)


def _class(predicted: int) -> int | None:
    return None if predicted < 0 else predicted


def _draw(found: Comparison, shown: pd.DataFrame, cell: Cell, path: Path) -> list[Path]:
    """RequestError where the record's data or backbone is not to be had."""
    session = Session(saved_spec(cell))
    data, pre = session.data, session.preprocessing.identity
    if data.digest != found.first.measured["identity"]["data"]["content"]:
        raise RequestError("the data is no longer what the record was made from")
    pairs = []
    for row in shown.to_dict("records"):
        image = data[row["index"]].image
        if image is None:
            continue
        pixels = to_bytes(image, pre["mean"], pre["std"]).permute(1, 2, 0).numpy()
        said = (named(_class(row[name]), data.classes) for name in ("label", "first", "second"))
        pairs.append(Pair(pixels, *said))
    with guarded(path.parent):
        return pair_sheet(pairs, (found.first.label, found.second.label), path)


if __name__ == "__main__":
    sys.exit(main())
