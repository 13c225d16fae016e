"""python -m asap.calibrate: find the setting of a method that meets a MACs budget.

    python -m asap.calibrate method=asap calibrate.macs_pct=-35.23
    python -m asap.calibrate backbone=deit_base method=tome data=imagenet calibrate.macs_pct=-35.23
    python -m asap.calibrate method=tome calibrate.macs_pct=-25 'calibrate.grid={r: [2, 4, 6]}'

calibrate.macs_pct is the budget: MACs of backbone and method against dense, in %. It is met on
calibrate.images images of calibrate.path, a folder of training images, or of the data set's own.
What is found is printed and kept in results/calibration.
Exit codes: 0 done; 1 a row cannot reach the budget (its preset says what would); 2 the request is
wrong.
"""

import logging

from asap.calibrate import calibrate
from asap.cli.command import command, one_by_one
from asap.errors import RequestError
from asap.experiment.head import with_head
from asap.experiment.job import Job
from asap.measure.in_memory import InMemory
from asap.measure.processes import size
from asap.spec.check import refuse_one_picture
from asap.spec.run_spec import RunSpec

log = logging.getLogger("asap")


def work(spec: RunSpec, job: Job) -> None:
    """Calibrate every row; rows that cannot reach the budget count as failed."""
    refuse_one_picture(spec)
    if spec.answers:
        raise RequestError(
            "calibration is for classes and clips, and backbone=llava answers questions: give "
            "settings by hand (scripts/choose_vlm_points.py chooses those of ASAP)"
        )
    if size() > 1:
        raise RequestError("calibration runs in one process: start it without torchrun")
    done = calibrate(with_head(spec, InMemory()))
    log.info("files:")
    for path in (path for row in done for path in row.files):
        log.info("  %s", path)
    job.failed = [f"{row.row.label}: unreachable" for row in done if row.reason]


def main() -> None:
    command(one_by_one(work), __doc__)
