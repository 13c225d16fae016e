"""Kinetics: five layouts of the same clips are the same data set; wrong lists are refused."""

import json
from pathlib import Path

import pytest
from fake_kinetics import CLASSES, SPELLINGS, FakeKinetics

from asap.data.kinetics.clips import UNLISTED, Clips, read_clips
from asap.data.kinetics.layouts import is_stored, recognise
from asap.data.kinetics.names import Classes, clip_of, kinetics_400, plain, video_of
from asap.errors import RequestError

FAKE = FakeKinetics.make(30, 24)
ALL = Classes(kinetics_400())


def read(
    root: str | Path | None, split: str = "validation", classes: Classes = ALL, **given
) -> Clips:
    return read_clips(recognise(root, split, classes, **given), classes)


def identity(clips: Clips) -> tuple:
    source = clips.source
    return (
        list(source.paths), list(source.labels), list(clips.videos), clips.list_digest,
        [bytes(one) for one in source.hashes(range(len(source.paths)), None)],
    )  # fmt: skip


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, tuple]:
    """By split, from the clips themselves."""
    root = FAKE.cvdf(tmp_path_factory.mktemp("cvdf"))
    return {split: identity(read(root, split)) for split in FAKE.clips}


def test_the_400_classes_are_sorted_and_found_by_any_spelling():
    names = kinetics_400()
    assert len(names) == 400 and list(names) == sorted(names)
    assert len({plain(name) for name in names}) == 400
    for label, name in enumerate(names):
        for spell in SPELLINGS.values():
            assert ALL.label(spell(name)) == label
    assert ALL.label("petting animal") is None and ALL.label("") is None


@pytest.mark.parametrize(
    ("file", "clip", "video"),
    [
        ("val/--07WQ2iBlw_000001_000011.mp4", "--07WQ2iBlw_000001_000011", "--07WQ2iBlw"),
        ("a b/_07_WQ2iBlw_1_11.mp4.mkv", "_07_WQ2iBlw_000001_000011", "_07_WQ2iBlw"),
        ("x/I0luMKjIZyg.WEBM", "I0luMKjIZyg", "I0luMKjIZyg"),
        ("v_Archery_g01_c01.avi", "v_Archery_g01_c01", "v_Archery_g01_c01"),
        ("abcdefghijk_1.5_2.mp4", "abcdefghijk_1.5_2", "abcdefghijk_1.5_2"),
    ],
)
def test_a_clip_has_one_name_however_its_file_is_called(file, clip, video):
    assert clip_of(file) == clip
    assert video_of(clip) == video


def test_what_is_read_are_the_clips_and_their_classes(expected):
    for split, clips in FAKE.clips.items():
        paths, labels, videos, _, hashes = expected[split]
        assert set(paths) == {f"{CLASSES[clip.label]}/{clip.name}" for clip in clips}
        assert [kinetics_400()[label] for label in labels] == [p.split("/")[0] for p in paths]
        assert videos == list(range(len(clips))) and len(set(hashes)) == len(clips)


@pytest.mark.parametrize("split", FAKE.clips)
@pytest.mark.parametrize("layout", FakeKinetics.LAYOUTS)
def test_every_layout_is_the_same_data_set(layout, split, tmp_path, expected):
    root = getattr(FAKE, layout)(tmp_path)
    assert identity(read(root, split)) == expected[split]


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("ending", [".mkv", ".mp4.webm", ".AVI"])
def test_spellings_of_classes_and_containers_do_not_matter(spelling, ending, tmp_path, expected):
    FAKE.folders(tmp_path, spelling, "{}_256", ending)
    assert identity(read(tmp_path)) == expected["validation"]
    assert identity(read(tmp_path / "val_256")) == expected["validation"]
    assert identity(read(tmp_path / "val_256", "train")) == expected["train"]


