"""The files of a finished run for people: table, figures, page; and mirrors to dashboards."""

import logging
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import cast

from asap.measure.session import Session
from asap.publish.all_records import PAGE, circled, write_page_of
from asap.publish.mirrors import tensorboard, wandb
from asap.publish.pictures import draw_pictures, examples_of
from asap.publish.submissions import write_submissions
from asap.records.disk import guarded, read_bytes, stem_of, write_file
from asap.records.identity import LANGUAGE
from asap.records.kinds import ACCURACY, TRAINED_HEAD
from asap.records.latency_record import LATENCY
from asap.report.benchmarks.table import is_over_benchmarks
from asap.report.benchmarks.unscored import is_unscored
from asap.report.drawn import drawn, note_drawn, sources
from asap.report.figures import charts, save
from asap.report.flips import all_flips, to_csv
from asap.report.latex import to_latex
from asap.report.manifest import manifest_of, write_manifest
from asap.report.nonfinite import counts
from asap.report.page import Section
from asap.report.premise import premise_remark
from asap.report.printed import console_width, printed
from asap.report.prose import sweep_remarks
from asap.report.result import Result, accuracy_name
from asap.report.result_table import build_table
from asap.report.table_parts import parts
from asap.report.timm_csv import to_timm_csv

log = logging.getLogger("asap")
RANDOM_WEIGHTS = (
    "The weights are random: this table shows that the chain runs, and nothing about any method."
)


@dataclass(frozen=True)
class Outputs:
    """The table as shown in a terminal, and the files that were written."""

    text: str
    files: tuple[Path, ...]


def mirror(session: Session, results: list[Result]) -> None:
    """Log rows with answers or times of questions, and heads, to the dashboards that the run asks
    for.

    A failure is only a warning.
    """
    mirrored = (ACCURACY.name, LATENCY.name, TRAINED_HEAD.name)
    for result in results:
        if any(result.record(kind) is not None for kind in mirrored):
            _mirror(session, result)


def line_of(result: Result) -> str:
    """A finished row in one line."""
    if result.accuracy is None:
        return f"{result.label}: {_speed_of(result)}"
    record = result.accuracy
    score = f"{accuracy_name(record)} {record['top1']:.2f} %"
    return (
        f"{result.label}: {'not scored here' if is_unscored(result) else score}, "
        f"{result.gmacs:.4g} GMACs, {counts(record)}"
    )


def _speed_of(result: Result) -> str:
    record, asked = result.throughput, result.record(LATENCY.name)
    if asked is not None:
        return f"{asked['times_ms']['total']['median']:.1f} ms per question"
    if record is None:
        return "recorded"
    ratio = record["ratio_fused"]
    said = "no ratio" if ratio is None else f"{ratio['median']:.2f} x fused dense"
    return f"{record['images_per_s']['median']:,.0f} images per second, {said}"


def write_outputs(
    session: Session, results: list[Result], title: str | None = None
) -> Outputs | None:
    """Write a run's table under results/tables, its figures under results/figures, and its page.

    The page is results/report.html. Files that were already made from the same records are kept.
    None if no row has a record: there is nothing to show.
    """
    spec, title = session.spec, title or session.spec.title
    if not any(result.records for result in results):
        return None
    over = is_over_benchmarks(results)  # of whose rows each benchmark's own table says the rest
    premise = None if over else premise_remark(results)
    remarks = [*spec.remarks, *([premise] if premise else [])]
    remarks += [] if over else sweep_remarks(results, circled())
    if spec.backbone.weights == "random":
        remarks.insert(0, RANDOM_WEIGHTS)
    table = build_table(results, remarks, spec.paper_table)
    tables, figures = spec.results / "tables", spec.results / "figures"
    stem = stem_of(title)
    shown = printed(table, title, console_width())
    mark = spec.results / "digests" / f"{stem}.drawn.json"
    made_from = sources(results, title, remarks, spec.measure.panels, spec.paper_table, circled())
    page, kept = spec.results / PAGE, mark.with_name(f"{stem}.{PAGE}")
    if earlier := drawn(mark, made_from):
        _copied(kept, page)  # another run may have written its own
        return Outputs(shown, (*earlier[2:], page))
    pieces = parts(table)
    markdown = f"# {title}\n\n" + "\n\n".join(p.to_markdown().strip() for p in pieces) + "\n"
    files = [
        write_file(tables / f"{stem}.md", markdown),
        write_file(tables / f"{stem}.csv", table.to_csv()),
        write_file(tables / f"{stem}.tex", to_latex(pieces)),
    ]
    if not spec.answers:  # timm's columns are about classes
        files.append(write_file(tables / f"{stem}-timm.csv", to_timm_csv(results)))
    elif not over:
        files += write_submissions(results, tables, title, spec.data)
        if flips := all_flips(results):
            files.append(write_file(tables / f"{stem}-flips.csv", to_csv(flips)))
    with guarded(figures):
        found, absent = charts(results, circled())
        for chart in found:
            files += save(chart.figure(), figures / f"{stem}-{chart.name}")
        panels = 0 if over else spec.measure.panels
        pictures = draw_pictures(session, results, panels, figures, stem)
    files += [figures / name for picture in pictures for name in picture.files]
    manifest = manifest_of(title, remarks, results, pictures, spec.paper_table)
    rows = tables / f"{stem}.rows.json"
    write_manifest(manifest, rows)
    drawn_now = [picture.read(figures) for picture in pictures]
    section = Section(
        title, results, remarks, drawn_now, table=table, charts=(found, absent),
        paper_table=spec.paper_table,
    )  # fmt: skip
    page = write_page_of(section, spec.results)
    note_drawn(mark, made_from, [rows, _copied(page, kept), *files])
    return Outputs(shown, (*files, page))


def _copied(source: Path, target: Path) -> Path:
    """The target with the source's text; it is not written if it has that already."""
    content = read_bytes(source) or b""
    return target if read_bytes(target) == content else write_file(target, content.decode())


def _mirror(session: Session, result: Result) -> None:
    spec = session.spec
    config = {"backbone": spec.backbone.shown, "data": spec.data.name}
    config |= {"method": result.reducing["name"], "precision": spec.precision}
    config |= result.method["options"]
    if (language := result.method_in(LANGUAGE)) is not None:
        config |= {"language": language["name"]}
        config |= {f"language.{name}": value for name, value in language["options"].items()}
    if spec.log.wandb != "disabled":
        group, mode = spec.log.group or spec.title, cast(wandb.Mode, spec.log.wandb)
        folder = spec.results / "wandb"
        target = wandb.WandbTarget(mode, spec.log.project, spec.log.entity, group, folder)
        record = session.store.cell(str(result.key)).path
        drawn = partial(examples_of, session, result, spec.log.examples)
        drawn = tuple if result.accuracy is None else drawn
        wandb.log_result(result, config, target, record, drawn)
    if spec.log.tensorboard:
        tensorboard.log_result(result, config, spec.results / "tensorboard")


def free_title(title: str, shown: set[str]) -> str:
    """The title, with a number if its files would have the names of another title's.

    shown: file names of the titles so far; the new one is added.
    """
    numbered = (title if i == 1 else f"{title} {i}" for i in count(1))
    free = next(one for one in numbered if stem_of(one) not in shown)
    shown.add(stem_of(free))
    return free


def show(outputs: Outputs | None) -> None:
    """Print the table and where the files are."""
    if outputs is None:
        return
    log.info("\n%s\n", outputs.text)
    log.info("files:")
    for path in outputs.files:
        log.info("  %s", path)
