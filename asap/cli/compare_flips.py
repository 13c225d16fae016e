"""The yes/no answers that the second of two records corrects and corrupts (Appendix K)."""

import logging
from pathlib import Path

from asap.cli.recorded_spec import session_of
from asap.errors import RequestError
from asap.publish.pictures.flips import draw_flips
from asap.records.disk import guarded, write_file
from asap.records.store import Cell
from asap.report.flips import RULE, chosen, flips_of, in_words, to_csv
from asap.report.result import Result

log = logging.getLogger("asap")


def stem_of_pair(first: Result, second: Result) -> str:
    """What the files of a comparison are called."""
    return f"compare-{first.key}-{second.key}"


def show_flips(first: Result, second: Result, cell: Cell, count: int, results: Path) -> None:
    """Count the flips, list all in a CSV, and draw `count` of them if model and data are there.

    Without yes/no questions nothing happens. cell: of the second record.
    """
    found = flips_of(first, second)
    if found is None:
        return
    log.info("%s", in_words(found, first.label, second.label))
    if found.questions.empty:
        return
    stem = f"{stem_of_pair(first, second)}-flips"
    files = [write_file(results / "tables" / f"{stem}.csv", to_csv([(second, found)]))]
    shown = chosen(found.questions, count)
    if not shown.empty:
        log.info("drawn: %s", RULE)
        try:
            session = session_of(cell, second, results)
            with guarded(results / "figures"):
                files += draw_flips(session, (first, second), shown, results / "figures" / stem)
        except RequestError as error:
            log.warning("no pictures of flips: %s", error)
    log.info("files of flips:")
    for path in files:
        log.info("  %s", path)
