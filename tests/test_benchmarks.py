"""The files of the published benchmarks, as LLaVA's evaluation lays them out."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_benchmarks import MME_CATEGORIES, SHORT, made_gqa, made_mme, made_pope, texts_of
from timm.data.transforms_factory import create_transform

from asap.data.base import Subset
from asap.data.open import open_data
from asap.data.questions.benchmark import benchmark_of
from asap.errors import RequestError
from asap.spec.run_spec import DataSpec

TRANSFORM: Any = create_transform((3, 56, 56), is_training=False, crop_pct=1.0)
MADE: dict[str, Callable[..., Path]] = {"pope": made_pope, "gqa": made_gqa, "mme": made_mme}
WITH_LLAVA = ("pope", "gqa", "mme")


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
    some = opened(name, folder, limit=2)
    assert isinstance(some, Subset) and benchmark_of(some) == about and len(some) == 2
    folder.rename(tmp_path / folder.name.swapcase())
    assert texts_of(opened(name, benchmarks=str(tmp_path))) == asked


@pytest.mark.parametrize("name", WITH_LLAVA)
def test_with_and_without_llavas_file_the_same_is_asked(name: str, tmp_path: Path) -> None:
    data = opened(name, MADE[name](tmp_path / "a"))
    official = opened(name, MADE[name](tmp_path / "b", llava=False))
    assert texts_of(data) == texts_of(official) and data.digest == official.digest
    assert all(text.endswith(f"\n{SHORT}") for _, text, _, _ in texts_of(data))


@pytest.mark.parametrize("name", MADE)
def test_an_instruction_of_ones_own(name: str, tmp_path: Path) -> None:
    data = opened(name, MADE[name](tmp_path), instruction="Say it.")
    for (_, text, _, _), (_, usual, _, _) in zip(
        texts_of(data), texts_of(opened(name, benchmarks=str(tmp_path))), strict=True
    ):
        assert text.endswith("\nSay it.") and SHORT not in text
        assert usual.startswith(text.removesuffix("\nSay it."))


@pytest.mark.parametrize("name", MADE)
def test_what_is_no_folder_of_the_benchmark_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"data\.path is missing: give the folder of " + name):
        opened(name)
    with pytest.raises(RequestError, match="has no folder"):
        opened(name, benchmarks=str(tmp_path))
    with pytest.raises(RequestError, match="is not a folder"):
        opened(name, tmp_path / "nothing")
    with pytest.raises(RequestError, match=r"has no") as refused:
        opened(name, tmp_path)
    assert "\n" not in str(refused.value)
    with pytest.raises(RequestError, match="leave it null"):
        open_data(DataSpec(name, path=str(tmp_path), cache="auto"), TRANSFORM, (4, 4))


@pytest.mark.parametrize("name", ["pope", "gqa"])
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
    [("One?\tYes\n", "has 1 questions"), ("One?\tYes\nTwo? No\n", "line 2 of .* behind a tab"),
     ("One?\tYes\nTwo?\tOften\n", 'give "yes" or "no"')],
)  # fmt: skip
def test_bad_files_of_mme(content: str, said: str, tmp_path: Path) -> None:
    folder = made_mme(tmp_path, llava=False)
    (folder / "MME_Benchmark_release_version/color/0001.txt").write_text(content)
    with pytest.raises(RequestError, match=said):
        opened("mme", folder)


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
