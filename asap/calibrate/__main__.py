"""python -m asap.calibrate: find the setting of a method that meets a MACs budget.

    python -m asap.calibrate method=asap calibrate.macs_pct=-35.23
    python -m asap.calibrate backbone=deit_base method=tome data=imagenet \
        data.path=/data/imagenet calibrate.macs_pct=-35.23

Exit codes: 0 done; 1 a row cannot reach the budget (its preset says what would); 2 the request is
wrong.
"""

import logging

from asap.calibrate.rows import calibrate
from asap.command import command
from asap.runs.spec import RunSpec

log = logging.getLogger("asap")


def job(spec: RunSpec) -> list[str]:
    """Calibrate every row; the rows that cannot reach the budget."""
    done = calibrate(spec)
    log.info("files:")
    for path in (path for row in done for path in row.files):
        log.info("  %s", path)
    return [f"{row.row.label}: unreachable" for row in done if row.reason]


def main() -> None:
    command(job)


if __name__ == "__main__":
    main()
