"""Multiruns, wherever their jobs run: one table, the right exit code, nothing left over."""

import csv
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hydra.types import RunMode
from hypothesis import example, given
from hypothesis import strategies as st
from in_process import quick, run_here
from made import methods

import asap.cli.multirun_tables
import asap.publish.run_outputs
import asap.report.page
from asap.cli import command
from asap.cli import compose as composed
from asap.cli import jobs as multirun
from asap.cli.jobs import Board
from asap.cli.multirun_tables import show_jobs
from asap.errors import RequestError
from asap.experiment import pipeline
from asap.experiment.job import Job
from asap.measure.in_memory import InMemory
from asap.methods import ToMe
from asap.publish.run_outputs import free_title
from asap.records.disk import stem_of
from asap.report.result import Result
from asap.spec.configs import read_method
from asap.spec.read import read_spec, spec_from
from asap.spec.run_spec import RunSpec

Start = Callable[..., int]


@pytest.fixture
def start(tmp_path) -> Iterator[Start]:
    """`start(...)` gives the exit code of `python -m asap.run -m ...`, run in this process."""

    def call(*arguments: str) -> int:
        return run_here("-m", *arguments, "title=Sweep", "device=cpu", f"results={tmp_path}").code

    with quick():
        yield call


def labels(results: Path) -> list[str]:
    with (results / "tables" / "sweep--multirun.csv").open(newline="") as file:
        return [row["method"] for row in csv.DictReader(file)]


def left(results: Path) -> list[Path]:
    return list(results.glob("multirun/jobs-*"))


def test_a_job_that_fails_leaves_the_others_their_table(start, tmp_path, monkeypatch, capsys):
    real = pipeline._measured

    def faulty(session, rows):
        if rows[-1].method.options.get("r") == 3:
            raise ValueError("a defect of ours")
        return real(session, rows)

    monkeypatch.setattr(pipeline, "_measured", faulty)
    assert start("method=tome", "method.r=2,3,-1,4", "data.images=4") == 1
    assert labels(tmp_path) == ["Dense", "ToMe r=2", "ToMe r=4"]
    assert left(tmp_path) == []
    told = capsys.readouterr().err
    assert "2 failed: job 1 (method=tome method.r=3 " in told and "r=-1" in told
    assert "): ValueError: a defect of ours; " in told
    assert start("method=tome", "method.r=-1,-2") == 2


def test_a_job_without_a_spec_is_not_begun(start, tmp_path, monkeypatch, capsys):
    """It failed when it was composed, and fails once."""
    real = multirun.read

    def faulty(config):
        if config.method.r == 3:
            raise ValueError("a defect of ours")
        return real(config)

    monkeypatch.setattr(multirun, "read", faulty)
    assert start("method=tome", "method.r=2,3", "data.images=4") == 1
    assert labels(tmp_path) == ["Dense", "ToMe r=2"]
    told = capsys.readouterr().err
    assert "1 failed: job 1 (method=tome method.r=3 " in told and "AssertionError" not in told


def test_a_row_that_fails_is_named_by_its_options_and_has_its_place(
    start, tmp_path, monkeypatch, capsys
):
    real = ToMe.reduce

    def faulty(self, site, chosen):
        if self.r == 3:
            raise ValueError("a defect of the method")
        return real(self, site, chosen)

    monkeypatch.setattr(ToMe, "reduce", faulty)
    assert start("method=tome", "method.r=2,3", "data.images=4") == 1
    assert "1 failed: ToMe r=3: " in capsys.readouterr().err
    assert labels(tmp_path) == ["Dense", "ToMe r=2", "ToMe r=3"]
    assert "a defect of the method" in (tmp_path / "tables" / "sweep--multirun.md").read_text()
    page = (tmp_path / "report.html").read_text()
    assert "<dt>ToMe r=3</dt>" in page.replace("\n", "")


def test_every_seed_and_every_set_of_weights_has_its_own_baseline(start, tmp_path):
    given = ("method=tome", "backbone.weights=random", "data.images=40")
    assert start(*given, "seed=0,1,2") == 0
    for seed in range(3):
        table = tmp_path / "tables" / f"sweep--multirun---seed-{seed}.csv"
        with table.open(newline="") as file:
            dense, tome = csv.DictReader(file)
        record = json.loads(next(tmp_path.glob(f"runs/{dense['key']}/accuracy.json")).read_bytes())
        assert float(tome["top1_base"]) == float(dense["top1"]) == record["top1"]
        assert record["identity"]["seed"] == seed


def test_a_multirun_without_a_job_is_refused(start, capsys):
    assert start("method=glob(zz*)") == 2
    assert "this multirun has no job" in capsys.readouterr().err


def test_a_launcher_that_is_not_installed_says_what_to_install():
    said = "In 'hydra/config': Could not find 'hydra/launcher/submitit_slurm' Available: basic"
    assert "pip install 'asap-vit[slurm]'" in composed.not_composed(said)
    assert "pip install 'asap-vit[joblib]'" in composed.not_composed(
        said.replace("submitit_slurm", "joblib")
    )


SPEC = read_spec(
    {
        "title": "Every kind of value",
        "backbone": {"name": "digits_vit", "weights": "bundled", "model_args": {"a": [1, None]}},
        "data": {"name": "digits", "path": None},
        "rows": [{"method": "asap", "with": {"tau": 2.5, "clusters": 4}, "note": "α"}],
        "remarks": ["one", "two"],
        "calibrate": {"macs_pct": -30, "grid": {"tau": [1, 2.5]}},
        "limit": 3,
    },
    read_method,
)


