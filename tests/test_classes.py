"""Which class a folder is: torchvision's order, the user's list, and parts of ImageNet."""

import codecs
import json
import logging
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from samples import data_spec, open_data
from timm.data import create_transform
from torchvision.datasets import ImageFolder as TorchvisionFolder

from asap.calibrate.calibration_images import calibration_spec
from asap.data.digits.render import CLASSES, scene
from asap.data.imagenet.names import synsets
from asap.data.images.classes_file import read_classes
from asap.data.images.folder import ImageFolder
from asap.errors import RequestError
from asap.experiment.pipeline import run
from asap.spec.run_spec import BackboneSpec, CalibrateSpec, MethodSpec, RunSpec
from asap.tasks.classification import best_classes

TO_32 = create_transform(32)
NUMBERED = [f"class{i}" for i in range(1, 13)]
IMAGENETTE = [
    "n01440764", "n02102040", "n02979186", "n03000684", "n03028079", "n03394916", "n03417042",
    "n03425413", "n03445777", "n03888257",
]  # fmt: skip


def folders(root: Path, names: list[str], each: int = 1) -> Path:
    for i, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for j in range(each):
            Image.new("RGB", (8, 6 + j), (i, j, 0)).save(root / name / f"{j}.png")
    return root


def opened(root: Path, **options) -> ImageFolder:
    return open_data("folder", TO_32, (4, 4), path=str(root), **options)


def label_of(data: ImageFolder) -> dict[str, int]:
    return {s.source.split("/")[0]: s.label for s in data}


def of_order(caplog) -> list[str]:
    """The lines of the log that are about the order of classes."""
    return [r.getMessage() for r in caplog.records if "natural" in r.getMessage()]


# ---- the order of folders


@pytest.mark.parametrize("names", [[str(i) for i in range(12)], NUMBERED, ["b", "C", "a", "D"]])
def test_classes_are_in_torchvisions_order_and_one_line_says_so(names, tmp_path, caplog):
    folders(tmp_path, names)
    with caplog.at_level(logging.INFO, "asap"):
        data = opened(tmp_path)
    theirs = TorchvisionFolder(str(tmp_path))
    assert list(data.classes) == theirs.classes and label_of(data) == theirs.class_to_idx
    (line,) = of_order(caplog)
    assert "data.class_order=natural" in line and "data.classes=" in line
    first, second = sorted(names)[1:3] if names[0] == "0" else sorted(names)[:2]
    if names != ["b", "C", "a", "D"]:
        assert f"'{'10' if names[0] == '0' else 'class10'}' comes before" in line
    caplog.clear()
    with caplog.at_level(logging.INFO, "asap"):
        other = opened(tmp_path, class_order="natural")
    assert not of_order(caplog) and other.classes != data.classes
    assert other.digest == data.digest and other.label_digest != data.label_digest
    assert "classes in natural order" in other.description
    assert first in data.classes and second in data.classes


def test_where_both_orders_agree_nothing_is_said(tmp_path, caplog):
    with caplog.at_level(logging.INFO, "asap"):
        data = opened(folders(tmp_path, list(CLASSES)))
    assert data.classes == tuple(CLASSES) and not of_order(caplog)
    natural = opened(tmp_path, class_order="natural")
    assert (natural.label_digest, natural.description) == (data.label_digest, data.description)
    with pytest.raises(RequestError, match=r"class_order='random' .*sorted, natural"):
        opened(tmp_path, class_order="random")


NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="/\\."),
    min_size=1, max_size=6,
) | st.from_regex(r"[a-cA-C]?[0-9]{1,3}", fullmatch=True)  # fmt: skip


def stored_apart(names: list[str]) -> bool:
    """No tool's left-overs, and no two that a file system might take for one."""
    folded = {unicodedata.normalize("NFKC", name).casefold() for name in names}
    plain = all(not name.startswith(("~", "@", "#", "$")) and "~" not in name for name in names)
    return len(folded) == len(names) and plain


@given(names=st.lists(NAMES, min_size=2, max_size=6, unique=True).filter(stored_apart))
def test_any_names_are_in_the_order_of_their_characters(names, tmp_path_factory):
    root = folders(tmp_path_factory.mktemp("any"), names)
    data = ImageFolder(root, TO_32)
    theirs = TorchvisionFolder(str(root))
    assert list(data.classes) == sorted(names) == theirs.classes
    assert label_of(data) == theirs.class_to_idx


