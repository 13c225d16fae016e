"""Lists of Kinetics as other projects have them: labels are those of the 400 names, or refused."""

import json
from pathlib import Path

import pytest
from fake_kinetics import CLASSES, FakeKinetics

from asap.data.kinetics.clips import Clips
from asap.data.kinetics.kinetics import KineticsOptions
from asap.data.kinetics.names import kinetics_400
from asap.errors import RequestError

FAKE = FakeKinetics.make(12)
NAMES = kinetics_400()
# In files of csv that are split at commas, names with spaces keep their quotes and come first.
QUOTED = sorted(json.dumps(name) if " " in name else name for name in NAMES)


def read(root: Path, labels: str | None = None, classes: str | None = None) -> Clips:
    paths = [None if name is None else str(root / name) for name in (labels, classes)]
    return KineticsOptions(labels=paths[0], classes=paths[1]).found(root)[0]


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """A folder of clips that are named by their ids, without lists."""
    return FAKE.flat(tmp_path)


def listed(root: Path, numbers: dict[str, int], name: str = "mine.txt", path="{}.mp4") -> None:
    """Write a list of paths whose labels are the numbers of the classes."""
    lines = [
        f"{path.format(c.name)} {numbers[CLASSES[c.label]]}\n" for c in FAKE.clips["validation"]
    ]
    (root / name).write_text("".join(lines))


def numbered(names) -> dict[str, int]:
    return {name.strip('"'): number for number, name in enumerate(names)}


def assert_right(clips: Clips) -> None:
    expected = {c.name: CLASSES[c.label] for c in FAKE.clips["validation"]}
    found = zip(clips.source.paths, clips.source.labels, strict=True)
    labels = {path.rsplit("/", 1)[-1]: NAMES[label] for path, label in found}
    assert labels == expected and clips.missing == []
    assert {path.split("/")[0] for path in clips.source.paths} == set(CLASSES)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("val", "kinetics-400_val.csv"), ("val", "data/kinetics-400_val.csv"),
        ("kinetics_400_val", "kinetics_400_val.csv"), ("k400_val", "annotations/k400_val.csv"),
        ("kinetics400_val", "kinetics400/validate.csv"),
    ],
)  # fmt: skip
def test_annotations_are_found_by_the_names_that_people_give_them(folder, name, tmp_path):
    FAKE.flat(tmp_path, folder)
    FAKE.annotate(tmp_path, "validation", name)
    assert_right(read(tmp_path))


@pytest.mark.parametrize("name", ["k400_val_list_videos.txt", "k400_val_list.txt", "val.list"])
@pytest.mark.parametrize("head", ["", "path,label\n"])
def test_lists_of_paths_are_found_with_a_header_or_without(name, head, flat):
    FAKE.folders(flat)
    for clip in FAKE.clips["validation"]:
        (flat / "val" / f"{clip.name}.mp4").unlink()
    listed(flat, numbered(NAMES), name)
    (flat / name).write_text(head + (flat / name).read_text())
    assert_right(read(flat))


DETOXED = {
    "--nQbRBEz2s_000104_000114": "nQbRBEz2s_000104_000114.mp4",
    "_-srTyOqfXo_000002_000012": "srTyOqfXo.mkv",
    "A0_T--M_-LQ_000004_000014": "A0_T-M-LQ_000004_000014.mp4",
    "GTpqutxCK0-_000088_000098": "GTpqutxCK0-000088_000098.mp4",
    "-abc-_def-__000001_000011": "abc-def-.mp4",
    "0wR5jVB-WPk_000417_000427": "0wR5jVB-WPk_000417_000427.mp4",
}


def test_clips_whose_names_detox_cleaned_are_found_by_a_list(tmp_path):
    head = "label,youtube_id,time_start,time_end,split\n"
    rows = (f"abseiling,{c[:11]},{c[12:18]},{c[19:]},val\n" for c in DETOXED)
    (tmp_path / "val").mkdir()
    (tmp_path / "val.csv").write_text(head + "".join(rows) + "abseiling,-zzzzzzzzzz,1,11,val\n")
    for file in [*DETOXED.values(), "zzzzzzzz.mp4"]:
        (tmp_path / "val" / file).write_text(file)
    clips = read(tmp_path)
    found = {Path(p).name: f for p, f in zip(clips.source.paths, clips.source.files, strict=True)}
    assert found == DETOXED | {"-zzzzzzzzzz_000001_000011": None}


