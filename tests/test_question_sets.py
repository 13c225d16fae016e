"""Sets of questions: the embedded one, files of one's own, and what identifies them."""

import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data.transforms_factory import create_transform

from asap.data.base import DataSet, Subset
from asap.data.digits.questions import CATEGORIES, questions_of
from asap.data.digits.several import several
from asap.data.images.decoding import UnreadableImage, mask_to_patches
from asap.data.images.image_files import image_id
from asap.data.loading import loader
from asap.data.open import open_data
from asap.data.questions.jsonl import read_lines
from asap.data.questions.kinds import KINDS
from asap.data.questions.question_set import QuestionSet
from asap.errors import RequestError, counted
from asap.spec.run_spec import DataSpec

TRANSFORM: Any = create_transform((3, 112, 112), is_training=False, crop_pct=1.0)
GRID = (8, 8)


def digits(limit: int | None = None, part: str = "all", **options: Any) -> Any:
    spec = DataSpec("digits_qa", part=part, options={"pictures": 5, **options})
    return open_data(spec, TRANSFORM, GRID, limit=limit)


def texts(data: DataSet) -> list[tuple[str, str]]:
    return [(s.source, s.extras["question"]) for s in map(data.__getitem__, range(len(data)))]


# ---- the embedded questions


def test_the_questions_about_digits_are_those_of_their_scenes() -> None:
    data, asked = digits(), [questions_of("evaluation", 0, i) for i in range(5)]
    samples = [data[i] for i in range(len(data))]
    assert [s.extras["question"] for s in samples] == [q.text for qs in asked for q in qs]
    assert [s.target for s in samples] == [(q.answer,) for qs in asked for q in qs]
    assert {s.extras["category"] for s in samples} == set(CATEGORIES)
    kinds = {s.extras["category"]: s.extras["kind"] for s in samples}
    assert {c for c, k in kinds.items() if k == "yes_no"} == {"presence", "relation"}
    assert len({s.id for s in samples}) == len(samples) == len(set(data.paths))
    for sample in samples:
        scene = several("evaluation", 0, sample.cluster)
        assert sample.image is not None and sample.mask is not None
        assert torch.equal(sample.image, TRANSFORM(Image.fromarray(scene.image)))
        pixels = np.any(np.stack(scene.masks), axis=0)
        assert torch.equal(sample.mask, mask_to_patches(pixels, TRANSFORM, GRID))
        assert sample.extras["max_new_tokens"] == 16
    assert data.has_masks and data.clustered and data.task == "questions"


def test_questions_about_one_picture_draw_alike_and_have_ids_of_their_own() -> None:
    data = digits()
    samples = [data[i] for i in range(len(data))]
    for sample in samples:
        (seed,) = sample.image_ids
        assert seed == sample.picture == image_id(sample.source.split("#")[0]) != sample.id
    assert len({s.image_ids[0] for s in samples}) == 5 == len({s.cluster for s in samples})


def test_neighbours_share_the_decoded_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    data, opened = digits(), []
    once = data.pictures.open
    monkeypatch.setattr(data.pictures, "open", lambda i, t: opened.append(i) or once(i, t))
    for i in range(len(data)):
        data[i]
    assert opened == [0, 1, 2, 3, 4]


def test_a_limit_takes_whole_pictures() -> None:
    whole = digits(pictures=6)
    some = digits(limit=17, pictures=6)
    assert len(some) == 17 and isinstance(some, Subset)
    pictures = [some[i].source.split("#")[0] for i in range(17)]
    assert len(set(pictures)) == 3
    for picture in sorted(set(pictures))[:2]:
        assert pictures.count(picture) == sum(p.startswith(picture) for p in whole.paths)
    assert digits(limit=1000).digest == digits().digest
    alone = {s.id: s.image_ids for s in map(whole.__getitem__, range(len(whole)))}
    assert all(some[i].image_ids == alone[some[i].id] for i in range(17))
    with pytest.raises(RequestError, match="limit=0 leaves no question"):
        digits(limit=0)


@pytest.mark.parametrize("part", ["slice", "rest"])
def test_questions_about_one_picture_are_on_one_side_of_a_slice(part: str) -> None:
    chosen = {s.split("#")[0] for s, _ in texts(digits(part=part))}
    other = {s.split("#")[0] for s, _ in texts(digits(part="rest" if part == "slice" else "slice"))}
    assert chosen and other and not chosen & other


