"""The files of the published benchmarks, as LLaVA's evaluation lays them out."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from made_benchmarks import (
    MMBENCH,
    MME_CATEGORIES,
    SHORT,
    UNANSWERABLE,
    made_gqa,
    made_mmbench,
    made_mme,
    made_pope,
    made_scienceqa,
    made_vizwiz,
    made_vqav2,
    texts_of,
)
from timm.data.transforms_factory import create_transform

from asap.data.base import Subset
from asap.data.open import open_data
from asap.data.questions.benchmark import benchmark_of
from asap.errors import RequestError
from asap.spec.run_spec import DataSpec

TRANSFORM: Any = create_transform((3, 56, 56), is_training=False, crop_pct=1.0)
MADE: dict[str, Callable[..., Path]] = {
    "pope": made_pope, "gqa": made_gqa, "mme": made_mme, "scienceqa": made_scienceqa,
    "vizwiz": made_vizwiz, "vqav2": made_vqav2, "mmbench": made_mmbench,
}  # fmt: skip
LETTER = "Answer with the option's letter from the given choices directly."
USUAL = {name: LETTER if name in ("scienceqa", "mmbench") else SHORT for name in MADE}
USUAL["vizwiz"] = UNANSWERABLE


def opened(name: str, folder: Path | None = None, limit: int | None = None, **options: Any) -> Any:
    path = None if folder is None else str(folder)
    return open_data(DataSpec(name, path=path, options=options), TRANSFORM, (4, 4), limit=limit)


# ---- what all have in common


@pytest.mark.parametrize("name", MADE)
def test_a_benchmark_is_found_in_the_folder_of_all_of_them(name: str, tmp_path: Path) -> None:
    folder = MADE[name](tmp_path)
    data, found = opened(name, folder), opened(name, benchmarks=str(tmp_path))
    asked = texts_of(data)
    assert texts_of(found) == asked and found.digest == data.digest
    assert data.label_digest == found.label_digest
    about = benchmark_of(data)
    assert about is not None and about.name == name == data.name
    assert all(data[i].error is None for i in range(len(data)))
    limit = 1_024 if name in ("scienceqa", "mmbench") else 128  # as in LLaVA's scripts
    assert {data[i].extras["max_new_tokens"] for i in range(len(data))} == {limit}
    some = opened(name, folder, limit=1)
    assert isinstance(some, Subset) and benchmark_of(some) == about and len(some) == 1
    folder.rename(tmp_path / folder.name.swapcase())
    assert texts_of(opened(name, benchmarks=str(tmp_path))) == asked


# As other people's folders and the benchmarks' own repositories have them: what stands where.
MOVED = {
    "pope": {"val2014": "../coco/val2014", "coco": "output/coco"},
    "gqa": {"data/images": "images", "data/testdev_balanced_questions.json": "questions1.2/"},
    "scienceqa": {
        "images/test": "data/scienceqa/images/test", "problems.json": "data/scienceqa/",
        "pid_splits.json": "data/scienceqa/",
    },
    "vizwiz": {"val.json": "Annotations/", "val": "images/val"},
    "vqav2": {
        "v2_OpenEnded_mscoco_val2014_questions.json": "Questions/",
        "v2_mscoco_val2014_annotations.json": "Annotations/", "val2014": "Images/mscoco/val2014",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", [*MOVED, "scienceqa, pictures apart"])
def test_a_benchmark_in_another_layout_is_the_same(name: str, tmp_path: Path) -> None:
    name, _, apart = name.partition(", ")
    folder = MADE[name](tmp_path)
    data = opened(name, folder)
    asked, digest = texts_of(data), data.digest
    for old, new in MOVED[name].items():
        if apart and old.startswith("images"):
            continue
        moved = folder / new / (Path(old).name if new.endswith("/") else "")
        moved.parent.mkdir(parents=True, exist_ok=True)
        (folder / old).rename(moved)
    other = opened(name, folder)
    assert texts_of(other) == asked and other.digest == digest and other[0].error is None


@pytest.mark.parametrize(
    ("name", "more"),
    [("pope", {}), ("gqa", {}), ("mme", {}), ("scienceqa", {}), ("vizwiz", {"split": "test"}),
     ("vqav2", {"split": "test"})],
)  # fmt: skip
def test_with_and_without_llavas_file_the_same_is_asked(
    name: str, more: dict, tmp_path: Path
) -> None:
    data = opened(name, MADE[name](tmp_path / "a", **more))
    official = opened(name, MADE[name](tmp_path / "b", llava=False, **more))
    assert texts_of(data) == texts_of(official) and data.digest == official.digest
    assert data.label_digest == official.label_digest
    assert all(text.endswith(f"\n{USUAL[name]}") for _, text, _, _ in texts_of(data))


@pytest.mark.parametrize("name", MADE)
def test_an_instruction_of_ones_own(name: str, tmp_path: Path) -> None:
    data = opened(name, MADE[name](tmp_path), instruction="Say it.")
    for (_, text, _, _), (_, usual, _, _) in zip(
        texts_of(data), texts_of(opened(name, benchmarks=str(tmp_path))), strict=True
    ):
        assert text.endswith("\nSay it.") and USUAL[name] not in text
        assert usual == f"{text.removesuffix('Say it.')}{USUAL[name]}"


@pytest.mark.parametrize("name", MADE)
def test_what_is_no_folder_of_the_benchmark_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"data\.path is missing: give the folder of " + name):
        opened(name)
    with pytest.raises(RequestError, match="has no folder"):
        opened(name, benchmarks=str(tmp_path))
    with pytest.raises(RequestError, match="is not a folder"):
        opened(name, tmp_path / "nothing")
    with pytest.raises(RequestError, match=r"benchmarks=.*nothing is not a folder"):
        opened(name, benchmarks=str(tmp_path / "nothing"))
    with pytest.raises(RequestError, match=r"has no") as refused:
        opened(name, tmp_path)
    assert "\n" not in str(refused.value)
    folder = MADE[name](tmp_path)
    with pytest.raises(RequestError, match=f"give benchmarks={tmp_path}, or data.path={folder}"):
        opened(name, tmp_path)
    with pytest.raises(RequestError, match="leave it null"):
        open_data(DataSpec(name, path=str(tmp_path), cache="auto"), TRANSFORM, (4, 4))


@pytest.mark.parametrize("name", ["pope", "gqa", "vizwiz", "vqav2"])
def test_pictures_that_are_missing_are_counted_and_named(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = MADE[name](tmp_path)
    pictures = sorted(folder.rglob("*.jpg"))
    pictures[0].unlink()
    with caplog.at_level(logging.WARNING):
        data = opened(name, folder)
    assert f"1 of {len(pictures)} pictures are missing" in caplog.text
    assert pictures[0].name in caplog.text
    assert any("missing" in (data[i].error or "") for i in range(len(data)))
    asked = texts_of(data)
    elsewhere = pictures[-1].parent.rename(tmp_path / "elsewhere")
    with pytest.raises(RequestError, match=r"data\.images=<folder>"):
        opened(name, folder)
    moved = opened(name, folder, images=str(elsewhere))
    assert texts_of(moved) == asked
    for path in elsewhere.iterdir():
        path.unlink()
    with pytest.raises(RequestError, match="none of the"):
        opened(name, folder, images=str(elsewhere))


def test_a_number_of_questions_that_is_not_the_published_one_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        opened("pope", made_pope(tmp_path))
    assert "18 questions, the published set has 8,910" in caplog.text


# ---- POPE


def test_the_questions_of_pope(tmp_path: Path) -> None:
    data = opened("pope", made_pope(tmp_path))
    assert len(data) == 18
    samples = [data[i] for i in range(18)]
    assert [s.cluster for s in samples] == [i // 6 for i in range(18)]
    assert [s.extras["subset"] for s in samples[:6]] == [
        *("random", "random", "popular", "popular", "adversarial", "adversarial")
    ]
    assert {s.extras["category"] for s in samples} == {"pope"}
    assert [s.target for s in samples[:2]] == [("yes",), ("no",)]
    assert samples[0].extras["question"] == f"Is there a random dog in the image?\n{SHORT}"
    assert samples[0].source == "COCO_val2014_000000000000.jpg#random-1"
    about = benchmark_of(data)
    assert about is not None and (about.rule, about.n_expected) == ("mean_f1", 8910)


def test_pope_of_another_version_than_llavas_is_refused(tmp_path: Path) -> None:
    folder = made_pope(tmp_path)
    file = folder / "coco/coco_pope_random.json"
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows[:-1]))
    with pytest.raises(RequestError, match=r"is for another version of the questions.*remove"):
        opened("pope", folder)
    more = {**rows[-1], "text": "Is there a bird in the image?", "question_id": 99}
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, more]))
    with pytest.raises(RequestError, match=r"line 7 of .* asks what it does not: 'Is there a bird"):
        opened("pope", folder)
    (folder / "llava_pope_test.jsonl").unlink()
    assert len(opened("pope", folder)) == 19
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    with pytest.raises(RequestError, match=r"'random-1' about .* twice"):
        opened("pope", folder)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 1 of .* is not JSON"),
        ("3", "line 1 of .* is '3'"),
        ({"image": "a.jpg", "text": "Is it?"}, "no field 'label'"),
        ({"image": "a.jpg", "text": "", "label": "no"}, "text=''"),
        ({"image": "a.jpg", "text": "Is it?", "label": "maybe"}, 'give "yes" or "no"'),
        ({"image": "../a.jpg", "text": "Is it?", "label": "no"}, "below the folder of pictures"),
        ({"image": "a.jpg", "text": "Is it?", "label": "no", "question_id": None}, "question_id"),
    ],
)
def test_bad_lines_of_pope(line: Any, said: str, tmp_path: Path) -> None:
    folder = made_pope(tmp_path, llava=False)
    if isinstance(line, dict):
        line = json.dumps({"question_id": 1, **line})
    (folder / "coco/coco_pope_random.json").write_text(f"{line}\n")
    with pytest.raises(RequestError, match=said) as refused:
        opened("pope", folder)
    assert "\n" not in str(refused.value)


def test_windows_line_ends_and_a_json_list_say_the_same(tmp_path: Path) -> None:
    folder = made_pope(tmp_path, llava=False)
    base = texts_of(opened("pope", folder))
    file = folder / "coco/coco_pope_random.json"
    content = file.read_text()
    file.write_bytes(b"\xef\xbb\xbf" + content.replace("\n", "\r\n").encode())
    assert texts_of(opened("pope", folder)) == base
    file.write_text(f"[{','.join(content.splitlines())}]")
    assert texts_of(opened("pope", folder)) == base
    (folder / "coco/coco_pope_popular.json").write_text("\n")
    with pytest.raises(RequestError, match=r"coco_pope_popular\.json has no question"):
        opened("pope", folder)


# ---- GQA


def test_the_questions_of_gqa(tmp_path: Path) -> None:
    data = opened("gqa", made_gqa(tmp_path))
    assert [s[0] for s in texts_of(data)] == [
        *("n1.jpg#201307251", "n1.jpg#202225914", "n2.jpg#201640614")
    ]
    assert [data[i].target for i in range(3)] == [("no",), ("light blue",), ("woman",)]
    assert {data[i].extras["kind"] for i in range(3)} == {"exact"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "where an object should be"),
        ("{}", "where an object should be"),
        ('{"1": 2}', "'1' of .* is '2'"),
        ('{"1": {"question": "Is it?", "imageId": "n1"}}', "no field 'answer'"),
        ("", "is not JSON"),
    ],
)
def test_bad_files_of_gqa(content: str, said: str, tmp_path: Path) -> None:
    folder = made_gqa(tmp_path, llava=False)
    (folder / "data/testdev_balanced_questions.json").write_text(content)
    with pytest.raises(RequestError, match=said):
        opened("gqa", folder)


# ---- MME


def test_other_words_in_llavas_file_of_gqa_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = made_gqa(tmp_path)
    opened("gqa", folder)
    assert "other words" not in caplog.text
    file = folder / "llava_gqa_testdev_balanced.jsonl"
    file.write_text(file.read_text().replace("the sky", "the sea"))
    opened("gqa", folder)
    assert "has other words than testdev_balanced_questions.json for 1 of 3" in caplog.text


@pytest.mark.parametrize("below", ["", "MME_Benchmark"])
def test_the_questions_of_mme(below: str, tmp_path: Path) -> None:
    data = opened("mme", made_mme(tmp_path, below=below))
    assert len(data) == 4 * len(MME_CATEGORIES)
    samples = [data[i] for i in range(len(data))]
    assert tuple(dict.fromkeys(s.extras["category"] for s in samples)) == MME_CATEGORIES
    assert {s.extras["kind"] for s in samples} == {"mme"}
    assert [s.target[0] for s in samples] == ["yes", "no"] * (2 * len(MME_CATEGORIES))
    sources = [s.source for s in samples]
    assert "artwork/images/0001.jpg#1" in sources and "code_reasoning/0002.png#2" in sources
    assert samples[0].extras["question"] == f"Is it existence 0?\n{SHORT}"


@pytest.mark.parametrize(
    ("content", "said"),
    [("One?\tYes\n", "has 1 question:"), ("One?\tYes\nTwo? No\n", "line 2 of .* behind a tab"),
     ("One?\tYes\nTwo?\tOften\n", 'give "yes" or "no"')],
)  # fmt: skip
def test_bad_files_of_mme(content: str, said: str, tmp_path: Path) -> None:
    folder = made_mme(tmp_path, llava=False)
    (folder / "MME_Benchmark_release_version/color/0001.txt").write_text(content)
    with pytest.raises(RequestError, match=said):
        opened("mme", folder)


def test_what_macos_leaves_beside_questions_of_mme_is_none(tmp_path: Path) -> None:
    release = made_mme(tmp_path) / "MME_Benchmark_release_version"
    (release / "color/._0001.txt").write_bytes(b"\x00\x05\x16\x07\xff")
    assert len(opened("mme", release.parent)) == 56


def test_mme_needs_all_categories(tmp_path: Path) -> None:
    folder = made_mme(tmp_path)
    release = folder / "MME_Benchmark_release_version"
    (release / "scene").rename(release / "scenery")
    with pytest.raises(RequestError, match="has no folder scene: MME's number needs all 14"):
        opened("mme", folder)
    with pytest.raises(RequestError, match=r"data\.images=.* has no folder of a category"):
        opened("mme", folder, images=str(tmp_path))


def test_mme_of_another_version_than_llavas_is_refused(tmp_path: Path) -> None:
    folder = made_mme(tmp_path)
    file = folder / "MME_Benchmark_release_version/color/0001.txt"
    file.write_text(file.read_text().replace("other than", "not"))
    with pytest.raises(RequestError, match=r"line 2 of .*0001\.txt asks what it does not"):
        opened("mme", folder)


# ---- ScienceQA


def test_the_questions_of_scienceqa_with_a_picture(tmp_path: Path) -> None:
    data = opened("scienceqa", made_scienceqa(tmp_path))
    assert [s[0] for s in texts_of(data)] == ["5/image.png#5", "11/image.png#11"]
    assert [data[i].target for i in range(2)] == [("C",), ("A",)]
    assert data[0].extras["question"] == (
        "Context: A passage.\nFigure: a parachute.\nWhat could it show?\nA. speed\nB. height\n"
        f"C. mass\n{LETTER}"
    )
    assert {data[i].extras["kind"] for i in range(2)} == {"scienceqa"}
    with pytest.raises(RequestError, match=r"pid_splits\.json has no split 'val'"):
        opened("scienceqa", benchmarks=str(tmp_path), split="val")
    with pytest.raises(RequestError, match=r"data\.split='train'"):
        opened("scienceqa", benchmarks=str(tmp_path), split="train")
    (tmp_path / "scienceqa/pid_splits.json").write_text('{"val": ["5", "11", "5"]}')
    with pytest.raises(RequestError, match=r"pid_splits\.json has the question '5' .* twice"):
        opened("scienceqa", benchmarks=str(tmp_path), split="val")
    made_scienceqa(tmp_path)
    (tmp_path / "scienceqa").rename(tmp_path / "SQA")
    assert len(opened("scienceqa", benchmarks=str(tmp_path))) == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": 3}, "'5' of .* has answer=3 of 3 choices"),
        ({"answer": True}, "has answer=True"),
        ({"choices": "ABC"}, "has choices='ABC'"),
        ({"choices": [1, 2, 3]}, "has choices=1: give a text"),
        ({"question": ""}, "question=''"),
        ({"hint": "Another."}, None),  # LLaVA's text is asked
        ({"image": None}, "line|entry 2 of .* asks"),
    ],
)
def test_bad_problems_of_scienceqa(change: dict, said: str | None, tmp_path: Path) -> None:
    folder = made_scienceqa(tmp_path)
    file = folder / "problems.json"
    problems = json.loads(file.read_text())
    problems["5"] |= change
    file.write_text(json.dumps(problems))
    if said is None:
        assert len(opened("scienceqa", folder)) == 2
        return
    with pytest.raises(RequestError, match=said):
        opened("scienceqa", folder)


# ---- VizWiz and VQAv2


def test_the_questions_of_vizwiz_val(tmp_path: Path) -> None:
    data = opened("vizwiz", made_vizwiz(tmp_path))
    about = benchmark_of(data)
    assert about is not None and (about.split, about.n_expected) == ("val", 4319)
    assert about.answers_public
    samples = [data[i] for i in range(3)]
    assert [s.target for s in samples[:2]] == [
        (*("red",) * 8, "dark red", ""), ("unanswerable",) * 10
    ]  # fmt: skip
    assert [s.extras["subset"] for s in samples] == ["answerable", "unanswerable", "answerable"]
    assert samples[0].source == "VizWiz_val_00000000.jpg#VizWiz_val_00000000"
    assert samples[2].extras["question"] == f"Whats the date? \n{UNANSWERABLE}"


@pytest.mark.parametrize(("name", "split"), [("vizwiz", "test"), ("vqav2", "test-dev")])
def test_answers_that_a_server_has(name: str, split: str, tmp_path: Path) -> None:
    folder = MADE[name](tmp_path, split="test")
    data = opened(name, folder)
    about = benchmark_of(data)
    assert about is not None and about.split == split and not about.answers_public
    assert all(data[i].target == () for i in range(3))
    assert {data[i].extras["kind"] for i in range(3)} == {"unscored"}
    with pytest.raises(RequestError, match=r"has no .*val"):
        opened(name, folder, split="val")
    MADE[name](tmp_path)
    both, val = opened(name, folder), opened(name, folder, split="val")
    assert texts_of(both) == texts_of(val) and benchmark_of(val) == benchmark_of(both) != about
    assert texts_of(opened(name, folder, split=split)) == texts_of(data)
    with pytest.raises(RequestError, match=r"data\.split='x'"):
        opened(name, folder, split="x")


def test_the_questions_of_vqav2_val(tmp_path: Path) -> None:
    data = opened("vqav2", made_vqav2(tmp_path))
    samples = [data[i] for i in range(3)]
    assert [s.source for s in samples[1:]] == [
        "COCO_val2014_000000262148.jpg#262148001", "COCO_val2014_000000393225.jpg#393225001"
    ]  # fmt: skip
    assert [s.target[0] for s in samples] == ["down", "yes", "2"]
    assert [s.extras["subset"] for s in samples] == ["other", "yes/no", "number"]
    assert samples[0].extras["question"] == f"Where is he looking?\n{SHORT}"


def test_a_question_of_vizwiz_may_say_nothing(tmp_path: Path) -> None:
    folder = made_vizwiz(tmp_path)
    rows = json.loads((folder / "val.json").read_text())
    rows[0]["question"] = ""
    (folder / "val.json").write_text(json.dumps(rows))
    assert opened("vizwiz", folder)[0].extras["question"] == f"\n{UNANSWERABLE}"
    del rows[0]["answers"]
    (folder / "val.json").write_text(json.dumps(rows))
    with pytest.raises(RequestError, match=r"entry 1 of .* has no field 'answers'"):
        opened("vizwiz", folder)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"question": "\ud800"}, "half a sign in question"),
     ({"answers": [{"answer": "\ud800"}] * 10}, "half a sign in answers"),
     ({"answers": "a\nb"}, r"answers='a\\nb': download"),
     ({"answerable": "\ud800\0"}, r"answerable='\\ud800\\x00'"),
     ({"answers": [7] * 10}, "has the answer 7: ")],
)  # fmt: skip
def test_bad_entries_of_vizwiz_are_said_in_one_printable_line(
    change: dict, said: str, tmp_path: Path
) -> None:
    folder = made_vizwiz(tmp_path)
    rows = json.loads((folder / "val.json").read_text())
    (folder / "val.json").write_text(json.dumps([rows[0] | change, *rows[1:]]))
    with pytest.raises(RequestError, match=said) as refused:
        opened("vizwiz", folder)
    assert str(refused.value).isprintable()


def test_bad_files_of_vqav2(tmp_path: Path) -> None:
    folder = made_vqav2(tmp_path)
    file = folder / "v2_mscoco_val2014_annotations.json"
    given = json.loads(file.read_text())
    few = [{**given["annotations"][0], "answers": [{"answer": "a"}]}, *given["annotations"][1:]]
    for content, said in (
        ({"annotations": given["annotations"][1:]}, "has question_id=393225001, which"),
        ({"annotations": few}, "entry 1 of .* 4 answers or more"),
        ({"annotations": {}}, "where a list should be"),
        ([], "has no annotations"),
    ):
        file.write_text(json.dumps(content))
        with pytest.raises(RequestError, match=said):
            opened("vqav2", folder)


# ---- MMBench


def test_the_questions_of_mmbench(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        data = opened("mmbench", made_mmbench(tmp_path))
    assert "the files have 2 questions, the published set has 1,164" in caplog.text
    assert len(data) == 6 and len({data[i].cluster for i in range(6)}) == 2
    samples = [data[i] for i in range(6)]
    assert [s.source.split("#")[1] for s in samples] == [
        *("241", "1000241", "1986", "1001986", "2001986", "3001986")
    ]
    assert [s.target for s in samples[:2]] == [("B", "wax", "snow"), ("A", "snow", "wax")]
    assert [s.target[0] for s in samples[2:]] == ["A", "D", "C", "B"]
    assert samples[0].extras["question"] == (
        f"A passage.\nFigure: a board.\nWhich one?\nA. wax\nB. snow\n{LETTER}"
    )
    assert samples[2].extras["question"].startswith("What's the relation?\nA. rival\n")
    assert samples[0].image is not None and not torch.equal(samples[0].image, samples[2].image)
    assert "lack the option" not in caplog.text
    with pytest.raises(RequestError, match="are in its file"):
        opened("mmbench", benchmarks=str(tmp_path), images=str(tmp_path))


def test_a_picture_of_mmbench_may_be_that_of_another_row(tmp_path: Path) -> None:
    folder = made_mmbench(tmp_path)
    base, file = texts_of(opened("mmbench", folder)), folder / MMBENCH
    table = pd.read_table(file, dtype=str)
    table.loc[table["index"] == "1000241", "image"] = "241"
    table.to_csv(file, sep="\t", index=False)
    assert texts_of(opened("mmbench", folder)) == base
    table.loc[table["index"] == "1000241", "image"] = "5"
    table.to_csv(file, sep="\t", index=False)
    with pytest.raises(RequestError, match=r"question 1000241 of .* has no picture"):
        opened("mmbench", folder)
    table.loc[table["index"] == "1000241", "image"] = "A" * 100
    table.to_csv(file, sep="\t", index=False)
    damaged = opened("mmbench", folder)
    assert sum(damaged[i].error is not None for i in range(6)) == 1


def test_an_option_named_none_is_left_out_as_by_llava(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = made_mmbench(tmp_path)
    table = pd.read_table(folder / MMBENCH, dtype=str)
    table.loc[table["B"] == "rival", "B"] = "none"  # the right one of the last turn
    table.to_csv(folder / MMBENCH, sep="\t", index=False)
    with caplog.at_level(logging.WARNING):
        data = opened("mmbench", folder)
    assert "1 rows lack the option that is right" in caplog.text
    assert data[5].target == ("B", "nan-like")


def test_questions_of_mmbench_without_all_turns_are_counted_and_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = made_mmbench(tmp_path)
    opened("mmbench", folder)
    assert "not asked in as many orders" not in caplog.text
    table = pd.read_table(folder / MMBENCH, dtype=str)
    table[:-1].to_csv(folder / MMBENCH, sep="\t", index=False)
    opened("mmbench", folder)
    assert "1 of 2 questions are not asked in as many orders as they have" in caplog.text
    assert "such as 1986" in caplog.text


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop(columns="answer"), "has no column answer"),
        (lambda t: t.assign(answer=""), "question 241 of .* has answer='' of 2 options"),
        (lambda t: t.assign(answer="AB"), "has answer='AB'"),
        (lambda t: t.assign(A=""), "of 0 options"),
        (lambda t: t.assign(question=""), "question=None"),
        (lambda t: t.assign(index="x"), "index='x'"),
        (lambda t: t.assign(index="241"), "'241' about .* twice"),
        (lambda t: t[t["index"].isin(["241", "1986"])], "one order of its options"),
        (lambda t: t[:0], "has no question"),
    ],
)
def test_bad_files_of_mmbench(change: Callable, said: str, tmp_path: Path) -> None:
    folder = made_mmbench(tmp_path)
    file = folder / MMBENCH
    change(pd.read_table(file, dtype=str)).to_csv(file, sep="\t", index=False)
    with pytest.raises(RequestError, match=said) as refused:
        opened("mmbench", folder)
    assert "\n" not in str(refused.value)