# ---- a list of classes


def forms(names: list[str]) -> dict[str, tuple[str, bytes]]:
    """Every way to write a list of classes: file name and content."""
    pairs = {str(i): [name, f"word {i}"] for i, name in enumerate(names)}
    shuffled = dict(sorted(((n, i) for i, n in enumerate(names)), reverse=True))
    lines = "\n".join(names)
    texts = {
        "lines": ("c.txt", lines),
        "lines with spaces": ("c.txt", "\n\n  " + "  \n\n ".join(names) + "\t\n\n"),
        "windows": ("c.txt", "\r\n".join(names) + "\r\n"),
        "no ending": ("classes", lines),
        "list": ("c.json", json.dumps(names)),
        "list in a text file": ("c.txt", json.dumps(names)),
        "class_to_idx": ("c.json", json.dumps(shuffled)),
        "index to name": ("c.JSON", json.dumps({str(i): n for i, n in enumerate(names)})),
        "index to pair": ("c.json", json.dumps(dict(reversed(pairs.items())), ensure_ascii=False)),
    }
    found = {form: (file, text.encode()) for form, (file, text) in texts.items()}
    marked = {f"{form}, marked": (f, codecs.BOM_UTF8 + c) for form, (f, c) in found.items()}
    wide = {"utf-16": ("c.txt", lines.encode("utf-16"))}
    return found | marked | wide


@given(data=st.data())
def test_every_form_of_a_list_gives_the_same_labels(data, tmp_path_factory):
    names = data.draw(st.lists(NAMES, min_size=3, max_size=6, unique=True).filter(stored_apart))
    order = data.draw(st.permutations(names))
    form, (file, content) = data.draw(st.sampled_from(sorted(forms(list(order)).items())))
    if order[0].startswith(("[", "{")) and form in ("lines", "no ending", "utf-16"):
        return
    root = tmp_path_factory.mktemp("form")
    folders(root / "data", names)
    (root / file).write_bytes(content)
    found = opened(root / "data", classes=str(root / file))
    assert found.classes == tuple(order)
    assert label_of(found) == {name: order.index(name) for name in names}


def test_a_list_fixes_the_order_and_leaves_out_other_folders(tmp_path, caplog):
    folders(tmp_path / "data", ["a", "b", "c", "d"], 2)
    (tmp_path / "classes.txt").write_text("d\nx\na\n")
    with caplog.at_level(logging.INFO, "asap"):
        data = opened(tmp_path / "data", classes=str(tmp_path / "classes.txt"))
    assert data.classes == ("d", "x", "a") and label_of(data) == {"a": 2, "d": 0}
    assert len(data) == 4 and "4 images of 2 of the 3 classes" in data.description
    assert "2 other folders left out, classes in a given order" in data.description
    said = " ".join(record.getMessage() for record in caplog.records)
    assert "'b', 'c'" in said and "'x'" in said
    (tmp_path / "other.json").write_text('{"a": 0, "x": 1, "d": 2}')
    other = opened(tmp_path / "data", classes=str(tmp_path / "other.json"))
    assert other.digest == data.digest and other.label_digest != data.label_digest
    (tmp_path / "same.json").write_text('["d", "x", "a"]')
    same = opened(tmp_path / "data", classes=str(tmp_path / "same.json"))
    assert same.label_digest == data.label_digest  # the content counts, not the file
    few = opened(tmp_path / "data", classes=str(tmp_path / "classes.txt"), scored="subset")
    assert few.scored == (0, 2) and "scored over these 2 alone" in few.description
    assert few.label_digest != data.label_digest