def test_links_as_the_script_of_cvdf_makes_them_are_read(tmp_path, expected):
    FAKE.cvdf(tmp_path)
    (tmp_path / "val").rename(tmp_path / "stored")
    for clip in FAKE.clips["validation"]:
        link = tmp_path / "videos" / "val" / CLASSES[clip.label] / f"{clip.name}.mp4"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(tmp_path / "stored" / link.name)
    assert identity(read(tmp_path)) == expected["validation"]
    assert identity(read(tmp_path / "videos" / "val")) == expected["validation"]


def test_files_named_by_the_video_alone_get_their_times_from_the_list(tmp_path, expected):
    FAKE.annotate(tmp_path, "validation")
    for clip in FAKE.clips["validation"]:
        FAKE.write(tmp_path / "val" / f"{clip.video}.mp4", clip)
    assert identity(read(tmp_path)) == expected["validation"]


def test_a_list_of_videos_alone_finds_files_with_times(tmp_path, expected):
    FAKE.folders(tmp_path, folder="videos_{}")
    text = "".join(
        f"{clip.video}.mp4 {FAKE.positions[clip.label]}\n" for clip in FAKE.clips["validation"]
    )
    (tmp_path / "kinetics400_val_list_videos.txt").write_text(text)
    assert identity(read(tmp_path)) == expected["validation"]


def test_several_clips_of_one_video_share_a_number_and_are_not_mixed_up(tmp_path):
    for name in ("abcdefghijk_1_11", "abcdefghijk_20_30", "bbcdefghijk_1_11"):
        (tmp_path / "val").mkdir(exist_ok=True)
        (tmp_path / "val" / f"{name}.mp4").write_bytes(name.encode())
    (tmp_path / "val.csv").write_text(
        "abcdefghijk_1_11.mp4 0\nabcdefghijk_20_30.mp4 0\nabcdefghijk.mp4 0\nbbcdefghijk.mp4 1\n"
    )
    clips = read(tmp_path, classes=Classes(kinetics_400(), given=True))
    assert clips.missing == ["abseiling/abcdefghijk"]
    assert clips.source.paths[-1] == "air drumming/bbcdefghijk_000001_000011"
    assert list(clips.videos) == [0, 0, 0, 3]


def test_missing_clips_keep_their_place_and_unlisted_ones_are_counted(tmp_path, expected):
    FAKE.cvdf(tmp_path)
    first = FAKE.clips["validation"][0]
    (tmp_path / "val" / f"{first.name}.mp4").rename(tmp_path / "val" / "12345678901_1_11.mp4")
    clips = read(tmp_path)
    assert list(clips.source.paths) == expected["validation"][0]
    assert clips.missing == [f"{CLASSES[first.label]}/{first.name}"]
    assert len(clips.present) == 29 and clips.list_digest != expected["validation"][3]
    assert clips.source.files_left_out == {UNLISTED: 1}
    (tmp_path / "annotations" / "val.csv").unlink()
    (tmp_path / "val" / "12345678901_1_11.mp4").unlink()
    FAKE.folders(tmp_path / "other")
    gone = tmp_path / "other" / "val" / CLASSES[first.label] / f"{first.name}.mp4"
    gone.unlink()
    assert read(tmp_path / "other").list_digest == clips.list_digest  # the clips that are there


def test_a_folder_called_like_a_listed_clip_is_a_missing_clip(tmp_path):
    FAKE.cvdf(tmp_path)
    first = FAKE.clips["validation"][0]
    file = tmp_path / "val" / f"{first.name}.mp4"
    file.unlink()
    file.mkdir()
    assert read(tmp_path).missing == [f"{CLASSES[first.label]}/{first.name}"]