def test_a_cleaned_name_that_two_clips_may_have_is_that_of_neither(tmp_path):
    head = "label,youtube_id,time_start,time_end,split\n"
    rows = "abseiling,-abcdefghij,1,11,val\nzumba,_abcdefghij,1,11,val\n"
    (tmp_path / "val").mkdir()
    (tmp_path / "val.csv").write_text(f"{head}{rows}zumba,-bcdefghijk,1,11,val\n")
    for file in ("abcdefghij_000001_000011.mp4", "bcdefghijk.mp4"):
        (tmp_path / "val" / file).write_text(file)
    clips = read(tmp_path)
    assert clips.present == ["zumba/-bcdefghijk_000001_000011"] and len(clips.missing) == 2
    # detox leaves a file as it is if another one has the cleaned name already.
    (tmp_path / "val" / "_abcdefghij_000001_000011.mp4").write_text("whole")
    source = read(tmp_path).source
    found = dict(zip(source.paths, source.files, strict=True))
    assert found["abseiling/-abcdefghij_000001_000011"] == "abcdefghij_000001_000011.mp4"
    assert found["zumba/_abcdefghij_000001_000011"] == "_abcdefghij_000001_000011.mp4"


@pytest.mark.parametrize("line", ["{},{}", "{}\t{}", '"{}", "{}"'])
@pytest.mark.parametrize("head", ["", "video_name,tag\n"])
def test_a_list_may_name_the_classes(line, head, flat):
    named = ((f"val/{c.name}.mp4", CLASSES[c.label]) for c in FAKE.clips["validation"])
    (flat / "val.csv").write_text(head + "".join(f"{line.format(*pair)}\n" for pair in named))
    assert_right(read(flat))


UNCONFIRMED = r"mine\.txt gives classes by number alone, .* data\.classes=<file"
OTHER_ORDER = r"line \d+ of .*mine\.txt gives .*val\.csv says .*data\.classes=<file"


@pytest.mark.parametrize("order", [NAMES, NAMES[::-1], tuple(reversed(CLASSES))])
def test_labels_that_nothing_confirms_are_refused(order, flat):
    """UniFormer's list has all classes in an order of its own; lists of subsets have, too."""
    listed(flat, numbered(order))
    with pytest.raises(RequestError, match=UNCONFIRMED):
        read(flat, labels="mine.txt")
    FAKE.annotate(flat, "validation")
    if order == NAMES:
        assert_right(read(flat, labels="mine.txt"))
        (flat / "annotations" / "val.csv").unlink()
        assert_right(
            KineticsOptions(labels=str(flat / "mine.txt"), classes="sorted").found(flat)[0]
        )
        return
    with pytest.raises(RequestError, match=OTHER_ORDER):
        read(flat, labels="mine.txt")
    (flat / "names.csv").write_text(
        "id,name\n" + "".join(f"{i},{n}\n" for i, n in enumerate(order))
    )
    clips = read(flat, labels="mine.txt", classes="names.csv")
    assert {path.split("/")[0] for path in clips.source.paths} == set(CLASSES)
    for path, label in zip(clips.source.paths, clips.source.labels, strict=True):
        assert path.split("/")[0] == order[label]
    (flat / "names.csv").write_text("\n".join([order[-1], *order[:-1]]))
    with pytest.raises(RequestError, match=OTHER_ORDER):
        read(flat, labels="mine.txt", classes="names.csv")


def test_annotations_beside_a_list_that_lies_elsewhere_confirm_it(flat):
    (flat / "lists").mkdir()
    listed(flat, numbered(NAMES), "lists/mine.txt")
    FAKE.annotate(flat / "lists", "validation")
    assert_right(read(flat, labels="lists/mine.txt"))
    listed(flat, {name: number + 1 for name, number in numbered(NAMES).items()}, "lists/mine.txt")
    with pytest.raises(RequestError, match=r"val\.csv says 'abseiling'.* take 1 from its labels"):
        read(flat, labels="lists/mine.txt")