def test_what_is_asked_is_in_the_digest() -> None:
    base = digits()
    assert base.digest == digits().digest and base.label_digest == digits().label_digest
    for other in (digits(seed=1), digits(split="calibration"), digits(pictures=4)):
        assert other.digest != base.digest and other.label_digest != base.label_digest


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"options": {"split": "test"}}, "data.split='test'"),
        ({"options": {"pictures": 0}}, "data.pictures=0"),
        ({"options": {"seed": -1}}, "data.seed=-1"),
        ({"path": "/data"}, "choose data=questions"),
        ({"cache": "auto"}, "leave it null"),
        ({"options": {"images": "x"}}, "only for digits and questions|has no option"),
    ],
)
def test_impossible_settings_of_the_embedded_questions(given_: dict, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        open_data(DataSpec("digits_qa", **given_), TRANSFORM, GRID)


@pytest.mark.slow
def test_other_processes_read_the_same() -> None:
    data = digits()
    order = [*range(len(data))][::-1]
    here = [s for batch in loader(data, order, 4, 0) for s in batch]
    there = [s for batch in loader(data, order, 4, 2) for s in batch]
    for a, b in zip(here, there, strict=True):
        assert (a.id, a.picture, a.target, a.extras["question"]) == (
            b.id, b.picture, b.target, b.extras["question"],
        )  # fmt: skip
        assert torch.equal(a.image, b.image) and torch.equal(a.mask, b.mask)  # type: ignore


# ---- questions of one's own

LINES: list[dict[str, Any]] = [
    {"id": 1, "image": "a/1.png", "question": "Is it red?", "answers": "Yes", "kind": "yes_no",
     "category": "colour", "subset": "random"},
    {"id": "two", "image": "2.png", "question": "What is it?\nA. x\nB. y", "answers": ["b"],
     "kind": "letter", "category": None, "subset": None},
    {"id": "three", "image": "a/1.png", "question": "What\u2028colour?", "answers": ["red"] * 10,
     "kind": "vqa", "category": "colour"},
    {"id": "four", "image": "./a/../2.png", "question": "Wo ist es, ä?",
     "answers": ["left", "west"], "kind": "exact"},
]  # fmt: skip


def written(folder: Path, lines: list[dict[str, Any]] | None = None, end: str = "\n") -> Path:
    """A file of questions, with two pictures."""
    for k, name in enumerate(("a/1.png", "2.png")):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = (200, 20 * k, 40)
        Image.new("RGB", (20 + 9 * k, 30), colour).save(path)
    file = folder / "asked.jsonl"
    said = [json.dumps(line, ensure_ascii=False) for line in (LINES if lines is None else lines)]
    file.write_bytes((end.join(said) + end).encode())
    return file


def own(file: Path, limit: int | None = None, **options: Any) -> Any:
    spec = DataSpec("questions", path=str(file), options=options)
    return open_data(spec, TRANSFORM, GRID, limit=limit)


def test_a_file_of_questions_is_read(tmp_path: Path) -> None:
    data = own(written(tmp_path))
    assert isinstance(data, QuestionSet) and not data.has_masks
    samples = [data[i] for i in range(4)]  # picture after picture, else as in the file
    assert [s.source for s in samples] == ["a/1.png#1", "a/1.png#three", "2.png#two", "2.png#four"]
    assert [s.target for s in samples] == [("yes",), ("red",) * 10, ("B",), ("left", "west")]
    assert [s.extras["category"] for s in samples] == ["colour", "colour", "letter", "exact"]
    assert [s.extras["subset"] for s in samples] == ["random", "", "", ""]
    assert samples[1].extras["question"] == "What\u2028colour?"
    assert [s.cluster for s in samples] == [0, 0, 1, 1]
    assert [s.extras["max_new_tokens"] for s in samples] == [16, 16, 128, 16]
    assert all(s.mask is None and s.image is not None for s in samples)
    assert "asked.jsonl, 4 questions about 2 pictures" in data.description
    assert counted(1, "picture") == "1 picture" and counted(1_200, "day") == "1,200 days"


def test_line_ends_a_mark_at_the_beginning_and_empty_lines_say_nothing(tmp_path: Path) -> None:
    base = own(written(tmp_path / "a"))
    file = written(tmp_path / "b", end="\r\n\r\n")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes().rstrip())
    other = own(file)
    assert (other.digest, other.label_digest) == (base.digest, base.label_digest)


