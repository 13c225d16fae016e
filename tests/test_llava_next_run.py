"""Whole runs of a LLaVA-NeXT on questions: batches, traces of crops, costs, keys, pictures.

The model is one of random weights in a folder, with tiles of 56 pixels; the scenes have 112.
"""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from made_llava import made_llava, made_llava_next
from outcomes import outcome
from PIL import Image
from test_questions_run import spec_of
from test_ranks import in_ranks

from asap.cli.show_question import about as asked_about
from asap.cli.show_question import show_answers
from asap.data.base import image_sample
from asap.errors import RequestError
from asap.experiment.pipeline import run
from asap.measure.session import Session
from asap.publish.pictures.asked import asked
from asap.publish.pictures.examples import examples_of
from asap.publish.pictures.questions import draw_questions
from asap.records.key import key_of
from asap.report.result import Result
from asap.spec.run_spec import RunSpec

pytestmark = pytest.mark.whole_run
PHOTO = Image.linear_gradient("L").convert("RGB").resize((120, 80))
NATIVE = {"preprocess": {"anyres": "native"}}
ROWS: list[dict[str, Any]] = [
    {"method": "dense"},
    {"method": "asap", "with": {"tau": 1.01, "clusters": 2, "miss": "force", "max_tokens": 6}},
    {"method": "fastv", "with": {"layer": 1, "rank": 70}},
    {
        "methods": {
            "vision": {"name": "visionzip", "dominant": 5, "contextual": 3},
            "language": {"name": "sparsevlm", "layers": [0, 1], "keep": [20, 5]},
        },
        "label": "both",
    },
    {"method": "object_rows"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_llava_next(tmp_path_factory.mktemp("next"))


def about(folder: Path, results: Path, *rows: dict, **more: Any) -> RunSpec:
    backbone = {"name": "llava", "weights": str(folder)} | more.pop("backbone", {})
    return spec_of(folder, results, *(rows or ROWS), backbone=backbone, **{"limit": 6} | more)


@pytest.fixture(scope="module")
def alone(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Session, list[Result]]:
    return run(about(folder, tmp_path_factory.mktemp("alone"), batch_size=10))


@pytest.mark.parametrize(
    ("made", "table", "said"),
    [(made_llava_next, "llava15", "of LLaVA-1.5, and model= is a LLaVA-NeXT: .*=llava_next "),
     (made_llava_next, "llava_latency", "of LLaVA-1.5"),
     (made_llava, "anchor_llava_next", "of LLaVA-NeXT, and model= is a LLaVA-1.5: .*=llava15 ")],
)  # fmt: skip
def test_the_paper_table_of_another_llava_is_refused(
    made: Callable[..., Path], table: str, said: str, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=said):
        run(about(made(tmp_path / "model", layers=1), tmp_path, ROWS[0], paper_table=table))


def test_a_picture_is_five_images_with_a_trace_each(alone: tuple[Session, list[Result]]) -> None:
    session, results = alone
    assert [one.reason for one in results] == [None] * len(ROWS)
    dense, asap, fastv, both, objects = (one.answers() for one in results)
    for one in results:
        traces = one.traces()
        assert traces["view"].tolist() == [0, 1, 2, 3, 4] * 6 and set(traces["frame"]) == {0}
        sums = traces.groupby("example")["vision.macs_backbone"].sum()
        assert sums.tolist() == one.answers()["vision.macs_backbone"].tolist()
        assert one.measured["parameters"] == session.parameters
    assert set(dense["visual_rows"]) == {80} and asap["visual_rows"].max() <= 30
    assert set(both["visual_rows"]) == {40}
    rows = [list(layers) for layers in fastv["language.tokens"]]
    assert rows == [[80 + text, 70 + text, 70 + text] for text in fastv["prompt_rows"]]
    record = results[0].measured["questions"]
    assert record["visual_rows"] == 80
    assert record["gmacs_projector"] == pytest.approx(80 * (32 * 48 + 48 * 48) / 1e9)
    assert objects["object_recall"].between(0, 1).all() and dense["object_recall"].eq(1).all()
    assert asap["sink_on_object"].isin([0, 1]).all(), "of the whole picture"


def test_an_answer_is_that_of_its_question_alone(
    alone: tuple[Session, list[Result]], folder: Path, tmp_path: Path
) -> None:
    """To the last bit: two questions in a batch, one by one, and all at once."""
    session, results = alone
    for size in (1, 64):
        _, others = run(about(folder, tmp_path / str(size), batch_size=size))
        for one, other in zip(results, others, strict=True):
            assert one.key == other.key
            pd.testing.assert_frame_equal(one.answers(), other.answers(), check_exact=True)
            pd.testing.assert_frame_equal(one.traces(), other.traces(), check_exact=True)
    for one, method, pruner in zip(results, session.methods, session.pruners, strict=True):
        row, told = one.answers().iloc[3], asked(session, method, pruner, session.data[3])
        assert told.answer.gap == row["gap"] and list(told.answer.ids) == list(row["ids"])
        assert told.held.shape == (5, 16) and told.left.shape == (16,)
        columns = ("vision", "language"), ("macs_backbone", "macs_method")
        parts = [row[f"{stage}.{name}"] for stage in columns[0] for name in columns[1]]
        assert told.macs == sum(parts) + row["projector.macs"]


def test_native_crops_have_newline_rows_where_nothing_is_reduced(
    folder: Path, tmp_path: Path
) -> None:
    _, (dense, cut) = run(
        about(folder, tmp_path, ROWS[0], {"method": "vispruner", "with": {"tokens": 8}},
              backbone=NATIVE)
    )  # fmt: skip
    assert dense.measured["questions"]["visual_rows"] == 88
    assert cut.measured["questions"]["visual_rows"] == 40
    assert dense.answers()["projector.macs"].iloc[0] == 80 * (32 * 48 + 48 * 48)


def identity_of(spec: RunSpec) -> dict[str, Any]:
    session = Session(spec)
    return session.identity(session.methods[0], pruner=session.pruners[0])


def test_what_changes_an_answer_changes_the_key(folder: Path, tmp_path: Path) -> None:
    usual = identity_of(about(folder, tmp_path, ROWS[1]))
    assert usual["answer"] == {"order": "method", "max_new_tokens": 3, "crops": "grid"}
    assert "newline" in usual["backbone"]["parts"]
    crop = about(folder, tmp_path, ROWS[1], answer={"max_new_tokens": 3, "crops": "crop"})
    native = about(folder, tmp_path, ROWS[1], backbone=NATIVE)
    keys = [key_of(one) for one in (usual, identity_of(crop), identity_of(native))]
    assert len(set(keys)) == 3


def test_the_order_of_crops_is_in_no_key_of_a_llava_15(tmp_path: Path) -> None:
    earlier = made_llava(tmp_path / "llava")
    found = [
        identity_of(about(earlier, tmp_path, ROWS[0], answer={"crops": crops}))
        for crops in ("grid", "crop")
    ]
    assert found[0] == found[1] and set(found[0]["answer"]) == {"order", "max_new_tokens"}
    assert "anyres" not in found[0]["preprocessing"]


def test_a_picture_of_ones_own_is_shown_whole(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spec = about(folder, tmp_path, *ROWS[:2], answer={"max_new_tokens": 3})
    session = Session(spec)
    shown = image_sample(0, 0, "a.png", -1, 0, session.preprocessing.transform(PHOTO))
    sample = asked_about(replace(shown, extras={"size": PHOTO.size}), "Is there a three?")
    with caplog.at_level("INFO", "asap"):
        files = show_answers(session, sample, tmp_path / "shown")
    assert len(files) == 4 and all(file.is_file() for file in files)
    assert "80 visual rows" in caplog.text
    assert "picture, then crops: first reduced in blocks" in caplog.text


def test_panels_show_the_whole_picture(alone: tuple[Session, list[Result]], tmp_path: Path) -> None:
    session, results = alone
    drawn = draw_questions(session, results, session.methods[1], 1, tmp_path, "next")
    assert all(drawn) and (tmp_path / "next-answers.png").is_file()
    examples = examples_of(session, results[1], 1)
    assert examples[0].pictures["input"].shape == (56, 56, 3)


@pytest.mark.process
def test_pictures_of_several_sizes_have_their_own_numbers_of_crops(
    folder: Path, tmp_path: Path
) -> None:
    """The same bits in any batch and from two processes; a damaged picture has no crops."""
    sizes = {"a.png": (120, 80), "b.png": (40, 130), "c.png": (300, 70)}
    for name, size in sizes.items():
        Image.linear_gradient("L").convert("RGB").resize(size).save(tmp_path / name)
    (tmp_path / "d.png").write_bytes(b"no picture")
    lines = [
        {"id": f"{name}-{i}", "image": name, "question": f"Is there a {i}?", "answers": "yes"}
        for name in (*sizes, "d.png")
        for i in ("three", "cat")
    ]
    file = tmp_path / "questions.jsonl"
    file.write_text("\n".join(json.dumps({**line, "kind": "yes_no"}) for line in lines))

    def spec(results: Path, size: int) -> RunSpec:
        data = {"name": "questions", "path": str(file)}
        more = {"backbone": NATIVE, "data": data, "batch_size": size, "limit": None}
        return about(folder, results, *ROWS[:2], ROWS[3], **more)

    _, found = run(spec(tmp_path / "whole", 64))
    for result in found:
        frame = result.answers()
        assert frame["n"].tolist() == [5, 5, 4, 4, 4, 4, 0, 0]
        assert frame["error"].notna().tolist() == [False] * 6 + [True] * 2
        assert len(result.traces()) == 26
    lines_of = {"a": 6 * (8 + 1), "b": 12 * (4 + 1), "c": 2 * (12 + 1)}  # patches and a newline row
    rows = [16 + n for n in lines_of.values() for _ in range(2)]
    assert found[0].answers()["visual_rows"].tolist()[:6] == rows
    _, others = run(spec(tmp_path / "alone", 1))
    for one, other in zip(found, others, strict=True):
        pd.testing.assert_frame_equal(one.answers(), other.answers(), check_exact=True)
        pd.testing.assert_frame_equal(one.traces(), other.traces(), check_exact=True)
    assert in_ranks(2, lambda: run(spec(tmp_path / "two", 64))) == [0, 0]
    assert outcome(tmp_path / "two") == outcome(tmp_path / "whole")