def test_annotations_say_nothing_of_classes_of_another_kind(flat):
    """They refuse a subset's list only where both know the class."""
    kinds = {name: "(" in name for name in CLASSES}
    listed(flat, {name: int(kind) for name, kind in kinds.items()})
    FAKE.annotate(flat, "validation")
    (flat / "kinds.txt").write_text("sport\nother\n")
    clips = read(flat, labels="mine.txt", classes="kinds.txt")
    assert {label for label in clips.source.labels} == {0, 1}
    (flat / "subset.txt").write_text("\n".join(CLASSES[:2]))
    with pytest.raises(RequestError, match=OTHER_ORDER):
        read(flat, labels="mine.txt", classes="subset.txt")


def test_an_order_by_quoted_names_is_seen_by_the_annotations(flat):
    listed(flat, numbered(QUOTED))
    FAKE.annotate(flat, "validation")
    with pytest.raises(RequestError, match=r"the list counts its classes in another order"):
        read(flat, labels="mine.txt")
    (flat / "names.txt").write_text("\n".join(QUOTED))
    clips = read(flat, labels="mine.txt", classes="names.txt")
    for path, label in zip(clips.source.paths, clips.source.labels, strict=True):
        assert path.split("/")[0] == QUOTED[label].strip('"')


def plain(name: str) -> str:
    return name.replace("(", "").replace(")", "").replace("'", "")


CLASS_FILES = {
    "mmaction2": "\n".join(NAMES),
    "CLIP's labels": "id,name\n" + "".join(f"{i},{plain(n)}\n" for i, n in enumerate(NAMES)),
    "with texts": "id;name;concept\n"
    + "".join(f"{i};{n};a text, 7\n" for i, n in enumerate(NAMES)),
    "numbers first": "".join(f"{i} {n}\n" for i, n in enumerate(NAMES)),
    "names first": "name,id\n" + "".join(f"{n},{i}\n" for i, n in enumerate(NAMES)),
    "numbers last": "".join(f"{n}\t{i}\n" for i, n in enumerate(NAMES)),
    "unsorted": "".join(f"{n},{i}\n" for i, n in reversed(list(enumerate(NAMES)))),
    "pytorchvideo": json.dumps({f'"{n}"': i for i, n in reversed(list(enumerate(NAMES)))}),
}


@pytest.mark.parametrize("form", CLASS_FILES)
def test_files_of_the_400_names_give_the_same_data_set_in_any_form(form, flat):
    listed(flat, numbered(NAMES), "val.csv")
    (flat / "names.txt").write_text(CLASS_FILES[form])
    options = KineticsOptions(classes=str(flat / "names.txt"))
    clips, classes, _ = options.found(flat)
    assert_right(clips)
    assert list(classes.names) == list(NAMES) and not classes.own
    FAKE.annotate(flat, "validation")
    assert clips.list_digest == read(flat).list_digest


def test_classes_that_count_from_1_and_json_annotations_are_refused(flat):
    listed(flat, numbered(NAMES), "val.csv")
    (flat / "names.txt").write_text("".join(f"{i} {n}\n" for i, n in enumerate(NAMES, 1)))
    with pytest.raises(RequestError, match="'abseiling' 1: number the classes from 0"):
        read(flat, classes="names.txt")
    (flat / "val.json").write_text(json.dumps({"0wR5jVB-WPk": {"subset": "validate"}}))
    with pytest.raises(RequestError, match=r"val\.json is JSON: give the \.csv"):
        read(flat, labels="val.json")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["air drumming", "air_drumming", "abseiling"], "'air drumming' and 'air_drumming', which"),
        (["0 abseiling", "2 air drumming", "3 bowling"], "such as '0 abseiling', whose numbers"),
        (["classes,no", "abseiling,0", "air drumming,1"], "such as 'abseiling,0', whose numbers"),
    ],
)
def test_files_of_classes_that_would_shift_the_labels_are_refused(lines, reason, flat):
    listed(flat, numbered(CLASSES), "val.csv")
    (flat / "names.txt").write_text("\n".join(lines))
    with pytest.raises(RequestError, match=f"{reason} .*: "):
        read(flat, classes="names.txt")


def test_numbers_that_are_part_of_names_stay(flat):
    listed(flat, numbered(CLASSES), "val.csv")
    for names in (["Boeing 737", "Airbus 320"], ["stage 0", "stage 1"], ["7 eleven"]):
        (flat / "names.txt").write_text("\n".join([*names, *CLASSES[len(names) :]]))
        classes = KineticsOptions(classes=str(flat / "names.txt")).found(flat)[1]
        assert list(classes.names[: len(names)]) == names and classes.own