@given(order=st.permutations(range(4)))
@settings(max_examples=8, deadline=None)
def test_the_order_of_the_lines_changes_no_question(
    order: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Nor what seeds its draws; pictures come in the order of their first questions."""
    data = own(written(tmp_path_factory.mktemp("lines"), [LINES[i] for i in order]))
    samples = {s.source: s for s in map(data.__getitem__, range(4))}
    base = own(written(tmp_path_factory.mktemp("base")))
    for expected in map(base.__getitem__, range(4)):
        found = samples[expected.source]
        assert (found.id, found.image_ids, found.target) == (
            expected.id, expected.image_ids, expected.target,
        )  # fmt: skip
        assert torch.equal(found.image, expected.image)  # type: ignore
    clusters = [data[i].cluster for i in range(4)]
    assert clusters == sorted(clusters)


def changed(name: str, value: Any) -> list[dict[str, Any]]:
    return [{**LINES[0], name: value}, *LINES[1:]]


def test_another_version_of_a_rule_is_in_the_digest_of_its_questions_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, embedded = written(tmp_path), digits().label_digest
    base = own(file)
    kinds = {one.kind for one in base.questions}
    assert "letter" in kinds and not kinds - KINDS.keys()
    monkeypatch.setitem(KINDS, "letter", replace(KINDS["letter"], version=3))
    assert own(file).label_digest != base.label_digest and own(file).digest == base.digest
    assert digits().label_digest == embedded, "no letters are asked there"
    rows = [[one.kind, one.category, one.subset, *one.answers] for one in digits().questions]
    assert embedded == sha256(repr(rows).encode()).hexdigest(), "a first version is not named"


def test_what_is_in_the_digests(tmp_path: Path) -> None:
    base = own(written(tmp_path / "base"))
    found = (base.digest, base.label_digest)
    assert own(written(tmp_path / "elsewhere")).digest == base.digest
    for k, (name, value) in enumerate([("question", "Is it blue?"), ("id", 9)]):
        other = own(written(tmp_path / f"text{k}", changed(name, value)))
        assert other.digest != found[0] and other.label_digest == found[1]
    for k, (name, value) in enumerate(
        [("answers", "no"), ("kind", "exact"), ("category", "x"), ("subset", "y")]
    ):
        other = own(written(tmp_path / f"right{k}", changed(name, value)))
        assert other.digest == found[0] and other.label_digest != found[1]
    file = written(tmp_path / "pixels")
    Image.new("RGB", (20, 30), (200, 0, 41)).save(tmp_path / "pixels" / "a" / "1.png")
    assert own(file).digest != found[0] and own(file).label_digest == found[1]
    file.rename(tmp_path / "moved.jsonl")
    moved = own(tmp_path / "moved.jsonl", images=str(tmp_path / "base"))
    assert moved.digest == found[0]


def test_the_digest_of_some_questions_reads_their_pictures_only(tmp_path: Path) -> None:
    data, asked = own(written(tmp_path)), []
    hashes = data.pictures.hashes
    data.pictures.hashes = lambda chosen, index: asked.append(list(chosen)) or hashes(chosen, index)
    some = Subset(data, (0, 1), "two")
    asked.clear()
    assert some.digest != data.digest_of((0, 1, 2)) and asked == [[0], [0, 1]]


def test_a_missing_picture_is_named_and_its_questions_fail(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    name = "x" * 5000  # longer than any file's
    lines = [{**line, "image": line["image"].replace("2.png", name)} for line in LINES]
    assert own(written(tmp_path / "long", lines))[2].error
    file = written(tmp_path)
    (tmp_path / "2.png").unlink()
    caplog.clear()
    data = own(file)
    assert "1 of 2 pictures are missing" in caplog.text and "2.png" in caplog.text
    samples = [data[i] for i in range(4)]
    assert [s.error is None for s in samples] == [True, True, False, False]
    assert samples[2].inputs is None and samples[2].target == ("B",)
    (tmp_path / "a" / "1.png").unlink()
    with pytest.raises(RequestError, match=r"none of the 2 pictures.*data\.images="):
        own(file)


def test_a_damaged_picture_fails_until_it_is_repaired(tmp_path: Path) -> None:
    file, picture = written(tmp_path), tmp_path / "2.png"
    content = picture.read_bytes()
    picture.write_bytes(content[:40])
    data = own(file)
    with pytest.raises(UnreadableImage):
        data.pictures.open(1, TRANSFORM)
    assert data[2].error and data[3].error and data[0].error is None
    picture.write_bytes(content)
    assert data[3].error is None


def without(name: str) -> str:
    return json.dumps({k: v for k, v in LINES[0].items() if k != name})


def with_(name: str, value: Any, line: int = 0) -> str:
    return json.dumps({**LINES[line], name: value})


BAD: dict[str, tuple[str, str]] = {
    "no JSON": ("{'id': 1}", "line 2 .* is not JSON"),
    "torn": ('{"id": 7, "image": "2.p', "line 2 .* is not JSON"),
    "a list": ("[1, 2]", r"line 2 .* is '\[1, 2\]'"),
    "an unknown field": (with_("catgory", "x"), "unknown field 'catgory': did you mean 'category'"),
    "LLaVA's field": (with_("question_id", 3), "unknown field 'question_id'"),
    **{f"no {name}": (without(name), f"has no field '{name}'")
       for name in ("id", "image", "question", "answers", "kind")},
    "an unknown kind": (with_("kind", "yesno"), "kind='yesno': use one of yes_no, exact"),
    "an empty question": (with_("question", "  "), "question='  ': give a text"),
    "no text": (with_("question", 3), "question=3: give a text"),
    "no answers": (with_("answers", []), r"answers=\[\]: give a text or a list"),
    "an empty answer": (with_("answers", [""], 3), "answers='': give a text"),
    "a number": (with_("answers", 3, 3), "answers=3: give a text or a list"),
    "neither yes nor no": (with_("answers", "maybe"), 'kind=yes_no cannot have: give "yes"'),
    "yes and no": (with_("answers", ["yes", "no"]), 'kind=yes_no cannot have: give "yes"'),
    "no letter": (with_("answers", "Paris", 1), "kind=letter cannot have: give the letter"),
    "too few annotators": (with_("answers", ["red"] * 3, 2), "cannot have: give what each ann"),
    "an absolute path": (with_("image", "/data/2.png"), "give a path below the folder"),
    "a path outside": (with_("image", "a/../../2.png"), "give a path below the folder"),
    "the folder itself": (with_("image", "."), "give a path below the folder"),
    "an id of two lines": (with_("id", "a\nb"), "give one line of text"),
    "all as a subset": (with_("subset", "all"), "subset='all', the name of all"),
    "a number as a subset": (with_("subset", 3), "subset=3: give a text"),
    "a truth value": (with_("id", True), "id=True: give a text"),
    "half a sign": (with_("question", "\ud800"), "half a sign in question"),
    "an id twice": (with_("id", "1"), "the id '1' twice, in lines 1 and 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_line_that_is_no_question(name: str, tmp_path: Path) -> None:
    line, said = BAD[name]
    file = written(tmp_path)
    first = file.read_text("utf-8").split("\n")[0]
    file.write_text(f"{first}\n{line}\n", "utf-8")
    with pytest.raises(RequestError, match=said) as refused:
        own(file)
    assert "\n" not in str(refused.value)


def overwritten(file: Path, content: bytes) -> dict[str, Any]:
    file.write_bytes(content)
    return {}


Spoil = Callable[[Path], dict[str, Any]]
FILES: dict[str, tuple[Spoil, str]] = {
    "not there": (lambda f: {"path": str(f.with_name("none.jsonl"))}, "cannot be read .No such"),
    "a folder": (lambda f: {"path": str(f.parent)}, "cannot be read .Is a dir"),
    "no path": (lambda f: {"path": None}, "data.path is missing"),
    "empty": (lambda f: overwritten(f, b"\n\n"), "has no question"),
    "no text": (lambda f: overwritten(f, b"\xff\xfe\x00"), "not text in UTF-8"),
    "no folder": (lambda f: {"options": {"images": str(f)}}, "is not a folder"),
    "a cache": (lambda f: {"cache": "auto"}, "is not for data=questions"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_has_no_questions(name: str, tmp_path: Path) -> None:
    spoil, said = FILES[name]
    file = written(tmp_path)
    spec = DataSpec("questions", **{"path": str(file), **spoil(file)})
    with pytest.raises(RequestError, match=said):
        open_data(spec, TRANSFORM, GRID)


@given(st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_no_text_breaks_the_reader(text: str) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        file = Path(folder) / "q.jsonl"
        line = json.dumps({**LINES[0], "question": text, "id": text})
        file.write_text(f"{line}\n{text}", "utf-8")
        try:
            assert read_lines(file)
        except RequestError as error:
            assert "\n" not in str(error)
