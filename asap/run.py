"""The command line: compose a config, run it, print the table.

    python -m asap.run experiment=demo
    python -m asap.run backbone=deit_base method=asap data=imagenet data.path=/data/imagenet
    python -m asap.run -m method=asap method.tau=2.5,3,3.5 method.clusters=4,6,8
    python -m asap.run experiment=matched_macs budget=-25

With calibrate.macs_pct every row is first brought to that MACs budget, on calibration images.

Exit codes: 0 done; 1 some cells failed (listed; the others are recorded); 2 the request is wrong.
"""

from asap.calibrate.rows import at_budget
from asap.command import command
from asap.output import show, write_outputs
from asap.report.result import CellResult
from asap.runner import run
from asap.runs.spec import RunSpec


def job(spec: RunSpec) -> list[str]:
    """Run a spec and print its table; the rows that failed. A row that cannot reach the budget did
    not fail: the table says why it has no numbers.
    """
    missing: dict[int, CellResult] = {}
    ready = spec
    if spec.calibrate.macs_pct is not None:
        ready, reasons = at_budget(spec)
        rows = {i: spec.rows[i] for i in reasons}
        missing = {
            i: CellResult(r.label, r.paper, r.ours, None, None, None, reasons[i], r.note)
            for i, r in rows.items()
        }
    session, results = run(ready)
    failed = [f"{r.label}: {r.reason}" for r in results if r.reason]
    for i, result in missing.items():
        results.insert(i, result)
    show(write_outputs(session, results))
    return failed


def main() -> None:
    """Run and exit with the code that the module's docstring lists."""
    command(job)


if __name__ == "__main__":
    main()
