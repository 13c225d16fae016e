"""Questions from lmms-eval and answers for it; its own classes are stood in for."""

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import lmms_bridge
import pandas as pd
import pytest
from PIL import Image

from asap.data.questions.jsonl import read_lines

DOCS = [
    {"question": "Is it red?", "answer": "Yes"},
    {"question": "Which?\nA. a\nB. b", "answer": "B"},
    {"question": "Which of these?", "answer": 2, "choices": ["a", "b", "c"]},
    {"question": "What is it?", "answers": [{"answer": f"cat {i}"} for i in range(10)]},
    {"question": "Where?", "answers": ["left"]},
    {"question": "Say it.", "answer": None},
]


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The model, with the questions of the task `made`."""
    theirs = ModuleType("lmms_eval.api.model")
    theirs.lmms = object  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "lmms_eval.api.model", theirs)
    model = lmms_bridge.Export(out=str(tmp_path), batch_size=1)
    model.task_dict = {"made": {"test": DOCS}}
    return model


def requests(visuals: Any) -> list[Any]:
    return [
        SimpleNamespace(args=(doc["question"], {}, lambda _: visuals, i, "made", "test"))
        for i, doc in enumerate(DOCS)
    ]


def test_exported_questions_can_be_asked(export: Any, tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as end:
        export.generate_until(requests([Image.new("RGB", (5, 4), "red")]))
    assert end.value.code == 0
    found = read_lines(tmp_path / "made.jsonl")
    assert [(one.id, one.text, one.category) for one in found] == [
        (str(i), doc["question"], "made") for i, doc in enumerate(DOCS)
    ]
    assert [(one.kind, one.answers) for one in found] == [
        ("yes_no", ("yes",)), ("letter", ("B",)), ("letter", ("C",)),
        ("vqa", tuple(f"cat {i}" for i in range(10))),
        ("exact", ("left",)), ("exact", ("not known",)),
    ]  # fmt: skip
    [picture] = (tmp_path / "pictures").iterdir()
    assert {one.image for one in found} == {f"pictures/{picture.name}"}
    with Image.open(picture) as image:
        assert image.size == (5, 4) and image.getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("visuals", [[], ["film.mp4"], [Image.new("RGB", (1, 1))] * 2])
def test_only_questions_about_one_picture_are_exported(export: Any, visuals: list[Any]) -> None:
    with pytest.raises(SystemExit, match="only tasks with one picture"):
        export.generate_until(requests(visuals))


def test_answers_are_given_to_their_questions(tmp_path: Path) -> None:
    asked, answers = tmp_path / "made.jsonl", tmp_path / "answers.parquet"
    asked.write_text(
        "".join(
            json.dumps({"id": i, "question": "\u2028"}, ensure_ascii=False) + "\n" for i in (4, 7)
        ),
        "utf-8",
    )
    table = pd.DataFrame(
        {"path": ["a#b.png#7", "c.png#4"], "text": ["seven", "four"], "error": [None, None]}
    )
    table.to_parquet(answers)
    log = lmms_bridge.log_of("made", asked, answers)
    assert log["logs"] == [
        {"doc_id": 4, "resps": [["four"]]},
        {"doc_id": 7, "resps": [["seven"]]},
    ]
    assert log["model_configs"] == {"task": "made"} and log["args"]["limit"] is None
    table.iloc[:1].to_parquet(answers)
    with pytest.raises(SystemExit, match=r"lacks 1 of the 2 questions .* and has 0 others"):
        lmms_bridge.log_of("made", asked, answers)
    table.assign(error=["too long", None]).to_parquet(answers)
    with pytest.raises(SystemExit, match="has no answer to 1 questions"):
        lmms_bridge.log_of("made", asked, answers)
    for one, remedy in ((answers, "give that of a record"), (asked, "run the step export")):
        one.unlink()
        with pytest.raises(SystemExit, match=f"{one.name} is not there: {remedy}"):
            lmms_bridge.log_of("made", asked, answers)