def test_a_spec_survives_json():
    assert spec_from(json.loads(json.dumps(asdict(SPEC), default=str))) == SPEC


def test_jobs_tell_by_files_and_one_that_was_killed_counts_as_failed(tmp_path):
    board = Board(tmp_path / "jobs")
    board.write(Job(1, ["method.tau=3"], several=True))
    board.write(Job(0, ["method.tau=2"], several=True, ended=True, spec=SPEC))
    ended, killed = board.read()
    assert ended == Job(0, ["method.tau=2"], several=True, ended=True, spec=SPEC)
    assert killed.spec is None and not killed.ended
    (line,) = command._unended([ended, killed])
    assert line.startswith("job 1 (method.tau=3) was killed or is still running")
    assert command._code([ended, killed], [line]) == 1
    board.clear()
    assert not (tmp_path / "jobs").exists()


@pytest.mark.parametrize(
    ("launcher", "n_jobs", "refused"),
    [("basic", 1, False), ("joblib", 1, False), ("joblib", -1, True), ("joblib", 2, True),
     ("submitit_local", 1, True), ("submitit_slurm", 1, False)],
)  # fmt: skip
def test_nothing_runs_beside_what_is_timed(launcher, n_jobs, refused):
    config = SimpleNamespace(
        mode=RunMode.MULTIRUN,
        runtime=SimpleNamespace(choices={"hydra/launcher": launcher}),
        launcher=SimpleNamespace(n_jobs=n_jobs),
    )
    timed = replace(SPEC, measure=replace(SPEC.measure, throughput=True))
    composed.check_launcher(SPEC, config)
    if refused:
        with pytest.raises(RequestError, match="beside the one that is timed"):
            composed.check_launcher(timed, config)
    else:
        composed.check_launcher(timed, config)


def test_a_launcher_of_processes_does_not_go_with_torchrun(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    runtime = SimpleNamespace(choices={"hydra/launcher": "joblib"})
    config = SimpleNamespace(mode=RunMode.MULTIRUN, runtime=runtime)
    with pytest.raises(RequestError, match="does not go with torchrun"):
        composed.check_launcher(SPEC, config)


def test_what_hydra_puts_into_the_environment_of_jobs_is_there_when_they_work(
    start, tmp_path, monkeypatch
):
    """All jobs are composed before the first is done, when hydra has taken it away again."""
    real, seen = pipeline._measured, []

    def looking(session, rows):
        seen.append(os.environ.get("OF_A_JOB"))
        return real(session, rows)

    monkeypatch.setattr(pipeline, "_measured", looking)
    given = "+hydra.job.env_set.OF_A_JOB=there"
    assert start("method=tome", "method.r=2,3", "data.images=4", given) == 0
    assert seen == ["there", "there"] and "OF_A_JOB" not in os.environ


def test_blocks_over_other_images_have_a_table_of_their_own(monkeypatch, tmp_path):
    """Two of four jobs were calibrated on a slice that is left out of their evaluation."""
    written = []
    monkeypatch.setattr(asap.cli.multirun_tables, "Session", lambda spec, memory: spec)
    monkeypatch.setattr(asap.cli.multirun_tables, "show", lambda table: None)

    def write(session, results, title):
        written.append((title, session.data.part, [result.label for result in results]))

    monkeypatch.setattr(asap.cli.multirun_tables, "write_outputs", write)
    spec = replace(SPEC, table="All", results=tmp_path)
    rest = replace(spec, data=replace(spec.data, part="rest"))
    record = {"key": "k", "identity": {"methods": methods("dense")}}

    def job(number: int, spec: RunSpec, **more: object) -> Job:
        result = Result(f"row {number}", records={"accuracy": record})
        return Job(number, several=True, spec=spec, results=[result], **more)  # type: ignore[arg-type]

    jobs = [job(0, rest), job(1, spec), job(2, rest), job(3, spec, refused=True)]
    show_jobs(jobs, InMemory())
    assert written == [
        ("All", "rest", ["row 0", "row 2", "row 3"]),
        ("All 2", "all", ["row 1"]),
    ]


@given(st.lists(st.text(max_size=300).filter(lambda t: any(c.isalnum() for c in t)), max_size=4))
@example(["A b", "a-b", "A (b)"])
@example(["x" * 400, "x" * 401])
@example(["日本" * 100, "é" * 200])
def test_titles_that_would_name_the_same_files_get_a_number(titles: list[str]) -> None:
    """Every name is one that file systems take, with the longest ending there is."""
    shown: set[str] = set()
    stems = [stem_of(free_title(title, shown)) for title in titles]
    assert len(set(stems)) == len(titles)
    for stem in stems:
        assert stem and "/" not in stem and len(stem.encode()) <= 100
    again: set[str] = set()
    assert [stem_of(free_title(title, again)) for title in titles] == stems


def test_the_files_of_a_title_are_called_as_ever() -> None:
    assert stem_of("DeiT-Base on ImageNet-1k (multirun)") == "deit-base-on-imagenet-1k--multirun"


def test_labels_of_a_multirun_show_the_options_of_its_jobs() -> None:
    job = Job(0, ["method.tau=3", "method.clusters=4", "data.images=9"], several=True)
    rows = [Result("Dense", records={"accuracy": {"identity": {"methods": methods("dense")}}}),
            Result("ASAP (pool.)")]  # fmt: skip
    assert [row.label for row in job.labelled(rows)] == ["Dense", "ASAP (pool.) tau=3 K=4"]