def test_accents_that_are_stored_in_two_ways_are_one_name(tmp_path):
    composed, apart = unicodedata.normalize("NFC", "é"), unicodedata.normalize("NFD", "é")
    folders(tmp_path / "data", [apart, "b"])
    (tmp_path / "c.txt").write_text(f"{composed}\nb\n", "utf-8")
    data = opened(tmp_path / "data", classes=str(tmp_path / "c.txt"))
    assert label_of(data) == {apart: 0, "b": 1}
    folders(tmp_path / "data", [composed])
    if len(list((tmp_path / "data").iterdir())) == 3:  # a file system that keeps both
        with pytest.raises(RequestError, match="two folders"):
            opened(tmp_path / "data", classes=str(tmp_path / "c.txt"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.txt", "", "lists no class"),
        ("c.txt", " \n\n", "lists no class"),
        ("c.json", "[]", "lists no class"),
        ("c.json", "{}", "lists no class"),
        ("c.json", "null", "lists no class"),
        ("c.json", "3", "neither a list nor a map"),
        ("c.json", '"a"', "neither a list nor a map"),
        ("c.json", "[1, 2]", "1 in the place of a class name"),
        ("c.json", '["a", ""]', "without a name"),
        ("c.json", '["a"', "not JSON"),
        ("c.json", "[" * 100_000, "not JSON"),
        ("c.txt", "a\nb\na\n", "'a' twice"),
        ("c.json", '["a", "a"]', "'a' twice"),
        ("c.json", '{"a": 0, "a": 1}', "'a' twice"),
        ("c.json", '{"0": "a", "1": "a"}', "'a' twice"),
        ("c.json", '{"a": 0, "b": 0}', "two classes have the number 0"),
        ("c.json", '{"a": 0, "b": 2}', "'b' is 2 where 1 is due"),
        ("c.json", '{"a": 1, "b": 2}', "'a' is 1 where 0 is due"),
        ("c.json", '{"a": -1, "b": 0}', "'a' is -1"),
        ("c.json", '{"0": "a", "2": "b"}', "'b' is 2 where 1 is due"),
        ("c.json", '{"a": true, "b": 1}', "not a number"),
        ("c.json", '{"a": 0, "b": 1.0}', "not a number"),
        ("c.json", '{"0": "a", "x": "b"}', "'x' is not a number"),
        ("c.json", '{"id2label": {"0": "a"}}', "not a number"),
        ("c.json", '{"0": ["a", 1]}', "in the place of a class name"),
        ("c.txt", b"\xff\xfea\xd8", "it is not text"),
        ("c.txt", b"caf\xe9\n", "it is not text"),
    ],
)
def test_a_wrong_list_is_one_clear_line(name, content, message, tmp_path):
    content = content if isinstance(content, bytes) else content.encode()
    (tmp_path / name).write_bytes(content)
    with pytest.raises(RequestError, match=message) as error:
        read_classes(tmp_path / name)
    assert "\n" not in str(error.value) and "data.classes=" in str(error.value)


@pytest.mark.parametrize(
    ("listed", "folder"),
    [
        ("Cat", "cat"), ("cat/", "cat"), ("./cat", "cat"), ("cat,", "cat"), ('"cat"', "cat"),
        ("c\u200bat", "cat"), ("cat", "cat "), ("tabby cat", "tabby_cat"),
        ("Tabby-Cat", "tabby cat"), ("n01440764 tench, Tinca", "n01440764"),
        ("n01440764,tench", "n01440764"),
    ],
)  # fmt: skip
def test_a_name_that_is_nearly_a_folders_is_refused(listed, folder, tmp_path):
    """Left out, the class would be missed by nobody: the others are scored as ever."""
    folders(tmp_path / "data", [folder, "dog"])
    (tmp_path / "c.txt").write_text(f"{listed}\ndog\n", "utf-8")
    with pytest.raises(RequestError, match="write both in the same way") as error:
        opened(tmp_path / "data", classes=str(tmp_path / "c.txt"))
    assert repr(listed) in str(error.value) and repr(folder) in str(error.value)


@pytest.mark.parametrize(
    ("listed", "folder"), [("-1", "1"), ("1.0", "10"), ("कि", "की"), ("c++", "c")]
)
def test_names_that_differ_are_two_classes(listed, folder, tmp_path):
    folders(tmp_path / "data", [folder, "dog"])
    (tmp_path / "c.txt").write_text(f"{listed}\ndog\n", "utf-8")
    assert label_of(opened(tmp_path / "data", classes=str(tmp_path / "c.txt"))) == {"dog": 1}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_a_list_may_have_a_mark_of_its_encoding_or_none(encoding, tmp_path):
    (tmp_path / "c.txt").write_text("cat\nété\n", encoding)
    assert read_classes(tmp_path / "c.txt") == ("cat", "été")


