"""What the commands share: compose a config, run a job on its spec, exit with the right code."""

import logging
import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from errno import EDQUOT, ENOSPC, EPIPE
from functools import partial
from typing import NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import env_override
from hydra.types import RunMode
from omegaconf import DictConfig

from asap.cli.compose import command_line, given, not_begun, read
from asap.cli.console import let_go, send_nowhere, set_up_logging
from asap.cli.jobs import BOARD, Job
from asap.cli.signals import Terminated, begun, exit_code, terminable
from asap.cli.submitit_local import await_jobs, end_jobs
from asap.errors import RequestError, one_line
from asap.measure import processes, workers
from asap.spec.configs import config_dir
from asap.spec.paths import given_path
from asap.spec.run_spec import RunSpec

log = logging.getLogger("asap")
Work = Callable[[RunSpec, Job], None]
Finish = Callable[[list[Job]], object]
Prepare = Callable[[list[RunSpec]], object]


def command(
    work: Work,
    about: str | None,
    finish: Finish = lambda jobs: None,
    prepare: Prepare | None = None,
) -> None:
    """Run `work` on the spec of the command line, several times in a multirun, and exit.

    `about`: what --help says before the choices and keys, a module's docstring.

    `work` notes what it did and what failed; `finish` gets all jobs of a multirun at its end. With
    `prepare`, the jobs of a multirun in this process wait until all are known, and `prepare` sees
    their specs first; jobs that a launcher gives to other processes do not wait. Exit
    codes: 0 done; 1 something failed, or a part of a multirun was refused; 2 the request is wrong;
    130 interrupted; 143 ended by SIGTERM. torchrun gives 1 for whatever is not 0.
    """
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # hydra raises, so that we print one line
    try:
        exit_with(lambda: _run_or_end(about or "", work, finish, prepare))
    finally:
        BOARD.clear()
        processes.leave()


def exit_with(act: Callable[[], int]) -> NoReturn:
    """End the process with the exit code that `act` gives, without a traceback for Ctrl-C and for a
    reader of the output who has gone.
    """
    begun()
    try:
        code = act()
    except KeyboardInterrupt as error:
        log.error("interrupted")
        code = exit_code(error)
    except OSError as error:  # all that `| head` leaves unread is help and lists
        if error.errno not in (EPIPE, ENOSPC, EDQUOT) or error.filename is not None:
            raise
        send_nowhere(sys.stdout, error)
        code = 0
    let_go(sys.stdout)
    sys.exit(code)


def _run_or_end(about: str, work: Work, finish: Finish, prepare: Prepare | None) -> int:
    """The exit code, of an interrupted command too. torchrun ends its processes its own way."""
    try:
        with nullcontext() if processes.started_by_torchrun() else terminable():
            processes.join()
            set_up_logging(processes.rank())
            if processes.rank() > 0:
                workers.work()
                return 0
            code = _run(about, work, finish, prepare)
            processes.dismiss()
            return code
    except KeyboardInterrupt as error:
        end_jobs()
        if processes.rank() == 0:
            said = "ended by SIGTERM" if isinstance(error, Terminated) else "interrupted"
            log.error("%s: run the same command again to continue where it stopped", said)
        return exit_code(error)


def _run(about: str, work: Work, finish: Finish, prepare: Prepare | None) -> int:
    """The exit code."""
    jobs: list[Job] = []
    early = []  # why a multirun ended before its last job
    try:
        sys.argv[1:] = command_line(sys.argv[1:], about)
        _refuse_no_results(sys.argv[1:])
        waiting = _Waiting(None if prepare is None else os.getpid())
        _composed(work, jobs, waiting)()
        if prepare is not None and waiting.jobs:
            with env_override(waiting.environment):
                _do_waiting(work, prepare, waiting)
    except Exception as error:
        await_jobs()
        jobs = _all_jobs(jobs)
        if isinstance(error, BrokenPipeError) and not jobs:  # of what hydra prints
            raise
        if not jobs:
            log.error("error: %s", not_begun(error))
            return 2
        if BOARD.folder is None:
            raise
        early = [f"the launcher: {one_line(error, kind=True)}"]
    jobs = _all_jobs(jobs)
    if not jobs and BOARD.folder is not None:
        log.error("error: this multirun has no job: a glob(...) on the command line finds nothing")
        return 2
    failed = [line for job in jobs for line in job.failed] + _unended(jobs) + early
    try:
        if BOARD.folder is not None:
            finish(jobs)
    except RequestError as error:  # the records are there; it is only the table that is missing
        log.error("error: %s", error)
        failed.append(str(error))
    return _code(jobs, failed)


