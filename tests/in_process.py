"""Commands in the process of the tests, which has imported everything: a start is free."""

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pytest
from composed_once import composed_once
from hydra.core.global_hydra import GlobalHydra

import asap.cli.run
import asap.experiment.throughput_rows
import asap.publish.run_outputs
import asap.report.page
from asap.measure.timing import ThroughputPlan


class Ended(NamedTuple):
    """How a command ended: exit code, output and errors."""

    code: int
    out: str
    err: str


def run_here(
    *words: str,
    capsys: pytest.CaptureFixture[str] | None = None,
    main: Callable[[], object] = asap.cli.run.main,
) -> Ended:
    """`python -m asap.run <words>`, or the command of another `main`.

    Without capsys, what it prints is left to the test.
    """
    GlobalHydra.instance().clear()
    logging.getLogger("asap").handlers.clear()  # they hold the streams of an earlier call
    if capsys is not None:
        capsys.readouterr()
    with composed_once(), pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", ["asap.run", *words])
        main()
    GlobalHydra.instance().clear()
    said = ("", "") if capsys is None else capsys.readouterr()
    return Ended(int(end.value.code or 0), *said)


@contextmanager
def without_figures() -> Iterator[pytest.MonkeyPatch]:
    """Figures take longer than the runs here."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (asap.publish.run_outputs, asap.report.page):
            patch.setattr(module, "charts", lambda results, circled: ([], {}))
        yield patch


@contextmanager
def quick(short: bool = False) -> Iterator[None]:
    """Without figures or warm-up of timing; short: records are marked as a short version."""
    plan = ThroughputPlan(3, 0.001, short=short, warmup_seconds=0.0)
    with without_figures() as patch:
        patch.setattr(asap.experiment.throughput_rows, "_plan", lambda session: plan)
        yield
