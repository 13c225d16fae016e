"""The command line: compose a config, run it, print the table.

    python -m asap.run experiment=demo
    python -m asap.run backbone=deit_base method=asap data=imagenet data.path=/data/imagenet
    python -m asap.run -m method=asap method.tau=2.5,3,3.5 method.clusters=4,6,8
    python -m asap.run experiment=matched_macs budget=-25
    torchrun --nproc-per-node=8 -m asap.run experiment=imagenet_deit_base data.path=/data/imagenet

With calibrate.macs_pct every row is first brought to that MACs budget, on calibration images, as
is a row with a budget of its own (macs_pct).
Exit codes: 0 done; 1 some cells failed (listed; the others are recorded); 2 the request is wrong.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from asap import ranks
from asap.apart import insert_rows, with_left_out, without_apart
from asap.calibrate.rows import at_budget
from asap.command import command
from asap.errors import RequestError
from asap.multirun import Job
from asap.output import line_of, mirror, show, write_outputs
from asap.report.budget import note_misses
from asap.report.result import CellResult, unmeasured
from asap.runner import run
from asap.runs.spec import RunSpec
from asap.session import Session
from asap.shared import likeness, share_multirun

log = logging.getLogger("asap")
SET_APART = ("method.", "budget=", "calibrate.")  # options that labels of a multirun show


def main() -> None:
    """Run and exit with the code that the module's docstring lists."""
    lenders: dict[str, Session] = {}

    def prepare(specs: list[RunSpec]) -> None:
        lenders.update(share_multirun(specs))

    command(lambda spec, job: work(spec, job, lenders), show_jobs, prepare)


def work(spec: RunSpec, job: Job, lenders: Mapping[str, Session]) -> None:
    """Run a spec and print its table; in a multirun a line for each row, unless the jobs share a
    table: then each prints its block of it.

    A row that cannot reach its budget, or lacks a checkpoint, did not fail: the table says why it
    has no numbers. A block that is refused keeps its place in a shared table.
    """
    job.spec = spec
    try:
        session = _measure(spec, job, lenders)
    except RequestError as error:
        if spec.table:
            job.results = [unmeasured(spec, row, str(error)) for row in spec.rows]
        raise
    if ranks.rank():  # rank 0 has the records
        return
    mirror(session, _set_apart(job, job.results))
    if spec.table or not job.several:
        show(write_outputs(session, job.results))
        return
    for result in _set_apart(job, job.results):
        if result.records:
            log.info("%s", line_of(result))


def _measure(spec: RunSpec, job: Job, lenders: Mapping[str, Session]) -> Session:
    """Bring the rows to their budgets and measure them; into `job`. `lenders`: by `likeness`, which
    calibration may change: its images are left out then.
    """
    ready, missing = ranks.agreed(lambda: at_budget(without_apart(spec)))
    session, results = run(ready, lenders.get(likeness(ready)))
    job.failed = [f"{r.label}: {r.reason}" for r in _set_apart(job, results) if r.reason]
    job.spec = ready
    results = with_left_out(ready, results, _results)
    shown = insert_rows(spec, ready, missing, results, _results)
    job.results = _with_misses(spec, shown)
    return session


def _results(spec: RunSpec) -> list[CellResult]:
    return run(spec)[1]


def _with_misses(spec: RunSpec, results: list[CellResult]) -> list[CellResult]:
    """The results, saying which of them miss their budget on these images."""
    dense = [result for result in results if result.is_dense][:1]
    shown = []
    for row, result in zip(spec.rows, results, strict=True):
        common = None if row.point_of is not None else spec.calibrate.macs_pct
        budget = common if row.budget is None else row.budget
        shown.append(result if budget is None else note_misses([*dense, result], budget)[-1])
    return shown


def show_jobs(jobs: list[Job]) -> None:
    """The tables of a multirun, one for each group of rows that can be compared."""
    groups: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        if job.spec is not None:
            groups.setdefault(_group(job, job.spec, jobs), []).append(job)
    tables = [(together, *_one_table(together)) for together in groups.values()]
    tables = [table for table in tables if any(result.records for result in table[2])]
    names = [spec.table or f"{spec.title} (multirun)" for _, spec, _ in tables]
    shown: Counter[str] = Counter()
    for name, (together, spec, results) in zip(names, tables, strict=True):
        title = name if names.count(name) == 1 else f"{name}{_what_differs(together, jobs)}"
        shown[title] += 1
        if shown[title] > 1:  # other images of the same data: a table of its own
            title += f" {shown[title]}"
        show(write_outputs(Session(spec), results, title))


def _group(job: Job, spec: RunSpec, jobs: list[Job]) -> tuple[str, ...]:
    """What the rows of one table share. A shared table holds several backbones, each once."""
    common = (spec.precision, str(spec.seed), spec.device)
    if not spec.table:
        return (spec.title, str(spec.backbone), str(spec.data), str(spec.limit), *common)
    sharing = [j for j in jobs if j.spec is not None and j.spec.table == spec.table]
    named = (j.spec.backbone for j in sharing if j.spec is not None)
    alike = dict.fromkeys(str(b) for b in named if b.name == spec.backbone.name)
    which = str(list(alike).index(str(spec.backbone)))
    return (spec.table, _part(job, sharing), which, *common)


def _what_differs(together: list[Job], jobs: list[Job]) -> str:
    """The options of a table's jobs that other jobs do not have, unless its labels show them."""
    given = [o for o in together[0].overrides if not o.startswith(SET_APART)]
    here = [o for o in given if all(o in job.overrides for job in together)]
    apart = [o for o in here if not all(o in job.overrides for job in jobs)]
    pairs = (option.partition("=") for option in apart)
    return "".join(f", {name}={Path(value).name}" for name, _, value in pairs)


def _part(job: Job, jobs: list[Job]) -> str:
    """Of the images: a calibration may leave some out for one block of a table and not for another.
    A block that was refused goes with the first that was not.
    """
    shown = [job, *jobs] if not job.refused else [*jobs, job]
    first = next((one for one in shown if one.spec is not None and not one.refused), job)
    return "" if first.spec is None else first.spec.data.part


def _one_table(jobs: list[Job]) -> tuple[RunSpec, list[CellResult]]:
    """The rows of jobs that share a table, and the spec of one that was not refused, if any."""
    specs = [job.spec for job in jobs if job.spec is not None and not job.refused]
    spec = specs[0] if specs else jobs[0].spec
    assert spec is not None
    if spec.table:
        return spec, [result for job in jobs for result in job.results]
    kept: list[CellResult] = []
    for job in jobs:
        _add(kept, _set_apart(job, job.results))
    return spec, kept


def _set_apart(job: Job, results: list[CellResult]) -> list[CellResult]:
    """A job's results with the options in their labels that were given to it."""
    given = [o.removeprefix("method.") for o in job.overrides if o.startswith(SET_APART)]
    suffix = f" {', '.join(given)}" if given else ""
    return [r if r.is_dense else replace(r, label=r.label + suffix) for r in results]


def _add(kept: list[CellResult], results: list[CellResult]) -> None:
    """Keep each record once, and each row without one that says why."""
    for result in results:
        if result.records:
            new = all(result.key != other.key for other in kept)
        else:
            new = result.reason and all(result.label != other.label for other in kept)
        if new:
            kept.append(result)


if __name__ == "__main__":
    main()