def _refuse_no_results(arguments: list[str]) -> None:
    """RequestError on an empty results folder, before hydra makes one for a multirun in /."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key == "results":
            given_path(key, value.strip("'\""))


def _all_jobs(own: list[Job]) -> list[Job]:
    """The jobs of a multirun wherever they ran; else those of this process."""
    return BOARD.read() if BOARD.folder is not None else own


def _named(job: Job) -> str:
    return f"job {job.number} ({' '.join(job.overrides)})"


def _unended(jobs: list[Job]) -> list[str]:
    return [
        f"{_named(job)} was killed or is still running: run the same command again"
        for job in jobs
        if not job.ended
    ]


def _code(jobs: list[Job], failed: list[str]) -> int:
    """The exit code; several failures, or one among several jobs, are listed."""
    refused = sum(job.refused for job in jobs)
    if failed and not len(jobs) == refused == 1:
        log.error("%d failed: %s", len(failed), "; ".join(failed))
    if refused and refused == len(jobs):
        return 2
    return 1 if failed else 0


@dataclass
class _Waiting:
    """Jobs of a multirun that are done once all are known; `process`: where jobs wait, if at all.

    It travels to other processes, where nothing waits. `environment`: what hydra adds to it while
    it calls a job, the same for all.
    """

    process: int | None
    jobs: list[tuple[RunSpec, Job]] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)


def _composed(work: Work, jobs: list[Job], waiting: _Waiting) -> Callable[[], None]:
    """The job as hydra calls it, maybe in another process: it carries its board along."""
    board = BOARD

    def run_job(config: DictConfig) -> None:
        set_up_logging()
        job = _begun()
        jobs.append(job)
        board.write(job)
        later = job.several and waiting.process == os.getpid()
        do = _wait(waiting) if later else work
        if later:
            waiting.environment = dict(HydraConfig.get().job.env_set)
        _do(lambda: do(read(config), job), job)
        if not later or job.failed:
            job.ended = True
            board.write(job)

    return hydra.main(str(config_dir()), "config", version_base="1.3")(run_job)


def _wait(waiting: _Waiting) -> Work:
    return lambda spec, job: waiting.jobs.append((spec, job))


def _do_waiting(work: Work, prepare: Prepare, waiting: _Waiting) -> None:
    """Do the jobs of a multirun whose specs are all known now."""
    prepare([spec for spec, _ in waiting.jobs])
    for spec, job in waiting.jobs:
        _do(partial(work, spec, job), job)
        job.ended = True
        BOARD.write(job)


def _begun() -> Job:
    """This job; in a multirun with its number and what was given to it."""
    config = HydraConfig.get()
    if config.mode != RunMode.MULTIRUN:
        return Job()
    return Job(int(config.job.num), given(config), several=True)


def _do(act: Callable[[], object], job: Job) -> None:
    """Do a job's work, with one line for a request that is refused."""
    try:
        act()
    except RequestError as error:
        log.error("error: %s", error)
        job.refused = True
        job.failed.append(str(error))
    except Exception as error:
        if not job.several:
            raise
        log.error("job %d", job.number, exc_info=error)  # the other jobs go on
        job.failed.append(f"{_named(job)}: {one_line(error, kind=True)}")
