"""python -m asap.report [folder]: one table per data set and backbone from all accuracy records."""

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from asap.engine import ENGINE_VERSION
from asap.errors import RequestError
from asap.methods.find import build, find, names
from asap.report.latex import to_latex
from asap.report.premise import premise_remark
from asap.report.result import CellResult
from asap.report.tables import build_table, parts
from asap.report.timm_csv import to_timm_csv
from asap.runs.disk import write_file
from asap.runs.record import AccuracyRecord
from asap.runs.store import Store


def main(arguments: list[str] | None = None) -> int:
    """Write results/tables/all-*.{md,csv,tex}; exit code 2 without any record."""
    parser = argparse.ArgumentParser(prog="python -m asap.report", description=__doc__)
    parser.add_argument("results", nargs="?", type=Path, default=Path("results"))
    folder = parser.parse_args(arguments).results
    try:
        for path in write_tables(folder):
            sys.stdout.write(f"{path}\n")
    except RequestError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def write_tables(results: Path) -> list[Path]:
    """One table for each backbone with its weights, data set and precision that has records.

    Records of an older engine or method version are left out: their numbers no longer hold.
    """
    if not (results / "runs").is_dir():
        raise RequestError(f"{results}/runs does not exist: run an experiment first, or make demo")
    groups: dict[tuple[str, ...], list[CellResult]] = defaultdict(list)
    for cell in Store(results / "runs").cells():
        record = cell.accuracy()
        if record is not None and _is_current(record["identity"]):
            ours = _is_extension(record["method"])
            result = CellResult(_label(record), None, ours, record, cell.predictions(), None)
            groups[_group(record)].append(replace(result, config=cell.config()))
    if not groups:
        raise RequestError(f"{results}/runs holds no current record: run an experiment first")
    return [path for group in sorted(groups) for path in _write(results, group, groups[group])]


def _group(record: AccuracyRecord) -> tuple[str, ...]:
    """What the rows of one table share, readable, and the digest of the weights."""
    weights = record["identity"]["backbone"]["weights"][:8]
    content = record["identity"]["data"]["content"][:8]
    names = [record[key] for key in ("backbone", "data", "precision", "device")]
    return (*names, f"weights {weights}", f"data {content}")


def _is_current(identity: Mapping[str, Any]) -> bool:
    """Whether the engine and the method still are what they were."""
    if identity["engine"] != ENGINE_VERSION:
        return False
    name = identity["method"]["name"]
    return name not in names() or find(name).method_version == identity["method_version"]


def _is_extension(method: Mapping[str, Any]) -> bool:
    """Whether a method of this package has options that no paper has."""
    if method["name"] not in names():
        return False
    try:
        return build(method["name"], method["options"]).extension
    except RequestError:  # options of another time, which cannot be asked any more
        return False


def _label(record: AccuracyRecord) -> str:
    """The row's label, and the options that differ from the method's defaults."""
    name, options = record["method"]["name"], record["method"]["options"]
    defaults = {f.name: f.default for f in fields(find(name))} if name in names() else {}
    changed = {k: v for k, v in options.items() if k not in defaults or defaults[k] != v}
    return ", ".join([record["label"], *(f"{k}={v}" for k, v in changed.items())])


def _write(results: Path, group: tuple[str, ...], cells: list[CellResult]) -> list[Path]:
    cells = sorted(cells, key=lambda c: (not c.is_dense, c.label))
    remark = premise_remark(cells)
    table = build_table(cells, [remark] if remark else [])
    stem = "all-" + "-".join("".join(c if c.isalnum() else "_" for c in part) for part in group)
    pieces = parts(table)
    text = "\n\n".join(part.to_markdown().strip() for part in pieces) + "\n"
    return [
        write_file(results / "tables" / f"{stem}.md", f"# {', '.join(group)}\n\n{text}"),
        write_file(results / "tables" / f"{stem}.csv", table.to_csv()),
        write_file(results / "tables" / f"{stem}-timm.csv", to_timm_csv(cells)),
        write_file(results / "tables" / f"{stem}.tex", to_latex(pieces)),
    ]


if __name__ == "__main__":
    sys.exit(main())
