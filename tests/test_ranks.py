"""Several processes on one evaluation: the same bytes as one, and nothing lost when one fails."""

import csv
import json
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from forked import run as run_forked
from hydra.core.global_hydra import GlobalHydra
from in_process import without_figures
from outcomes import outcome
from PIL import Image
from samples import small_run

from asap.cli.run import main
from asap.data.images import content
from asap.errors import RequestError
from asap.experiment import throughput_rows as speed
from asap.experiment.pipeline import run
from asap.measure import accuracy, device, joint_evaluation, processes, workers
from asap.measure.device import pick_device
from asap.measure.session import Session
from asap.measure.timing import ThroughputPlan
from asap.publish.run_outputs import write_outputs
from asap.records.store import Cell
from asap.spec.run_spec import DataSpec, RunSpec

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[1]
ROWS = [{"method": "dense"}, {"method": "asap", "with": {"tau": 2.0}}]
IMAGES = 13  # does not divide by 2, 3 or 5

fork = multiprocessing.get_context("fork")  # children share the imported modules: fast


def spec_of(results: Path, images: int = IMAGES) -> RunSpec:
    how = {"title": "Ranks", "batch_size": 3, "shard_seconds": 0.001}
    return small_run(results, *ROWS, images=images, **how)


def in_ranks(
    size: int, lead: Callable[[], object], prepare: Callable[[int], object] = lambda rank: None
) -> list[int]:
    """`size` processes as torchrun would start them: rank 0 does `lead()`, the others serve it;
    their exit codes. `prepare(rank)` comes first in each.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def child(rank: int) -> None:
        os.environ |= {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size),
            "LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        }  # fmt: skip
        torch.set_num_threads(1)
        processes.join()
        prepare(rank)
        if rank > 0:
            workers.work()
        else:
            lead()
            processes.dismiss()
        processes.leave()

    children = [fork.Process(target=child, args=(rank,)) for rank in range(size)]
    for process in children:
        process.start()
    for process in children:
        process.join(120)
    codes = [process.exitcode for process in children]
    assert None not in codes, "a rank hangs"
    return codes


def whole(results: Path) -> None:
    """A run as the command does it, with what people look at."""
    write_outputs(*run(spec_of(results)))


@pytest.fixture(scope="module", autouse=True)
def no_figures() -> Iterator[None]:
    with without_figures():
        yield


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one process leaves."""
    results = tmp_path_factory.mktemp("alone")
    whole(results)
    found = outcome(results)
    assert len(found) == 11  # two records with two tables each, a table in four forms, its rows
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_shares_cover_every_number_once_and_evenly(size):
    for ranges in ([(0, 40)], [(3, 4), (7, 20), (30, 31)], [(5, 7)], []):
        parts = []
        for rank in range(size):
            own = processes.share(ranges, rank, size)
            parts.append([i for start, stop in own for i in range(start, stop)])
        joined = [i for part in parts for i in part]
        assert joined == [i for start, stop in ranges for i in range(start, stop)]
        counts = [len(part) for part in parts]
        assert max(counts) - min(counts) <= 1 and counts[0] == max(counts)


@pytest.mark.parametrize("size", [3])  # 2 is under torchrun below; 5 takes longer, the same way
def test_any_number_of_processes_leaves_the_same_bytes(size, alone, tmp_path):
    assert in_ranks(size, lambda: whole(tmp_path)) == [0] * size
    assert outcome(tmp_path) == alone
    record = json.loads(next(tmp_path.glob("runs/*/accuracy.json")).read_bytes())
    assert record["environment"]["processes"] == size


@pytest.mark.parametrize("victim", [0, 1])
def test_when_a_rank_is_killed_the_others_end_and_the_same_command_goes_on(victim, alone, tmp_path):
    def killed(rank: int) -> None:
        write, written = Cell.write_shard, []

        def deadly(self, *given):
            write(self, *given)
            written.append(given)
            if rank == victim and len(written) == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        Cell.write_shard = deadly

    codes = in_ranks(2, lambda: whole(tmp_path), killed)
    assert codes[victim] == -signal.SIGKILL and codes[1 - victim] == 1
    assert list(tmp_path.glob("runs/*/shard-*")), "what was done is kept"
    assert not list(tmp_path.glob("runs/*/accuracy.json"))
    assert in_ranks(2, lambda: whole(tmp_path)) == [0, 0]
    assert outcome(tmp_path) == alone