def test_a_list_that_is_not_there_or_fits_no_folder_is_refused(tmp_path):
    folders(tmp_path / "data", ["cat", "dog"])
    for given_path, message in (("nowhere.txt", "No such file"), ("data", "Is a directory")):
        with pytest.raises(RequestError, match=message):
            opened(tmp_path / "data", classes=str(tmp_path / given_path))
    (tmp_path / "c.txt").write_text("n1 cat\nn2 dog\n")
    with pytest.raises(RequestError, match=r"none of the 2 classes .*'n1 cat'.*'cat', 'dog'"):
        opened(tmp_path / "data", classes=str(tmp_path / "c.txt"))
    (tmp_path / "c.txt").write_text("Cat\ndog\n")
    with pytest.raises(RequestError, match=r"lists 'Cat', .* the folder 'cat'"):
        opened(tmp_path / "data", classes=str(tmp_path / "c.txt"))
    (tmp_path / "c.txt").write_text("cat\ndog\n")
    with pytest.raises(RequestError, match="both give an order"):
        opened(tmp_path / "data", classes=str(tmp_path / "c.txt"), class_order="natural")


def test_options_of_folders_are_refused_for_other_data():
    for options in ({"classes": "x"}, {"class_order": "natural"}):
        with pytest.raises(RequestError, match=r"is not for data=imagenet_v2: only for folder"):
            open_data("imagenet_v2", TO_32, (4, 4), path="/x", **options)
    for name in ("imagenet", "imagenet_v2", "imagenet_c"):
        with pytest.raises(RequestError, match=r"scored='subset' is not for .*: only for .*folder"):
            open_data(name, TO_32, (4, 4), path="/x", scored="subset")
    with pytest.raises(RequestError, match=r"scored='some' .*all, subset"):
        open_data("folder", TO_32, (4, 4), path="/x", scored="some")


# ---- parts of ImageNet


def test_folders_called_by_wordnet_ids_are_classes_of_a_model_with_all_1000(tmp_path):
    folders(tmp_path / "val", IMAGENETTE, 2)
    data = opened(tmp_path / "val", outputs=1000)
    assert data.classes == synsets() and data.n_classes == 1000 and data.scored is None
    assert label_of(data) == {wnid: synsets().index(wnid) for wnid in IMAGENETTE}
    assert "20 images of 10 classes of ImageNet-1k, scored over all 1,000" in data.description
    part = opened(tmp_path / "val", outputs=1000, scored="subset")
    assert part.scored == tuple(sorted(synsets().index(w) for w in IMAGENETTE))
    assert "scored over these 10 alone" in part.description
    assert part.label_digest != data.label_digest and part.digest == data.digest
    logits = torch.zeros(1, 1000)
    logits[0, 1], logits[0, part.scored[3]] = 2.0, 1.0  # the best class is none of the part
    assert best_classes(logits, data.scored)[0][0, 0] == 1
    assert best_classes(logits, part.scored)[0][0, 0] == part.scored[3]


def test_a_model_with_as_many_outputs_as_folders_was_tuned_on_them(tmp_path):
    folders(tmp_path / "val", IMAGENETTE)
    for outputs in (10, None, 21_843):
        data = opened(tmp_path / "val", outputs=outputs)
        assert data.classes == tuple(IMAGENETTE) and sorted(label_of(data).values()) == [*range(10)]
    folders(tmp_path / "val", ["other"])
    assert opened(tmp_path / "val", outputs=1000).n_classes == 11  # which the session refuses


def test_a_list_picks_a_part_of_imagenet(tmp_path):
    folders(tmp_path / "val", IMAGENETTE)
    index = {str(i): [wnid, "word"] for i, wnid in enumerate(synsets())}
    (tmp_path / "imagenet_class_index.json").write_text(json.dumps(index))
    whole = opened(
        tmp_path / "val", outputs=1000, classes=str(tmp_path / "imagenet_class_index.json")
    )
    assert label_of(whole) == {wnid: synsets().index(wnid) for wnid in IMAGENETTE}
    (tmp_path / "three.txt").write_text("\n".join(IMAGENETTE[:3]))
    some = opened(tmp_path / "val", outputs=1000, classes=str(tmp_path / "three.txt"))
    assert label_of(some) == {wnid: synsets().index(wnid) for wnid in IMAGENETTE[:3]}
    assert "3 classes of ImageNet-1k, 7 other folders left out" in some.description


