"""Signals at random moments: a command ends in order or dies, and the next one finishes the rest.

scripts/stress_resume.py does thirty under each of hydra's launchers and twenty under torchrun, with
commands as a user types them. Here they are forked from the test process, which has imported all.
"""

import ctypes
import io
import logging
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch
from composed_once import composed_once
from hydra.core.global_hydra import GlobalHydra
from in_process import without_figures
from outcomes import outcome
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from asap.cli import jobs as multirun
from asap.cli import submitit_local as submitted
from asap.cli.run import main
from asap.cli.signals import Terminated, exit_code, terminable
from asap.measure import processes

pytestmark = pytest.mark.process

fork = multiprocessing.get_context("fork")
IMAGES = 32
LATEST = 0.5  # seconds after the work has begun, which takes longer
SWEEP = ["-m", "method=random_drop,asap"]
ROWS = ["rows=[{method: dense}, {method: random_drop}, {method: asap}]"]


@pytest.fixture(scope="module", autouse=True)
def no_figures() -> Iterator[None]:
    with composed_once(), without_figures() as patch:
        patch.setattr(multirun.BOARD, "folder", None)
        yield


def given(results: Path, what: list[str]) -> list[str]:
    """The arguments of a command."""
    return [
        *(f"data.images={IMAGES}", *what, "title=Signals", "device=cpu", "batch_size=4"),
        *("shard_seconds=0.02", f"results={results}"),
    ]


def command(results: Path, what: list[str]) -> None:
    """`python -m asap.run ...` in a process of its own, which has been forked."""
    said = results.with_suffix(".txt").open("w", buffering=1)
    sys.stdout = sys.stderr = said
    os.dup2(said.fileno(), 2)
    logging.getLogger("asap").handlers.clear()
    GlobalHydra.instance().clear()
    torch.set_num_threads(1)
    sys.argv = ["asap.run", *given(results, what)]
    main()


def as_typed(results: Path, what: list[str]) -> None:
    # A test run in the background of a shell has SIGINT ignored, and so would its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command(results, what)


def rank(results: Path, what: list[str], late: bool = False) -> None:
    """As torchrun starts it: without its sockets, so that after its death nobody listens."""
    for file in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if str(file.readlink()).startswith("socket:"):
                os.close(int(file.name))
    (results.parent / str(os.getpid())).touch()
    if late:  # importing asap takes seconds, and until then a process outlives torchrun
        ctypes.CDLL(None).prctl(processes._PR_SET_PDEATHSIG, 0)
        time.sleep(1)
    command(results, what)


def under_torchrun(results: Path, late: bool = False) -> None:
    """What torchrun does, with processes that are forked."""
    config = LaunchConfig(
        1, 1, 2, run_id="signals", rdzv_backend="c10d", rdzv_endpoint="localhost:0",
        max_restarts=0, start_method="fork", monitor_interval=0.05,
    )  # fmt: skip
    with results.with_suffix(".agent.txt").open("w") as said:
        os.dup2(said.fileno(), 2)
        elastic_launch(config, rank)(results, ROWS, late)


def start(act: Callable[..., None], *given: object) -> BaseProcess:
    process = fork.Process(target=act, args=given)
    process.start()
    return process


def code_of(process: BaseProcess) -> int | None:
    process.join(300)
    return process.exitcode