def failing(rank: int, error: Exception) -> None:
    """Let the evaluation of ASAP raise on one rank."""
    evaluate = joint_evaluation._evaluate

    def faulty(model, *rest):
        if processes.rank() == rank and model.model.method.reduces:
            raise error
        return evaluate(model, *rest)

    joint_evaluation._evaluate = faulty


@pytest.mark.parametrize("victim", [0, 1])
def test_a_row_that_fails_on_one_rank_fails_on_all_and_the_others_go_on(victim, alone, tmp_path):
    said = "RankFailed: rank 1: RuntimeError: the card" if victim else "RuntimeError: the card"

    def lead() -> None:
        _, (dense, asap) = run(spec_of(tmp_path))
        assert dense.accuracy["n"] == IMAGES and asap.accuracy is None
        assert asap.reason == f"failed: {said} fell off"

    faulty = RuntimeError("the\ncard fell off")
    assert in_ranks(2, lead, lambda _: failing(victim, faulty)) == [0, 0]
    (path,) = tmp_path.glob("runs/*/error.json")
    said = json.loads(path.read_bytes())
    assert "the card fell off" in said["traceback"].replace("\n", " ")
    assert len(list(tmp_path.glob("runs/*/accuracy.json"))) == 1
    whole(tmp_path)  # one process takes up what two have left
    assert outcome(tmp_path) == alone


def test_memory_that_runs_out_on_one_rank_halves_its_batch_only(alone, tmp_path):
    def tight_for(rank: int) -> None:
        forward = accuracy.ReducedViT.forward

        def tight(self, images, *rest, **named):
            if rank == 1 and len(images) > 1:
                raise torch.OutOfMemoryError("too much")
            return forward(self, images, *rest, **named)

        accuracy.ReducedViT.forward = tight

    assert in_ranks(2, lambda: whole(tmp_path), tight_for) == [0, 0]
    assert outcome(tmp_path) == alone
    records = [json.loads(p.read_bytes()) for p in tmp_path.glob("runs/*/accuracy.json")]
    assert [record["batch_halved"] for record in records] == [1, 1]


def test_what_is_wrong_on_one_rank_only_is_refused_on_all(tmp_path):
    def refused(specs: list[RunSpec], words: str) -> None:
        def prepare(rank: int) -> None:
            if rank > 0:  # the same spec from the leader means something else here
                workers.Session = lambda spec, memory: Session(specs[rank], memory)

        def lead() -> None:
            with pytest.raises(RequestError, match=words):
                run(specs[0])

        assert in_ranks(2, lead, prepare) == [0, 0]

    shared = tmp_path / "shared"
    refused([spec_of(shared), spec_of(shared, images=7)], "other weights, images or kinds")
    (tmp_path / "file").write_text("")
    refused([spec_of(shared), spec_of(tmp_path / "file")], "cannot be used")
    assert not list(tmp_path.glob("*/runs/**/accuracy.json"))


def test_a_results_folder_that_another_machine_does_not_see_is_refused(tmp_path):
    def prepare(rank: int) -> None:
        if rank > 0:
            exists = Path.exists
            Path.exists = lambda path, **how: ".met-" not in path.name and exists(path, **how)

    def lead() -> None:
        with pytest.raises(RequestError, match="not one folder for all machines"):
            run(spec_of(tmp_path))

    assert in_ranks(2, lead, prepare) == [0, 0]
    assert not list(tmp_path.glob("runs/**/accuracy.json"))