def test_loops_of_links_end_and_a_dangling_link_is_a_clip_that_cannot_be_read(tmp_path):
    FAKE.cvdf(tmp_path)
    first, second = FAKE.clips["validation"][:2]
    (tmp_path / "val" / "again").symlink_to(tmp_path / "val")
    for clip in (first, second):
        (tmp_path / "val" / f"{clip.name}.mp4").unlink()
    (tmp_path / "val" / f"{first.name}.mp4").symlink_to(f"{first.name}.mp4")
    (tmp_path / "val" / f"{second.name}.mp4").symlink_to("nowhere.mp4")
    clips = read(tmp_path)
    assert len(clips.source.paths) == 30 and clips.missing == []
    assert sorted(clips.source.sizes())[:2] == [-1, -1]


@pytest.mark.parametrize("place", ["replacement/", "", "val/"])
@pytest.mark.parametrize("times", [True, False])
def test_replacements_are_read_in_place_of_damaged_clips(place, times, tmp_path, expected):
    FAKE.cvdf(tmp_path)
    folder = tmp_path / f"{place}replacement_for_corrupted_k400"
    damaged, missing = FAKE.clips["validation"][:2]
    (tmp_path / "val" / f"{damaged.name}.mp4").write_bytes(b"damaged")
    (tmp_path / "val" / f"{missing.name}.mp4").unlink()
    for clip in (damaged, missing, FAKE.clips["train"][0]):
        FAKE.write(folder / f"{clip.name if times else clip.video}.mp4", clip)
    assert identity(read(tmp_path)) == expected["validation"]
    assert identity(read(tmp_path, "train")) == expected["train"]
    assert identity(read(tmp_path, replacements=str(folder))) == expected["validation"]
    assert len(read(tmp_path, replacements="off").missing) == 1
    with pytest.raises(RequestError, match=r"data\.replacements=.* is not a folder"):
        read(tmp_path, replacements=str(tmp_path / "none"))


def test_a_given_list_is_read_and_others_are_not(tmp_path, expected):
    FAKE.folders(tmp_path)
    (tmp_path / "val.csv").write_text("damaged")
    given = FAKE.list(tmp_path / "lists" / "mine.txt", "validation", "val/{cls}/{clip}.mp4", "\t")
    assert identity(read(tmp_path, labels=str(given))) == expected["validation"]
    with pytest.raises(RequestError, match=r"data\.labels='none' is not a file"):
        read(tmp_path, labels="none")


def test_all_clips_may_lie_in_one_folder_with_lists(tmp_path, expected):
    root = FAKE.flat(tmp_path, "all")
    for split in FAKE.clips:
        FAKE.annotate(root, split)
    clips = read(root)
    assert identity(clips) == expected["validation"]
    assert clips.source.files_left_out == {}  # those of the other split are no surprise
    assert identity(read(root, "train")) == expected["train"]


def test_absolute_paths_below_the_root_are_allowed(tmp_path, expected):
    FAKE.folders(tmp_path)
    path = f"{tmp_path}/val/{{cls}}/{{clip}}.mp4"
    FAKE.list(tmp_path / "val.csv", "validation", path)
    assert identity(read(tmp_path)) == expected["validation"]
    assert identity(read(tmp_path / "val")) == expected["validation"]
    link = tmp_path.with_name(f"{tmp_path.name} as a link")
    link.symlink_to(tmp_path)
    assert identity(read(link)) == expected["validation"]
    FAKE.list(tmp_path / "val.csv", "validation", path.replace(str(tmp_path), str(link)))
    assert identity(read(tmp_path)) == expected["validation"]
    FAKE.list(tmp_path / "annotations" / "val.csv", "validation", "../val/{cls}/{clip}.mp4")
    assert identity(read(tmp_path)) == expected["validation"]


def test_other_classes_are_given_in_their_order(tmp_path):
    order = tuple(reversed(CLASSES))
    FAKE.folders(tmp_path)
    clips = read(tmp_path, classes=Classes(order, own=True))
    assert {order[label] for label in clips.source.labels} == set(CLASSES)
    for path, label in zip(clips.source.paths, clips.source.labels, strict=True):
        assert path.startswith(f"{order[label]}/")
    with pytest.raises(RequestError, match=r"lists 'a b' and 'A_b', which are one class"):
        Classes(("a b", "A_b"), own=True)