def test_a_subset_of_one_class_cannot_be_wrong_and_is_refused(tmp_path):
    folders(tmp_path, IMAGENETTE[:1])
    with pytest.raises(RequestError, match="scored=subset leaves 1 class"):
        opened(tmp_path, outputs=1000, scored="subset")


# ---- calibration and whole runs


def spec_of(tmp_path: Path, **data) -> RunSpec:
    return RunSpec(
        title="x",
        backbone=BackboneSpec("test_vit", "random"),
        data=data_spec("folder", path=str(tmp_path / "val"), **data),
        rows=(MethodSpec.of("dense", {}, "Dense"),),
        results=tmp_path / "results",
        calibrate=CalibrateSpec(-30.0, path=str(tmp_path / "train")),
        device="cpu",
    )


def test_calibration_has_the_classes_of_the_evaluation(tmp_path):
    folders(tmp_path / "val", ["a", "b"])
    folders(tmp_path / "train", ["a", "c"])
    with pytest.raises(RequestError, match=r"has the class folder '[bc]' .*data\.classes"):
        calibration_spec(spec_of(tmp_path))
    (tmp_path / "train" / "c").rename(tmp_path / "train" / "b")
    found = calibration_spec(spec_of(tmp_path, class_order="natural", title="mine"))
    assert found.data.options["class_order"] == "natural" and found.data.title is None
    listed = calibration_spec(spec_of(tmp_path, classes="c.txt"))
    assert listed.data.options["classes"] == "c.txt"


def scenes(root: Path, names: list[str], n: int = 20) -> Path:
    """Scenes of digits in folders, `names` of the digits in the order of the bundled weights."""
    for i in range(n):
        drawn = scene("evaluation", 0, i)
        (root / names[drawn.label]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn.image).save(root / names[drawn.label] / f"{i:05d}.png")
    return root


def test_weights_are_scored_right_whatever_their_classes_are_called(tmp_path):
    """They were trained in the order of `names`: 9.00 % instead of 97 % before."""
    names = [f"class{i}" for i in range(1, 11)]

    def right(trained: list[str], **data) -> int:
        root = scenes(tmp_path / "-".join(trained), trained)
        spec = replace(spec_of(tmp_path), backbone=BackboneSpec("digits_vit", "bundled"))
        (result,) = run(replace(spec, data=data_spec("folder", path=str(root), **data)))[1]
        return result.measured["correct1"]

    (tmp_path / "classes.json").write_text(json.dumps({n: i for i, n in enumerate(names[::-1])}))
    assert right(sorted(names)) == 20
    assert right(names, class_order="natural") == 20
    assert right(names[::-1], classes=str(tmp_path / "classes.json")) == 20
    assert right(names) < 10


def test_a_run_takes_a_part_of_imagenet_for_its_model(tmp_path):
    """test_vit has 1,000 outputs: ten folders of WordNet ids were refused before."""
    folders(tmp_path / "val", IMAGENETTE)
    (all_of,) = run(spec_of(tmp_path))[1]
    (subset,) = run(spec_of(tmp_path, scored="subset", title="Imagenette"))[1]
    assert all_of.measured["key"] != subset.measured["key"]
    assert subset.measured["data"].startswith("Imagenette: image folder val, 10 images of 10")
    inside = {synsets().index(wnid) for wnid in IMAGENETTE}
    frame = subset.answers()
    assert set(frame["label"]) == inside and all(set(row) <= inside for row in frame["top5"])
    # The same content under another title is the same record, told as this run calls it.
    (again,) = run(spec_of(tmp_path, scored="subset", title="Ten classes"))[1]
    assert again.measured["key"] == subset.measured["key"]
    assert again.measured["data"].startswith("Ten classes: ")
    folders(tmp_path / "val", ["other"])
    with pytest.raises(RequestError, match=r"1000 classes and .* 11: .*data\.classes=<file>"):
        run(spec_of(tmp_path))
