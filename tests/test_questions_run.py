"""Whole runs on questions: batches, processes, resuming, identities, methods that are switched off.

The model is a LLaVA of random weights in a folder; the questions are about scenes of digits.
"""

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_llava import made_llava
from outcomes import outcome
from safetensors.torch import load_file, save_file
from test_ranks import in_ranks

from asap.experiment.pipeline import run
from asap.measure import joint_evaluation
from asap.measure.questions import LlavaAnswerer
from asap.measure.session import Session
from asap.publish.pictures.asked import asked
from asap.records.key import key_of
from asap.records.lasting import LASTING
from asap.records.store import Cell
from asap.report.result import Result
from asap.spec.configs import read_method
from asap.spec.read import read_spec
from asap.spec.run_spec import RunSpec
from asap.tasks.questions import CannotAnswer

pytestmark = pytest.mark.whole_run
ROWS = [
    {"method": "dense"},
    {"method": "random_drop", "with": {"keep": 0.5, "block": 1}},
    {"method": "asap", "with": {"tau": 1.01, "clusters": 2, "miss": "force"}},
    {"method": "fastv", "with": {"layer": 1, "rank": 5}},
    {
        "methods": {
            "vision": {"name": "visionzip", "dominant": 5, "contextual": 3},
            "language": {"name": "sparsevlm", "layers": [0, 1], "keep": [4, 2]},
        },
        "label": "both",
    },
    {"method": "object_rows"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with 16 patches, 4 blocks in the tower of which 3 run, 3 layers of language."""
    return made_llava(tmp_path_factory.mktemp("llava"))


def spec_of(folder: Path, results: Path, *rows: dict, **about: Any) -> RunSpec:
    config: dict[str, Any] = {
        "title": "Questions",
        "backbone": {"name": "llava", "weights": str(folder)},
        "data": {"name": "digits_qa", "pictures": 2},
        "rows": list(rows or ROWS),
        "answer": {"max_new_tokens": 3},
        "results": str(results),
        "device": "cpu",
        "batch_size": 4,
    }
    return read_spec(config | about, read_method)


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, list[Result]]:
    """What one process finds."""
    return run(spec_of(folder, tmp_path_factory.mktemp("alone")))


def answers(result: Result) -> pd.DataFrame:
    return result.answers()


def test_every_row_answers_every_question(alone: tuple[Session, list[Result]]) -> None:
    session, results = alone
    assert [result.reason for result in results] == [None] * len(ROWS)
    for result in results:
        record = result.measured
        assert record["n"] == len(session.data) and record["n_failed"] == 0
        assert record["parameters"] == session.parameters
        assert "transformers" in record["environment"]
        assert "transformers" not in json.dumps(record["identity"])
    dense, drop, _, fastv, both, objects = [answers(result) for result in results]
    assert set(dense["visual_rows"]) == {16} and set(drop["visual_rows"]) == {8}
    assert set(both["visual_rows"]) == {8}
    for frame, left in ((dense, [16, 16, 16]), (fastv, [16, 5, 5])):
        rows = [list(layers) for layers in frame["language.tokens"]]
        assert rows == [[n + text for n in left] for text in frame["prompt_rows"]]
    for frame, first in ((both, 8), (objects, 15)):
        rows = [list(layers) for layers in frame["language.tokens"]]
        texts = frame["prompt_rows"]
        assert all(row[0] - text <= first for row, text in zip(rows, texts, strict=True))
        assert all(row == sorted(row, reverse=True) for row in rows)


def test_an_answer_is_that_of_its_question_alone(
    alone: tuple[Session, list[Result]], folder: Path, tmp_path: Path
) -> None:
    """To the last bit: in batches of 4, of 1 and of all; also one by one, in reverse."""
    session, results = alone
    for size in (1, 64):
        _, others = run(spec_of(folder, tmp_path / str(size), batch_size=size))
        for result, other in zip(results, others, strict=True):
            assert result.key == other.key
            pd.testing.assert_frame_equal(answers(result), answers(other), check_exact=True)
            pd.testing.assert_frame_equal(result.traces(), other.traces(), check_exact=True)
    for result, method, pruner in zip(results, session.methods, session.pruners, strict=True):
        frame = answers(result)
        for i in reversed(range(0, len(session.data), 5)):
            one, row = asked(session, method, pruner, session.data[i]), frame.iloc[i]
            assert (one.answer.text, list(one.answer.ids)) == (row["text"], list(row["ids"]))
            assert one.answer.gap == row["gap"] and one.answer.yes_no_gap == row["yes_no_gap"]


OFF = [
    {"method": "random_drop", "with": {"keep": 1.0, "block": 1}},
    {"method": "tome", "with": {"r": 0}},
    {"method": "asap", "with": {"tau": 1e9, "clusters": 2}},
    {"method": "fastv", "with": {"layer": 1, "rank": 16}},
    {"method": "vispruner", "with": {"tokens": 16}},
]


@pytest.mark.parametrize("row", OFF, ids=lambda row: row["method"])
def test_a_method_that_leaves_everything_gives_the_full_models_answers(
    row: dict, alone: tuple[Session, list[Result]], folder: Path, tmp_path: Path
) -> None:
    dense = answers(alone[1][0])
    _, (result,) = run(spec_of(folder, tmp_path, row, limit=6))
    frame = answers(result)
    matched = dense[dense["id"].isin(frame["id"])].reset_index(drop=True)
    same = ["id", "text", "ids", "gap", "yes_no_gap", "visual_rows", "language.macs_backbone"]
    pd.testing.assert_frame_equal(frame[same], matched[same], check_exact=True)


@pytest.mark.process
@pytest.mark.parametrize("size", [2, 3])
def test_any_number_of_processes_leaves_the_same_bytes(
    size: int, alone: tuple[Session, list[Result]], folder: Path, tmp_path: Path
) -> None:
    assert in_ranks(size, lambda: run(spec_of(folder, tmp_path))) == [0] * size
    assert outcome(tmp_path) == outcome(alone[0].spec.results)


@pytest.mark.process
def test_when_a_process_is_killed_one_alone_finishes_with_the_same_bytes(
    alone: tuple[Session, list[Result]], folder: Path, tmp_path: Path
) -> None:
    spec = spec_of(folder, tmp_path, shard_seconds=1e-6)

    def killed(rank: int) -> None:
        write, written = Cell.write_shard, []

        def deadly(self: Cell, *given: Any) -> None:
            write(self, *given)
            written.append(given)
            if rank == 1 and len(written) == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        Cell.write_shard = deadly

    assert in_ranks(2, lambda: run(spec), killed) == [1, -signal.SIGKILL]
    assert list(tmp_path.glob("runs/*/shard-*")), "what was done is kept"
    run(spec)
    assert outcome(tmp_path) == outcome(alone[0].spec.results)


def test_a_run_that_was_cut_short_goes_on_with_the_questions_that_are_missing(
    alone: tuple[Session, list[Result]],
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spec = spec_of(folder, tmp_path, shard_seconds=1e-6)
    evaluate, seen = joint_evaluation._evaluate, []

    def dying(model: Any, samples: list[Any], *rest: Any) -> Any:
        seen.extend(sample.id for sample in samples)
        if len(seen) == 12:
            raise KeyboardInterrupt
        return evaluate(model, samples, *rest)

    monkeypatch.setattr(joint_evaluation, "_evaluate", dying)
    with pytest.raises(KeyboardInterrupt):
        run(spec)
    assert list(tmp_path.glob("runs/*/shard-*"))
    run(spec)
    counts = pd.Series(seen).value_counts()
    assert counts.max() == len(ROWS) + 1 and (counts > len(ROWS)).sum() == 4  # the batch that died
    assert outcome(tmp_path) == outcome(alone[0].spec.results)


Change = Callable[[Path], dict[str, Any]]


def _weight(folder: Path) -> dict[str, Any]:
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = next(k for k in sorted(tensors) if "language" in k and "norm" in k)
    save_file({**tensors, name: tensors[name] + 1}, file)
    return {}


def _template(folder: Path) -> dict[str, Any]:
    file = folder / "chat_template.jinja"
    file.write_text(file.read_text("utf-8").replace("ASSISTANT:", "ANSWER:"), "utf-8")
    return {}


CHANGES: dict[str, Change] = {
    "a weight of the language model": _weight,
    "the template": _template,
    "the mode of pictures": lambda folder: {
        "backbone": {"name": "llava", "weights": str(folder), "preprocess": {"picture": "crop"}}
    },
    "the order": lambda _: {"answer": {"max_new_tokens": 3, "order": "spatial"}},
    "the limit": lambda _: {"answer": {"max_new_tokens": 4}},
    "the questions": lambda _: {"data": {"name": "digits_qa", "pictures": 3}},
}


@pytest.mark.parametrize("lasts", [True, False])
def test_only_a_question_that_may_be_answered_later_is_asked_again(
    lasts: bool, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog
) -> None:
    real, asked_of, failing = LlavaAnswerer.answer, [], True

    def answer(self: LlavaAnswerer, sample: Any, *more: Any) -> Any:
        asked_of.append(sample.index)
        if failing and sample.index == 2:
            raise CannotAnswer("the prompt is too long", lasts)
        return real(self, sample, *more)

    monkeypatch.setattr(LlavaAnswerer, "answer", answer)
    _, (first,) = run(spec_of(folder, tmp_path, {"method": "dense"}))
    assert first.measured["n_failed"] == 1 and set(asked_of) == set(first.answers()["index"])
    said = first.answers()["error"].dropna().tolist()
    assert said == [f"{LASTING if lasts else ''}the prompt is too long"]
    failing = False
    asked_of.clear()
    with caplog.at_level("INFO"):
        _, (again,) = run(spec_of(folder, tmp_path, {"method": "dense"}))
    assert asked_of == ([] if lasts else [2])
    assert again.measured["n_failed"] == int(lasts)
    assert ("1 of 1 failed questions are asked again" in caplog.text) is not lasts


def test_a_cut_run_keeps_what_would_fail_again(folder: Path, tmp_path: Path) -> None:
    """Of a shard's failures only those that may be gone are dropped."""
    session, (result,) = run(spec_of(folder, tmp_path, {"method": "dense"}))
    cell = session.store.cell(str(result.key))
    whole = cell.evaluated()
    errors: list[str | None] = [None] * len(result.answers())
    errors[1], errors[3] = f"{LASTING}the prompt is too long", "missing: no such file"
    column = whole.answers.schema.get_field_index("error")
    answers = whole.answers.set_column(column, whole.answers.schema.field(column), [errors])
    assert replace(whole, answers=answers).failed == [3] and whole.failed == []


@pytest.mark.parametrize("change", CHANGES)
def test_what_changes_an_answer_changes_the_key(
    change: str, folder: Path, tmp_path: Path, alone: tuple[Session, list[Result]]
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder, moved)
    row = ROWS[3]
    before = _key(spec_of(moved, tmp_path, row, batch_size=9))
    assert before == alone[1][3].key  # wherever the folder lies
    assert _key(spec_of(moved, tmp_path, row, **CHANGES[change](moved))) != before


def test_a_pruner_is_in_the_identity_with_its_options(folder: Path, tmp_path: Path) -> None:
    keys = []
    for rank in (4, 5):
        spec = spec_of(folder, tmp_path, {"method": "fastv", "with": {"layer": 1, "rank": rank}})
        session = Session(spec)
        identity = session.identity(session.methods[0], pruner=session.pruners[0])
        assert identity["methods"]["language"]["options"]["rank"] == rank
        assert identity["methods"]["vision"]["name"] == "dense"
        assert set(identity["backbone"]["parts"]) == {
            "tower", "projector", "language", "tokenizer", "template",
        }  # fmt: skip
        keys.append(key_of(identity))
    assert keys[0] != keys[1] and str(folder) not in json.dumps(identity)


def _key(spec: RunSpec) -> str:
    session = Session(replace(spec))
    return key_of(session.identity(session.methods[0], pruner=session.pruners[0]))
