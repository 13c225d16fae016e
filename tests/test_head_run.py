"""A run trains the head that it needs, once for all methods, alone or by several processes."""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from fake_video import FakeVideo
from safetensors.torch import save_file
from test_ranks import in_ranks
from test_video_run import CLIP, ROWS

from asap.backbones.video_head import load_head
from asap.backbones.weights.load import load
from asap.data import open as data_sets
from asap.data.base import take
from asap.data.options import DataOptions, Opening
from asap.errors import RequestError
from asap.experiment.head import with_head
from asap.experiment.job import Job
from asap.experiment.pipeline import evaluate, run
from asap.measure.heads import parallel, training
from asap.measure.heads.extraction import Extraction
from asap.measure.in_memory import InMemory
from asap.measure.session import Session
from asap.spec.run_spec import DataSpec, HeadSpec, LogSpec, MeasureSpec, MethodSpec, RunSpec


@dataclass(frozen=True)
class FakeOptions(DataOptions):
    """The options of `FakeVideo`, with training clips of its own."""

    clips: int = 10
    split: str = "validation"
    broken: int | None = None
    splits: ClassVar[tuple[str, ...]] = ("validation", "train")

    def open(self, opening: Opening) -> Any:
        train = self.split == "train"
        broken = () if self.broken is None or not train else ((self.broken, "short"),)
        return take(FakeVideo(self.clips, 4, 2, 32, broken, seed=int(train)), opening.limit)


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(data_sets.DATA_SETS, "fake_video", FakeOptions)


Make = Callable[..., RunSpec]


@pytest.fixture
def spec(tmp_path: Path) -> Make:
    def made(data: dict | None = None, folder: str = "results", **head: Any) -> RunSpec:
        about = {"heads": 4, "epochs": 3, "batch_size": 8, "lr": 3e-3, **head}
        return RunSpec(
            "video", CLIP, DataSpec("fake_video", None, data or {}), ROWS[:2],
            results=tmp_path / folder, device="cpu", batch_size=16, head=HeadSpec(**about),
            shard_seconds=1e-6,
        )  # fmt: skip

    return made


def head_of(spec: RunSpec) -> Path:
    ready = with_head(spec, InMemory())
    assert ready.head is not None and ready.head.file is not None
    return Path(ready.head.file)


def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """How many clips are encoded and steps are done from now on."""
    done = {"clips": 0, "steps": 0}
    of, rate = Extraction._of, training.Recipe.rate

    def clips(self: Extraction, samples: Any) -> Any:
        done["clips"] += len(samples)
        return of(self, samples)

    def steps(self: training.Recipe, step: int) -> float:
        done["steps"] += 1
        return rate(self, step)

    monkeypatch.setattr(Extraction, "_of", clips)
    monkeypatch.setattr(training.Recipe, "rate", steps)
    return done


def test_a_head_is_trained_once_and_its_record_is_whole(spec: Make, monkeypatch) -> None:
    done = counted(monkeypatch)
    file = head_of(spec())
    assert done["clips"] == 10
    head, config = load_head(file)
    record = json.loads((file.parent / "head.json").read_text())
    assert record["identity"]["methods"] == {} and record["head"]["weights"] == config.weights
    assert record["key"] == file.parent.name and len(record["epochs"]["loss"]) == 3
    found = record["metrics"]
    assert (found["train_clips"], found["train_clips_failed"], found["train_steps"]) == (10, 0, 9)
    assert found["head_parameters"] == sum(p.numel() for p in head.parameters())
    assert found["train_loss"] == record["epochs"]["loss"][-1] < record["epochs"]["loss"][0]
    assert len((file.parent / "training.csv").read_text().splitlines()) == 10
    assert not (file.parent / "training").exists()
    done.update(clips=0, steps=0)
    assert head_of(spec()) == file and done == {"clips": 0, "steps": 0}


def test_a_damaged_head_is_trained_again_and_features_serve_all_heads(
    spec: Make, monkeypatch, caplog
) -> None:
    file = head_of(spec())
    content = file.read_bytes()
    done = counted(monkeypatch)
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert head_of(spec()).read_bytes() == content and done["clips"] == 0
    assert "is damaged (its digest differs)" in caplog.text
    for other in ({"kind": "linear"}, {"lr": 1e-2}, {"seed": 1}, {"epochs": 2}, {"heads": 2}):
        assert head_of(spec(**other)) != file
    assert done["clips"] == 0
    assert head_of(spec(reads="tokens")) != file and done["clips"] == 10
    assert head_of(spec(train_clips=4)) != file and done["clips"] == 14
    assert head_of(spec(kind="linear", heads=2)) == head_of(spec(kind="linear"))


