"""Whole runs on made benchmarks, with a LLaVA of random weights."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_llava import made_llava
from reference import scores_ref as ref
from test_benchmarks import MADE

from asap.experiment.pipeline import run
from asap.measure.questions import _warn_other_prompt
from asap.publish.run_outputs import line_of, write_outputs
from asap.publish.submissions import submission
from asap.records.question_schema import BenchmarkScore
from asap.report.benchmarks.unscored import SAID, is_unscored
from asap.report.result import Result
from asap.report.result_table import build_table
from asap.report.scalars import scalars
from asap.spec.configs import read_method
from asap.spec.read import read_spec

pytestmark = pytest.mark.whole_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_llava(tmp_path_factory.mktemp("llava"), tower_blocks=3, layers=1)


def asked(folder: Path, results: Path, name: str, root: Path, **more: Any) -> Any:
    """The session and the results of two rows."""
    spec = read_spec(
        {
            "title": f"{name}",
            "backbone": {"name": "llava", "weights": str(folder)},
            "data": {"name": name, "benchmarks": str(root)},
            "rows": [
                {"method": "dense"},
                {"method": "random_drop", "with": {"keep": 0.5, "block": 1}},
            ],
            "answer": {"max_new_tokens": 3},
            "results": str(results),
            "device": "cpu",
        }
        | more,
        read_method,
    )
    return run(spec)


def number(result: Result) -> BenchmarkScore:
    return result.measured["questions"]["benchmark"]


def listed(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The answers as the rules written apart read them."""
    return [
        {"text": row["text"], "right": list(row["answers"]), "picture": row["cluster"],
         "category": row["category"], "subset": row["subset"], "id": row["path"].split("#")[1]}
        for _, row in frame.iterrows()
    ]  # fmt: skip


@pytest.mark.parametrize("name", MADE)
def test_a_run_finds_the_number_of_a_benchmark(name: str, folder: Path, tmp_path: Path) -> None:
    MADE[name](tmp_path)
    _, results = asked(folder, tmp_path / "results", name, tmp_path)
    assert [one.reason for one in results] == [None, None]
    for result in results:
        found, rows = number(result), listed(result.answers())
        assert found["name"] == name and found["status"] == "scored"
        assert found["n_expected"] is not None and found["n_expected"] > found["n"]
        if name == "pope":
            subsets = {one["subset"] for one in rows}
            f1 = [ref.pope_f1([one for one in rows if one["subset"] == s]) for s in subsets]
            known = [one for one in f1 if one is not None]
            assert found["score"] == (pytest.approx(sum(known) / 3) if len(known) == 3 else None)
        elif name == "mme":
            assert found["score"] == pytest.approx(sum(ref.mme_points(rows).values()))
        elif name == "mmbench":
            assert found["score"] == pytest.approx(ref.circular(rows)) and found["n"] == 2
        else:
            assert found["score"] == pytest.approx(result.measured["top1"])
            assert found["n"] == len(rows)


def test_a_prompt_without_llavas_sentence_is_told_once(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The twin's template is Hugging Face's, which lacks it."""
    _warn_other_prompt.cache_clear()
    MADE["pope"](tmp_path)
    for results in ("one", "two"):
        asked(folder, tmp_path / results, "pope", tmp_path)
    assert caplog.text.count("the prompt lacks LLaVA's opening sentence") == 1


@pytest.mark.parametrize("name", ["vizwiz", "vqav2"])
def test_what_a_server_scores_is_written_for_it_and_shows_no_score(
    name: str, folder: Path, tmp_path: Path
) -> None:
    data = MADE[name](tmp_path, split="test")
    if name == "vqav2":  # all of test, of which test-dev is a part
        more = "".join(
            json.dumps({"question_id": id, "image": "a.jpg", "text": "?"}) + "\n"
            for id in (1, 262148001, 393225001, 262148000)
        )
        (data / "llava_vqav2_mscoco_test2015.jsonl").write_text(more)
    session, results = asked(folder, tmp_path / "results", name, tmp_path)
    assert all(is_unscored(one) for one in results)
    outputs = write_outputs(session, results)
    assert outputs is not None
    text = " ".join(outputs.text.split())  # lines break by the terminal's width
    assert "right 0.00" not in text and SAID in text
    table = build_table(results)
    for row, result in zip(table.rows, results, strict=True):
        assert not {"top1", "top1_lo", "top1_delta", "average", "relative"} & row.values.keys()
        assert row.values["infer_gmacs"] == result.gmacs
        assert not {"top1", "top5", "top1_lo", "average"} & scalars(result).keys()
        assert "not scored here" in line_of(result) and "0.00 %" not in line_of(result)
    files = [path for path in outputs.files if path.name.endswith("-answers.json")]
    assert [path.name for path in files] == [
        f"{name}-{one}-answers.json" for one in ("dense", "random-drop")
    ]
    names = sorted(path.name for path in data.rglob("*.jpg"))
    for path, result in zip(files, results, strict=True):
        written = json.loads(path.read_text())
        own = submission(result.answers(), name)
        if name == "vizwiz":
            assert written == own and sorted(one["image"] for one in written) == names
        else:
            ids = [one["question_id"] for one in written]
            assert ids == [1, 262148001, 393225001, 262148000]
            assert written[0]["answer"] == "" and all(one in written for one in own)


def test_a_submission_has_normalised_answers_and_an_empty_one_of_a_failure() -> None:
    frame = pd.DataFrame(
        {"path": ["a.jpg#7", "b.jpg#8"], "text": ["The Two, cats.", ""], "error": [None, "missing"]}
    )
    assert submission(frame, "vqav2") == [
        {"question_id": 7, "answer": "2 cats"}, {"question_id": 8, "answer": ""}
    ]  # fmt: skip
    assert submission(frame, "vizwiz")[0] == {"image": "a.jpg", "answer": "2 cats"}
    asked = submission(frame, "vqav2", ["9", "8", "7"])
    assert [(one["question_id"], one["answer"]) for one in asked] == [
        (9, ""), (8, ""), (7, "2 cats")
    ]  # fmt: skip


def test_another_split_and_a_benchmark_have_keys_of_their_own(folder: Path, tmp_path: Path) -> None:
    """The same questions as a file of one's own are not the benchmark's record."""
    MADE["gqa"](tmp_path)
    _, of_gqa = asked(folder, tmp_path / "results", "gqa", tmp_path)
    lines = [
        {"id": one["id"], "image": row["path"].split("#")[0], "question": row["question"],
         "answers": one["right"], "kind": "exact", "category": "gqa"}
        for one, (_, row) in zip(
            listed(of_gqa[0].answers()), of_gqa[0].answers().iterrows(), strict=True
        )
    ]  # fmt: skip
    file = tmp_path / "gqa/data/images/asked.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    own = {"name": "questions", "path": str(file)}
    _, of_file = asked(folder, tmp_path / "results", "gqa", tmp_path, data=own)
    assert "benchmark" not in of_file[0].measured["questions"]
    assert of_file[0].measured["top1"] == of_gqa[0].measured["top1"]
    assert of_file[0].key != of_gqa[0].key
