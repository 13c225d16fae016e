"""The tables of a multirun: which of its rows share a table, and the tables' titles."""

from pathlib import Path

from asap.experiment.job import SET_APART, Job
from asap.measure.in_memory import InMemory
from asap.measure.session import Session
from asap.publish.run_outputs import free_title, show, write_outputs
from asap.records.disk import stem_of
from asap.report.result import Result
from asap.spec.run_spec import RunSpec

QUOTES = "'\""


def show_jobs(jobs: list[Job], memory: InMemory) -> None:
    """The tables of a multirun, one for each group of rows that can be compared."""
    groups: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        if job.spec is not None:
            groups.setdefault(_group(job, job.spec, jobs), []).append(job)
    tables = [(together, *_one_table(together)) for together in groups.values()]
    tables = [table for table in tables if any(result.records for result in table[2])]
    names = [spec.table or f"{spec.title} (multirun)" for _, spec, _ in tables]
    files = [stem_of(name) for name in names]
    shown: set[str] = set()
    for name, (together, spec, results) in zip(names, tables, strict=True):
        alone = files.count(stem_of(name)) == 1
        title = name if alone else f"{name}{_what_differs(together, jobs)}"
        # Rows on other images of the same data are in a separate table.
        show(write_outputs(Session(spec, memory), results, free_title(title, shown)))


def _group(job: Job, spec: RunSpec, jobs: list[Job]) -> tuple[str, ...]:
    """A key that is equal for rows of one table. A shared table holds each backbone once."""
    common = (spec.precision, str(spec.seed), spec.device)
    if not spec.table:
        return (spec.title, str(spec.backbone), str(spec.data), str(spec.limit), *common)
    sharing = [j for j in jobs if j.spec is not None and j.spec.table == spec.table]
    named = (j.spec.backbone for j in sharing if j.spec is not None)
    alike = dict.fromkeys(str(b) for b in named if b.name == spec.backbone.name)
    which = str(list(alike).index(str(spec.backbone)))
    # A table over benchmarks has one row of each label for a benchmark.
    own = (str(spec.rows), str(spec.answer), str(spec.limit)) if spec.answers else ()
    return (spec.table, _part(job, sharing), which, *own, *common)


def _what_differs(together: list[Job], jobs: list[Job]) -> str:
    """The options of a table's jobs that other jobs do not have, unless its labels show them."""
    given = [o for o in together[0].overrides if not o.startswith(SET_APART)]
    here = [o for o in given if all(o in job.overrides for job in together)]
    apart = [o for o in here if not all(o in job.overrides for job in jobs)]
    pairs = (option.partition("=") for option in apart)
    names = ((name.lstrip("+"), value) for name, _, value in pairs)
    return "".join(f", {name}={Path(value.strip(QUOTES)).name}" for name, value in names)


def _part(job: Job, jobs: list[Job]) -> str:
    """The part of the images of a job's block in a shared table.

    Calibration may leave images out for one block and not for another. A refused block gets the
    part of the first that was not refused.
    """
    shown = [job, *jobs] if not job.refused else [*jobs, job]
    first = next((one for one in shown if one.spec is not None and not one.refused), job)
    return "" if first.spec is None else first.spec.data.part


def _one_table(jobs: list[Job]) -> tuple[RunSpec, list[Result]]:
    """The rows of jobs that share a table, and the spec of one that was not refused, if any."""
    specs = [job.spec for job in jobs if job.spec is not None and not job.refused]
    spec = specs[0] if specs else jobs[0].spec
    assert spec is not None
    if spec.table:
        return spec, [result for job in jobs for result in job.results]
    kept: list[Result] = []
    for job in jobs:
        _add(kept, job.labelled(job.results))
    return spec, kept


def _add(kept: list[Result], results: list[Result]) -> None:
    """Keep each record once, and once each row that has a reason instead of a record."""
    for result in results:
        if result.records:
            new = all(result.key != other.key for other in kept)
        else:
            new = result.reason and all(result.label != other.label for other in kept)
        if new:
            kept.append(result)