def at_a_random_moment(results: Path) -> None:
    """Once the work has begun, at most `LATEST` later."""
    deadline = time.monotonic() + 1200
    while not list(results.glob("runs/*/shard-*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(random.uniform(0, LATEST))


def written(results: Path) -> dict[Path, int]:
    """When finished rows and saved images were written."""
    paths = [*results.glob("runs/*/accuracy.json"), *results.glob("runs/*/shard-*")]
    return {path: path.stat().st_mtime_ns for path in paths}


def kept(before: dict[Path, int]) -> None:
    """What was done is not done again; shards end with their row."""
    for path, time_ns in before.items():
        if path.exists():
            assert path.stat().st_mtime_ns == time_ns
        else:
            assert path.name.startswith("shard-") and (path.parent / "accuracy.json").exists()


@pytest.fixture(scope="module", autouse=True)
def alone(no_figures: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a command leaves that nobody disturbs.

    It is done in this process: what it imports and compiles, the forked ones find.
    """
    results = tmp_path_factory.mktemp("alone") / "results"
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # no pool of threads, which a forked process would wait for
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()):
        patch.setattr(sys, "argv", ["asap.run", *given(results, ROWS)])
        with pytest.raises(SystemExit) as end:
            main()
    torch.set_num_threads(threads)
    assert end.value.code == 0
    return outcome(results)


def test_an_interrupted_command_says_how_to_go_on_and_keeps_what_was_done(tmp_path):
    results = tmp_path / "results"
    process = start(as_typed, results, ["data.images=400", "method=dense"])
    deadline = time.monotonic() + 300
    while not list(results.glob("runs/*/shard-*")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.kill(process.pid or 0, signal.SIGINT)
    assert code_of(process) == 130
    (line,) = results.with_suffix(".txt").read_text().splitlines()
    assert "interrupted" in line and "same command again" in line
    assert list(results.glob("runs/*/shard-*")), "what was done is kept"
    assert not list(results.glob("runs/*/accuracy.json"))


@pytest.mark.parametrize("killed", [False, True])
def test_two_commands_at_once_leave_what_one_leaves_though_one_is_killed(killed, alone, tmp_path):
    """scripts/stress_resume.py does it with twenty kills, and processes as a shell starts them."""
    results = tmp_path / "results"
    first, second = (start(as_typed, results, ROWS) for _ in range(2))
    if killed:
        at_a_random_moment(results)
        os.kill(first.pid or 0, signal.SIGKILL)
    assert code_of(first) in ((-signal.SIGKILL, 0) if killed else (0,))
    assert code_of(second) == 0
    assert outcome(results) == alone


def test_a_multirun_that_is_interrupted_and_killed_is_finished_by_the_next(tmp_path):
    assert code_of(start(as_typed, tmp_path / "alone", SWEEP)) == 0
    expected, results = outcome(tmp_path / "alone"), tmp_path / "disturbed"
    before: dict[Path, int] = {}
    for number, codes in ((signal.SIGINT, (130, 0)), (signal.SIGKILL, (-signal.SIGKILL, 0))):
        process = start(as_typed, results, SWEEP)
        at_a_random_moment(results)
        os.kill(process.pid or 0, number)
        assert code_of(process) in codes  # 0: all was done
        said = results.with_suffix(".txt").read_text()
        assert "Traceback" not in said
        if process.exitcode == 130:
            assert "interrupted: run the same command again" in said
            assert not list(results.glob("multirun/jobs-*"))
        kept(before)
        before = written(results)
    assert code_of(start(as_typed, results, SWEEP)) == 0
    kept(before)
    assert outcome(results) == expected


def ranks_of(launcher: int, folder: Path) -> list[int]:
    """Both of them, once each stands for itself."""
    deadline = time.monotonic() + 1200
    while time.monotonic() < deadline:
        pids = list(submitted._children(launcher))
        if sum((folder / str(pid)).exists() for pid in pids) == 2:
            return pids
        time.sleep(0.005)
    raise AssertionError("torchrun did not start two ranks")


def all_end(pids: list[int]) -> None:
    deadline = time.monotonic() + 120
    while any(submitted._read(pid, "cmdline") for pid in pids):
        assert time.monotonic() < deadline, "a process goes on alone"
        time.sleep(0.02)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are read from /proc")
def test_ranks_end_whose_torchrun_was_killed_before_they_had_met_it(tmp_path):
    process = start(under_torchrun, tmp_path / "results", True)
    pids = ranks_of(process.pid or 0, tmp_path)
    os.kill(process.pid or 0, signal.SIGKILL)
    assert code_of(process) == -signal.SIGKILL
    all_end(pids)
    assert not (tmp_path / "results").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends torchrun's processes on Linux")
def test_under_torchrun_a_rank_is_killed_and_torchrun_itself_and_the_next_finishes(alone, tmp_path):
    results = tmp_path / "disturbed"
    for victim in ("a rank", "torchrun"):
        before = written(results)
        process = start(under_torchrun, results)
        at_a_random_moment(results)
        pids = ranks_of(process.pid or 0, tmp_path)
        pid = random.choice(pids) if victim == "a rank" else process.pid
        os.kill(pid or 0, signal.SIGKILL)
        assert code_of(process) not in (0, None)
        all_end(pids)
        kept(before)
    assert code_of(start(under_torchrun, results)) == 0
    assert outcome(results) == alone


def test_sigterm_ends_a_command_in_order_and_its_forked_processes_at_once():
    def child() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        with terminable():
            begun = fork.Event()
            forked = start(lambda: begun.set() or time.sleep(60))
            begun.wait()
            forked.terminate()
            assert code_of(forked) == -signal.SIGTERM
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(60)
            except KeyboardInterrupt as error:
                assert isinstance(error, Terminated)
                sys.exit(exit_code(error))

    assert code_of(start(child)) == 143
    assert exit_code(KeyboardInterrupt()) == 130


CONTROLLER = """
import subprocess, sys
subprocess.run([sys.executable, "-c", "import time; print(1, flush=True); time.sleep({seconds})"])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="children are read from /proc")
@pytest.mark.parametrize("act", [submitted.end_jobs, submitted.await_jobs])
def test_jobs_of_submitit_end_with_their_command_or_are_waited_for(act, monkeypatch):
    """A process with the controller's name, and its job."""
    kill = os.kill  # as on a busy machine: what dies is noticed before the next one is killed
    monkeypatch.setattr(os, "kill", lambda *given: (kill(*given), time.sleep(0.3)))
    seconds = 60 if act is submitted.end_jobs else 0.3
    program = [sys.executable, "-c", CONTROLLER.format(seconds=seconds), "submitit.local._local"]
    other = subprocess.Popen(["sleep", "60"])
    with subprocess.Popen(program, stdout=subprocess.PIPE) as controller:
        assert controller.stdout is not None
        controller.stdout.readline()
        jobs = list(submitted._children(controller.pid))
        act()
        assert controller.wait(120) == (-signal.SIGKILL if act is submitted.end_jobs else 0)
        assert len(jobs) == 1
        all_end(jobs)
    assert other.poll() is None
    other.kill()
    other.wait()