LINE = "val/abseiling/abcdefghijk_1_11.mp4"
HEAD = "label,youtube_id,time_start,time_end,split\n"
ROW = "abseiling,abcdefghijk,1,11,val\n"
FORMAT = r"line \d of the list .*: expected CVDF's annotations"
OUTSIDE = r"line 1 .* lies outside data\.path="
TWICE = r"the clip abcdefghijk_000001_000011 twice, in lines "
UNKNOWN = r"line 3 of the annotations .* 'juggling swords', which is none of the 400 classes"
NO_CLIP = r"names no clip of data\.split=validation"
WRONG_LISTS = {
    "empty": ("", NO_CLIP),
    "no label": (f"{LINE}\n", FORMAT),
    "a word for a label": (f"{LINE} abseiling\n", FORMAT),
    "label out of range": (f"{LINE} 400\n", r"line 1 .* the label 400, .* the labels 0 to 399"),
    "label below zero": (f"{LINE} -1\n", r"has the label -1, .* test split have no labels"),
    "other order of classes": (f"{LINE} 1\n", r"of 'abseiling' the label 1, which is 'air drum"),
    "twice": (f"{LINE} 0\n\n{LINE} 0\n", f"{TWICE}1 and 3"),
    "twice in other words": (f"{LINE} 0\nx/abcdefghijk_000001_000011.mkv 0\n", f"{TWICE}1 and 2"),
    "frames": ("val/abseiling/abcdefghijk_1_11 300 0\n", r"line 1 .* extracted frames"),
    "outside": (f"../../other/{LINE} 0\n", OUTSIDE),
    "outside by a turn": (f"val/../../../{LINE} 0\n", OUTSIDE),
    "another machine": (f"/home/someone/{LINE} 0\n", OUTSIDE),
    "home": (f"~/{LINE} 0\n", OUTSIDE),
    "binary": (b"\xff\x00\xfe" * 9, r"cannot be read \(it is not text\)"),
    "unknown class": (f"{HEAD}{ROW}juggling swords,bbcdefghijk,1,11,val\n", UNKNOWN),
    "annotations twice": (f"{HEAD}{ROW}{ROW}", f"{TWICE}2 and 3"),
    "of another split": (f"{HEAD}{ROW.replace('val', 'test')}", NO_CLIP),
    "no times": (f"{HEAD}abseiling,abcdefghijk,,,val\n", FORMAT),
    "infinite time": (f"{HEAD}abseiling,abcdefghijk,1,inf,val\n", FORMAT),
    "short row": (f"{HEAD}abseiling\n{ROW}", FORMAT),
    "no column": ("label,youtube_id,split\na,b,val\n", r"have no column 'time_start'"),
    "path for an id": (f"{HEAD}abseiling,../../abc,1,11,val\n", FORMAT),
    "nothing there": ("val/abseiling/zzzzzzzzzzz_1_11.mp4 0\n", r"none of the 1 clips that .*list"),
}


