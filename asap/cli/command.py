"""What the commands share: compose the specs of a command line, do their jobs, exit rightly."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from errno import EDQUOT, ENOSPC, EPIPE
from typing import NoReturn

from asap.cli.compose import command_line, not_begun
from asap.cli.console import let_go, send_nowhere, set_up_logging
from asap.cli.jobs import BOARD, compose_jobs
from asap.cli.signals import Terminated, exit_code, terminable
from asap.cli.start import begun
from asap.cli.submitit_local import await_jobs, end_jobs
from asap.errors import RequestError, one_line
from asap.experiment.job import Job
from asap.measure import processes, workers
from asap.spec.paths import given_path
from asap.spec.run_spec import RunSpec

log = logging.getLogger("asap")
Work = Callable[[Sequence[Job]], None]
Finish = Callable[[list[Job]], object]


def command(work: Work, about: str | None, finish: Finish = lambda jobs: None) -> None:
    """Compose the specs of the command line, do `work` on their jobs, and exit.

    `about`: the text of --help before the choices and keys, a module's docstring. `work` writes
    into each job what it did and what failed. A process launcher calls it in the process of each
    job, with that job alone. `finish` gets all jobs of a multirun at its end. Exit codes: 0 done; 1
    something failed, or a part of a multirun was refused; 2 the request is wrong; 130 interrupted;
    143 ended by SIGTERM. torchrun turns every code except 0 into 1.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # hydra raises, so that we print one line
    try:
        exit_with(lambda: _run_or_end(about or "", work, finish))
    finally:
        BOARD.clear()
        processes.leave()


def one_by_one(act: Callable[[RunSpec, Job], None]) -> Work:
    """The work that does `act(spec, job)` for each job."""

    def work(jobs: Sequence[Job]) -> None:
        for job in jobs:
            with job.attempt():
                if job.spec is not None:
                    act(job.spec, job)

    return work


def exit_with(act: Callable[[], int]) -> NoReturn:
    """End the process with the exit code that `act` returns.

    Ctrl-C and a closed pipe (`| head`) give no traceback.
    """
    begun()
    try:
        code = act()
    except KeyboardInterrupt as error:
        log.error("interrupted")
        code = exit_code(error)
    except OSError as error:  # `| head` may close the pipe before all help and lists are read
        if error.errno not in (EPIPE, ENOSPC, EDQUOT) or error.filename is not None:
            raise
        send_nowhere(sys.stdout, error)
        code = 0
    let_go(sys.stdout)
    sys.exit(code)


def _run_or_end(about: str, work: Work, finish: Finish) -> int:
    """The exit code, also of an interrupted command; under torchrun SIGTERM is not handled."""
    try:
        with nullcontext() if processes.started_by_torchrun() else terminable():
            processes.join()
            set_up_logging(processes.rank())
            if processes.rank() > 0:
                workers.work()
                return 0
            code = _run(about, work, finish)
            processes.dismiss()
            return code
    except KeyboardInterrupt as error:
        end_jobs()
        if processes.rank() == 0:
            said = "ended by SIGTERM" if isinstance(error, Terminated) else "interrupted"
            log.error("%s: run the same command again to continue where it stopped", said)
        return exit_code(error)


def _run(about: str, work: Work, finish: Finish) -> int:
    """The exit code."""
    jobs: list[Job] = []
    early = []  # why a multirun ended before its last job
    try:
        sys.argv[1:] = command_line(sys.argv[1:], about)
        _refuse_no_results(sys.argv[1:])
        compose_jobs(jobs, work)
    except Exception as error:  # of hydra, a launcher or a config; jobs that were done are listed
        await_jobs()
        jobs = BOARD.read() or jobs
        if isinstance(error, BrokenPipeError) and not jobs:  # of what hydra prints
            raise
        if not jobs:
            log.error("error: %s", not_begun(error))
            return 2
        if BOARD.folder is None:
            raise
        early = [f"the launcher: {one_line(error, kind=True)}"]
    if told := BOARD.read():  # a launcher gave the jobs to other processes, which have done them
        jobs = told
    else:
        work([job for job in jobs if job.spec is not None])
        for job in jobs:
            job.ended = True
    if not jobs and BOARD.folder is not None:
        log.error("error: this multirun has no job: a glob(...) on the command line finds nothing")
        return 2
    failed = [line for job in jobs for line in job.failed] + _unended(jobs) + early
    try:
        if BOARD.folder is not None:
            finish(jobs)
    except RequestError as error:  # the records are written; only the table is missing
        log.error("error: %s", error)
        failed.append(str(error))
    return _code(jobs, failed)


def _refuse_no_results(arguments: list[str]) -> None:
    """RequestError on an empty results folder, before hydra makes one for a multirun in /."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "results":
            given_path(key, value.strip("'\""))


def _unended(jobs: list[Job]) -> list[str]:
    return [
        f"{job.name} was killed or is still running: run the same command again"
        for job in jobs
        if not job.ended
    ]


def _code(jobs: list[Job], failed: list[str]) -> int:
    """The exit code; several failures, or one among several jobs, are listed, equal ones once."""
    refused = sum(job.refused for job in jobs)
    if failed and not len(jobs) == refused == 1:
        log.error("%d failed: %s", len(failed), "; ".join(dict.fromkeys(failed)))
    if refused and refused == len(jobs):
        return 2
    return 1 if failed else 0