def test_the_command_times_on_rank_0_alone_and_the_table_has_the_speeds(tmp_path):
    """As ImageNet experiments do: accuracy by all ranks, then speed while the others wait."""
    given = [
        "measure=full", "measure.throughput_images=6", "measure.threads=1", "measure.short=true",
        "rows=[{method: dense}, {method: asap, with: {tau: 2.0}}]", f"data.images={IMAGES}",
        "title=Ranks", "device=cpu", "batch_size=3", f"results={tmp_path}",
    ]  # fmt: skip

    def prepare(rank: int) -> None:
        tempfile.tempdir = str(tmp_path)  # a lock of its own: the machine may be measuring
        real = speed.measure_throughput
        speed.measure_throughput = lambda *given, **named: (
            (tmp_path / f"by-{rank}").touch() or real(*given, **named)
        )
        speed._plan = lambda _: ThroughputPlan(3, 0.001, 0, True, 0.0)

        GlobalHydra.instance().clear()
        sys.argv = ["asap.run", *given]

    assert in_ranks(2, main, prepare) == [0, 0]
    assert [path.name for path in tmp_path.glob("by-*")] == ["by-0"]
    records = [json.loads(p.read_bytes()) for p in tmp_path.glob("runs/*/throughput.json")]
    assert len(records) == 2
    assert {(record["threads"], record["clock"]) for record in records} == {(1, "cpu")}
    rows = list(csv.DictReader((tmp_path / "tables/ranks.csv").read_text("utf-8").splitlines()))
    assert len(rows) == 2 and all(float(row["infer_samples_per_sec"]) > 0 for row in rows)
    assert {row["n"] for row in rows} == {str(IMAGES)}


def test_every_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setattr(device, "size", lambda: 8)
    monkeypatch.setattr(processes, "size", lambda: 8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    assert [str(pick_device(name)) for name in ("auto", "cuda", "cpu")] == ["cuda:3"] * 2 + ["cpu"]
    with pytest.raises(RequestError, match="one GPU for 4 processes"):
        pick_device("cuda:1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(RequestError, match="--nproc-per-node=2"):
        pick_device("auto")


def test_a_gpu_with_a_number_is_the_current_one(monkeypatch):
    """Triton launches kernels on the current one, wherever the tensors are."""
    current = []
    monkeypatch.setattr(torch, "zeros", lambda *_, **__: None)
    monkeypatch.setattr(torch.cuda, "set_device", lambda one: current.append(str(one)))
    assert [str(pick_device(name)) for name in ("cuda:1", "cuda", "cpu")] == [
        "cuda:1",
        "cuda",
        "cpu",
    ]
    assert current == ["cuda:1"]


@pytest.mark.slow
def test_the_command_under_torchrun(alone, tmp_path):
    """Printed once, and the bytes of one process."""
    done = run_forked(
        *("--standalone", "--nproc-per-node=2", "-m", "asap.run", "title=Ranks"),
        *("rows=[{method: dense}, {method: asap, with: {tau: 2.0}}]", f"data.images={IMAGES}"),
        *("device=cpu", "batch_size=3", f"results={tmp_path}"),
        module="torch.distributed.run",
        PYTHONPATH=str(ROOT),
        OMP_NUM_THREADS="1",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Accuracy and cost") == 1 and "rank" not in done.stderr
    found = outcome(tmp_path)
    assert found == alone


def test_pictures_are_hashed_by_one_rank_of_a_machine(tmp_path, monkeypatch):
    root, old = tmp_path / "set", time.time_ns() + 10**10
    for label in range(10):
        (root / str(label)).mkdir(parents=True)
        Image.new("RGB", (20, 20), (25 * label, 0, 0)).save(root / str(label) / "0.png")
    spec = replace(spec_of(tmp_path / "run"), data=DataSpec("folder", str(root)))
    monkeypatch.setattr(time, "time_ns", lambda: old)  # the files are no longer young

    def prepare(rank: int) -> None:
        real = content._read
        content._read = lambda *given: (tmp_path / f"hashed-{rank}").touch() or real(*given)

    assert in_ranks(2, lambda: workers.meet(Session(spec)), prepare) == [0, 0]
    assert [path.name for path in tmp_path.glob("hashed-*")] == ["hashed-0"]