@pytest.mark.parametrize("case", WRONG_LISTS)
def test_a_wrong_list_is_refused(case, tmp_path):
    text, reason = WRONG_LISTS[case]
    FAKE.folders(tmp_path)
    content = text if isinstance(text, bytes) else text.encode()
    (tmp_path / "val.csv").write_bytes(content)
    with pytest.raises(RequestError, match=reason) as refused:
        read(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("annotations", [True, False])
def test_a_list_against_the_class_folders_is_refused(annotations, tmp_path):
    FAKE.folders(tmp_path)
    if annotations:
        file = FAKE.annotate(tmp_path, "validation")
        file.write_text(file.read_text().replace("abseiling", "archery"))
        reason = r"says 'archery' of abseiling/.*move the clip"
    else:  # labels without class folders in the paths, shifted by one
        lines = FAKE.list(tmp_path / "val.csv", "validation", "{clip}.mp4").read_text().splitlines()
        pairs = (line.split() for line in lines)
        (tmp_path / "val.csv").write_text("".join(f"{p} {int(n) + 1}\n" for p, n in pairs))
        reason = r"counts its classes in another order; give that order with data\.classes"
    with pytest.raises(RequestError, match=reason):
        read(tmp_path)


def test_what_is_no_layout_is_refused_with_all_that_are(tmp_path):
    every = r"CVDF .* class folders .* PySlowFast.* mmaction2.* OpenDataLab"
    for root in (None, "", tmp_path / "none", tmp_path):
        with pytest.raises(RequestError, match=every):
            read(root)
    FAKE.flat(tmp_path)
    with pytest.raises(RequestError, match=f"holds 30 clips, .* without a list .*{every}"):
        read(tmp_path)
    with pytest.raises(RequestError, match="is not a folder: give the list as data"):
        read(FAKE.annotate(tmp_path, "validation"))
    with pytest.raises(RequestError, match="named as a folder of training clips"):
        read(tmp_path / "train")


@pytest.mark.parametrize("name", ["part_0.tar.gz", "x.txt"])
def test_a_folder_without_clips_says_so(name, tmp_path):
    (tmp_path / "val").mkdir()
    (tmp_path / "val" / name).write_bytes(b"content")
    unpack = "its archives are not unpacked" if "tar" in name else "for other classes"
    with pytest.raises(RequestError, match=f"val holds no clip: {unpack}"):
        read(tmp_path)


def test_training_clips_are_found_where_they_can_be_and_else_not(tmp_path, expected):
    only = FakeKinetics(FAKE.clips | {"train": []}, FAKE.content, FAKE.positions)
    only.folders(tmp_path / "a")
    for lists in (False, True):  # a copy of the validation clips with CVDF's lists of all
        for root in (tmp_path / "a", tmp_path / "a" / "val"):
            with pytest.raises(RequestError, match="has no folder of train clips"):
                recognise(root, "train", ALL)
            assert not is_stored(root, "train") and is_stored(root, "validation")
        if not lists:
            FAKE.annotate(tmp_path / "a", "train")
    FAKE.folders(tmp_path / "b")
    (tmp_path / "b" / "train").rename(tmp_path / "elsewhere")
    assert identity(read(tmp_path / "elsewhere", "train", certain=True)) == expected["train"]
    assert is_stored(tmp_path / "elsewhere", "train", certain=True)
    with pytest.raises(RequestError, match="is not a folder"):  # a mistake, not an absent split
        is_stored(tmp_path / "none", "train", certain=True)


def test_a_clip_outside_class_folders_and_one_stored_twice_are_refused(tmp_path):
    FAKE.folders(tmp_path)
    first, second = FAKE.clips["validation"][:2]
    file = FAKE.write(tmp_path / "val" / "juggling swords" / "abcdefghijk_1_11.mp4", first)
    with pytest.raises(RequestError, match=r"juggling swords/abc.* lies in no folder of the 400"):
        read(tmp_path)
    file.unlink()
    FAKE.write(tmp_path / "val" / CLASSES[second.label] / f"{first.name}.mkv", second)
    with pytest.raises(RequestError, match=f"the clip {first.name} twice"):
        read(tmp_path)


def test_files_of_tools_and_other_files_are_counted(tmp_path, expected):
    FAKE.folders(tmp_path)
    folder = tmp_path / "val" / "abseiling"
    (folder / "._x.mp4").write_bytes(b"rubbish")
    (folder / "y.mp4.part").write_bytes(b"rubbish")
    (folder / "info.json").write_text(json.dumps({}))
    clips = read(tmp_path)
    assert identity(clips) == expected["validation"]
    assert clips.source.files_left_out == {"hidden and system files": 2, ".json": 1}
