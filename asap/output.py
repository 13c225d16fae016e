"""What a finished run leaves for people: table, figures, mirrors. All from records."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from asap.report import tensorboard, wandb
from asap.report.figures import accuracy_vs_macs
from asap.report.latex import to_latex
from asap.report.premise import premise_remark
from asap.report.result import CellResult
from asap.report.tables import build_table, parts
from asap.report.timm_csv import to_timm_csv
from asap.runs.disk import guarded, write_file
from asap.runs.spec import RunSpec
from asap.scenes import draw_scenes
from asap.session import Session

log = logging.getLogger("asap")
RANDOM_WEIGHTS = (
    "The weights are random: this table shows that the chain runs, and nothing about any method."
)


@dataclass(frozen=True)
class Outputs:
    """The table as text, and the files that were written."""

    text: str
    files: tuple[Path, ...]


def mirror(spec: RunSpec, results: list[CellResult]) -> None:
    """Copy finished rows to the dashboards that are asked for."""
    for result in results:
        _mirror(spec, result)


def line_of(result: CellResult) -> str:
    """A finished row in one line."""
    if result.accuracy is None:
        return f"{result.label}: throughput recorded"
    record = result.accuracy
    gmacs = record["gmacs_backbone"] + record["gmacs_method"]
    return f"{result.label}: top-1 {record['top1']:.2f} %, {gmacs:.4g} GMACs, n = {record['n']:,}"


def write_outputs(
    session: Session, results: list[CellResult], title: str | None = None
) -> Outputs | None:
    """Write a run's table and figures under results/tables and results/figures.

    None if no row has a record: there is nothing to show.
    """
    spec, title = session.spec, title or session.spec.title
    if not any(result.records for result in results):
        return None
    premise = premise_remark(results)
    remarks = [*spec.remarks, *([premise] if premise else [])]
    if spec.backbone.weights == "random":
        remarks.insert(0, RANDOM_WEIGHTS)
    table = build_table(results, remarks, spec.paper_table)
    tables, figures = spec.results / "tables", spec.results / "figures"
    stem = "".join(c if c.isalnum() else "-" for c in title.lower()).strip("-")
    pieces = parts(table)
    markdown = f"# {title}\n\n" + "\n\n".join(p.to_markdown().strip() for p in pieces) + "\n"
    files = [
        write_file(tables / f"{stem}.md", markdown),
        write_file(tables / f"{stem}.csv", table.to_csv()),
        write_file(tables / f"{stem}-timm.csv", to_timm_csv(results)),
        write_file(tables / f"{stem}.tex", to_latex(pieces)),
    ]
    with guarded(figures):
        figures.mkdir(parents=True, exist_ok=True)
        if len(results) > 1 and any(result.accuracy for result in results):
            files += accuracy_vs_macs(results, figures / f"{stem}-accuracy-macs")
        if spec.measure.panels:
            files += draw_scenes(session, spec.measure.panels, figures / f"{stem}-scenes")
    return Outputs("\n\n".join(p.to_console() for p in pieces), tuple(files))


def _mirror(spec: RunSpec, result: CellResult) -> None:
    """Copy a row to the dashboards that are asked for; they never raise."""
    if result.accuracy is None:
        return
    config = {"backbone": spec.backbone.name, "data": spec.data.name, **result.method}
    if spec.log.wandb != "disabled":
        wandb.log_cell(
            result, config, cast(wandb.Mode, spec.log.wandb), spec.log.project, spec.log.entity,
            spec.log.group or spec.title, spec.results / "wandb",
        )  # fmt: skip
    if spec.log.tensorboard:
        tensorboard.log_cell(result, config, spec.results / "tensorboard")


def show(outputs: Outputs | None) -> None:
    """Print the table and where the files are."""
    if outputs is None:
        return
    log.info("\n%s\n", outputs.text)
    log.info("files:")
    for path in outputs.files:
        log.info("  %s", path)