def test_the_seed_of_methods_changes_neither_features_nor_head(
    spec: Make, tmp_path: Path, monkeypatch
) -> None:
    """With weights that do not depend on it."""
    file = tmp_path / "clip.safetensors"
    model = load(CLIP.name, "random", None, CLIP.model_args, 0, {}, None).model
    save_file(model.state_dict(), file)
    asked = replace(spec(), backbone=replace(CLIP, weights=str(file)))
    head = head_of(asked)
    done = counted(monkeypatch)
    assert head_of(replace(asked, seed=7)) == head and done == {"clips": 0, "steps": 0}


def test_rows_are_measured_with_the_head_that_was_trained(spec: Make, caplog) -> None:
    job = Job(spec=replace(spec(), log=LogSpec(tensorboard=True)))
    with caplog.at_level(logging.INFO, "asap"):
        evaluate([job], InMemory())
    assert not job.failed and not job.refused
    dense, tome = job.results
    assert dense.accuracy is not None and tome.accuracy is not None
    head = job.spec and job.spec.head
    assert head is not None and head.file is not None
    digest = json.loads(Path(head.file).with_name("head.json").read_text())["digest"]
    assert dense.accuracy["identity"]["head"]["digest"] == digest
    assert "head: Head (attention, class), trained on 10 clips: loss" in caplog.text
    assert "Dense: 10 clips" in caplog.text and " images" not in caplog.text
    results = spec().results
    assert list((results / "tensorboard" / Path(head.file).parent.name).glob("events*"))
    for one in (job.spec, spec()):
        _, (again, *_) = run(one)
        assert again.key == dense.key


def test_a_run_may_make_the_head_alone(spec: Make) -> None:
    asked = replace(spec(), measure=MeasureSpec(accuracy=False), rows=ROWS[:1])
    job = Job(spec=asked)
    evaluate([job], InMemory())
    assert not job.failed and not job.refused and not job.results[0].records
    assert list((asked.results / "runs").glob("*/head.safetensors"))
    assert not (asked.results / "tables").exists()


