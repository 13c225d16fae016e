"""python -m asap.report: tables and one page, report.html, from all records of a results folder.

    python -m asap.report
    python -m asap.report /my/results

Exit codes: 0 done; 1 some tables could not be made (listed; the others are written); 2 the request
is wrong, or there is no record.
"""

import argparse
import sys
from pathlib import Path

from asap.cli.console import Parser
from asap.errors import RequestError
from asap.publish.all_records import current_keys, grouped, write_page
from asap.records.disk import shortened, write_file
from asap.records.store import Store
from asap.report.benchmarks.values import score_of
from asap.report.latex import to_latex
from asap.report.premise import premise_remark
from asap.report.result import Result
from asap.report.result_table import build_table
from asap.report.table_parts import parts
from asap.report.timm_csv import to_timm_csv
from asap.spec.paths import path_argument


def main(arguments: list[str] | None = None) -> int:
    """Write results/tables/all-*.{md,csv,tex} and results/report.html. The exit code: 1 if some
    records could not be shown, 2 without a record.
    """
    parser = Parser(
        prog="python -m asap.report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "results", nargs="?", type=_folder, default=Path("results"), help="default: results"
    )
    folder = parser.parse_args(arguments).results
    refused: list[str] = []
    try:
        for path in [*write_tables(folder, refused), write_page(folder)]:
            sys.stdout.write(f"{path}\n")
        code = 1 if refused else 0
    except RequestError as error:
        refused.append(str(error))
        code = 2
    sys.stderr.writelines(f"error: {line}\n" for line in refused)
    return code


def _folder(text: str) -> Path:
    """The folder; it can also be given as for the other commands: results=<folder>."""
    return path_argument(text.removeprefix("results="))


def write_tables(results: Path, refused: list[str]) -> list[Path]:
    """One table for each combination of backbone, weights, data set and precision with records.

    If one cannot be made, the reason is added to `refused`. Records of an older engine or method
    version are left out: their numbers no longer hold.
    """
    if not (results / "runs").is_dir():
        raise RequestError(f"{results}/runs does not exist: run an experiment first, or make demo")
    store = Store(results / "runs")
    groups, paths = grouped(store, current_keys(store)), []
    for group in sorted(groups):
        try:
            paths += _write(results, group, groups[group])
        except RequestError as error:  # the other tables can still be made
            refused.append(f"no table of {', '.join(group)}: {error}")
    return paths


def _write(results: Path, group: tuple[str, ...], shown: list[Result]) -> list[Path]:
    remark = premise_remark(shown)
    table = build_table(shown, [remark] if remark else [])
    stem = "all-" + "-".join("".join(c if c.isalnum() else "_" for c in part) for part in group)
    stem = shortened(stem, ", ".join(group), 160)
    pieces = parts(table)
    text = "\n\n".join(part.to_markdown().strip() for part in pieces) + "\n"
    made = {
        ".md": f"# {', '.join(group)}\n\n{text}",
        ".csv": table.to_csv(),
        ".tex": to_latex(pieces),
    }
    if not any(score_of(one) is not None for one in shown):  # timm's columns are about classes
        made["-timm.csv"] = to_timm_csv(shown)
    return [write_file(results / "tables" / f"{stem}{end}", text) for end, text in made.items()]