def interrupt(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """From now on, Ctrl-C comes before so many steps are done."""
    rate, steps = training.Recipe.rate, 0

    def stop(self: training.Recipe, step: int) -> float:
        nonlocal steps
        steps += 1
        if steps == at:
            raise KeyboardInterrupt
        return rate(self, step)

    monkeypatch.setattr(training.Recipe, "rate", stop)


def test_an_interrupted_run_goes_on(spec: Make, monkeypatch) -> None:
    whole = head_of(spec(folder="whole")).read_bytes()
    for at in (3, 4):
        with monkeypatch.context() as patched:
            interrupt(patched, at)
            with pytest.raises(KeyboardInterrupt):
                head_of(spec())
    done = counted(monkeypatch)
    again = head_of(spec())
    # The curve asks for the rate of all nine steps once more.
    assert again.read_bytes() == whole and done == {"clips": 0, "steps": 9 - 2 - 3 + 9}
    assert not (again.parent / "training").exists()


def test_clips_without_features_are_left_out_or_refused(spec: Make, caplog) -> None:
    file = head_of(spec({"broken": 3}))
    found = json.loads((file.parent / "head.json").read_text())["metrics"]
    assert (found["train_clips"], found["train_clips_failed"]) == (9, 1)
    assert "1 of 10 training clips have no features and are left out (short: clip 3" in caplog.text
    strict = spec({"broken": 3}, epochs=4)
    strict = replace(strict, data=replace(strict.data, strict=True))
    with pytest.raises(RequestError, match=r"1 of 10 training clips .* set data\.strict=false"):
        head_of(strict)
    with pytest.raises(RequestError, match=r"1 of 1 training clips have no .* data\.stride"):
        head_of(spec({"clips": 1, "broken": 0}))


def test_without_training_clips_the_file_of_a_head_is_asked_for(spec: Make, monkeypatch) -> None:
    opened = FakeOptions.open

    def none(self: FakeOptions, opening: Opening) -> Any:
        if self.split == "train":
            raise RequestError("no folder train is in /data/k400")
        return opened(self, opening)

    with monkeypatch.context() as patched:
        patched.setattr(FakeOptions, "open", none)
        with pytest.raises(RequestError, match=r"no folder train .* head\.file=<file>$"):
            head_of(spec())
    monkeypatch.setattr(FakeOptions, "splits", ())
    with pytest.raises(RequestError, match=r"has no split 'train' .* head\.file=<file>$"):
        head_of(spec())
    assert with_head(replace(spec(), head=None), InMemory()).head is None


def test_what_cannot_follow_is_refused_before_hours_of_features(spec: Make, monkeypatch) -> None:
    done = counted(monkeypatch)
    unfit = MethodSpec.of("tome", {"r": [3] * 99}, "ToMe")
    with pytest.raises(RequestError, match=r"ToMe on backbone .* at most 3 numbers"):
        with_head(replace(spec(), rows=(unfit,)), InMemory())
    opened = FakeOptions.open

    def none(self: FakeOptions, opening: Opening) -> Any:
        if self.split == "validation":
            raise RequestError("no folder val is in /data/k400")
        return opened(self, opening)

    with monkeypatch.context() as patched:
        patched.setattr(FakeOptions, "open", none)
        with pytest.raises(RequestError, match=r"^no folder val is in /data/k400"):
            head_of(spec())
        assert done["clips"] == 0
        head_of(replace(spec(), measure=MeasureSpec(accuracy=False)))  # needs no other clips


def test_a_head_in_a_file_is_looked_at_before_the_clips_are_read(spec: Make, monkeypatch) -> None:
    given = replace(spec(), head=replace(HeadSpec(heads=4), file=str(head_of(spec()))))

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the clips' digest is asked for")

    monkeypatch.setattr(Session, "identity", never)
    assert with_head(given, InMemory()) is given
    assert given.head is not None
    for changed, reason in (
        ({"file": "/some/head.safetensors"}, "does not exist"),
        ({"file": str(given.results)}, "is not a file"),
        ({"kind": "linear"}, "attention and not linear: set head=attention"),
    ):
        wrong = replace(given, head=replace(given.head, **changed))
        with pytest.raises(RequestError, match=reason):
            with_head(wrong, InMemory())
    nothing = replace(given, measure=MeasureSpec(accuracy=False))
    with pytest.raises(RequestError, match="is trained already, and nothing else is asked for"):
        with_head(nothing, InMemory())


@pytest.mark.process
@pytest.mark.parametrize("processes", [2, 3])
def test_several_processes_make_the_same_head_up_to_rounding(
    processes: int, spec: Make, monkeypatch
) -> None:
    alone = head_of(spec({"clips": 11}, folder="alone"))
    shared = spec({"clips": 11}, folder="shared")
    codes = in_ranks(processes, lambda: with_head(shared, InMemory()))
    assert codes == [0] * processes
    done = counted(monkeypatch)
    together = head_of(shared)
    assert done == {"clips": 0, "steps": 0}
    record = json.loads((together.parent / "head.json").read_text())
    assert record["environment"]["processes"] == processes
    features = torch.randn(9, 4, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        one, other = (load_head(path)[0](features) for path in (alone, together))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
    files = [next(p.parents[2].glob("features/*/features.bin")) for p in (alone, together)]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.process
def test_processes_take_the_options_of_each_head_in_turn(spec: Make) -> None:
    """Two heads of one size on the same features, by the same workers."""
    other = {"smoothing": 0.6}
    alone = head_of(spec(folder="alone", **other))
    shared = [spec(folder="shared", **about) for about in ({"smoothing": 0.0}, other)]
    assert in_ranks(2, lambda: [with_head(one, InMemory()) for one in shared]) == [0, 0]
    together = head_of(shared[1])
    curves = [json.loads((p.parent / "head.json").read_text())["epochs"]["loss"]
              for p in (alone, together)]  # fmt: skip
    assert curves[0] == pytest.approx(curves[1], rel=1e-4)


@pytest.mark.process
def test_a_process_that_fails_ends_the_training_with_its_reason(spec: Make) -> None:
    shared = spec()

    def broken(*_: Any, **__: Any) -> None:
        raise ValueError("broken here")

    def lead() -> None:
        with pytest.raises(Exception, match="rank 1: ValueError: broken here"):
            with_head(shared, InMemory())

    def prepare(rank: int) -> None:
        if rank == 1:
            parallel.build_head = broken

    assert in_ranks(2, lead, prepare) == [0, 0]


def test_jobs_that_train_one_head_share_their_blocks(spec: Make) -> None:
    """As with a head that is given; a job on other clips is not among them."""
    memory, settings = InMemory(), [MethodSpec.of("asap", {"tau": t}, str(t)) for t in (1.02, 1.1)]
    jobs = [Job(spec=replace(spec(), rows=(row,)), several=True) for row in settings]
    jobs.append(Job(spec=replace(spec({"clips": 4}), rows=tuple(settings[:1])), several=True))
    evaluate(jobs, memory)
    assert [job.failed for job in jobs] == [[], [], []]
    assert memory.shared.keys() == {
        result.accuracy["key"] for job in jobs[:2] for result in job.results if result.accuracy
    }
