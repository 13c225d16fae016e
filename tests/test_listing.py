"""Exactly the pictures that are there, each once: links, endings, rubbish, in every reader."""

import io
import logging
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from fake_imagenet import FakeImageNet
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from samples import open_data
from timm.data import create_transform

from asap.data.imagenet.validation import ImageNet
from asap.data.images.decoding import UnreadableImage, open_rgb
from asap.data.images.entries import key_of
from asap.data.images.folder import ImageFolder, class_of
from asap.data.images.formats import holds_picture
from asap.data.images.left_out import HIDDEN, SECOND, summed
from asap.data.images.listing import list_pictures
from asap.errors import RequestError
from asap.records.files_left_out import counts_in_words

TO_32 = create_transform(32)
RUBBISH = (
    "@eaDir", ".AppleDouble", "lost+found", ".ipynb_checkpoints", "__MACOSX", "$RECYCLE.BIN",
    "System Volume Information", "#recycle", ".Trash-1000", ".thumbnails",
)  # fmt: skip


@pytest.fixture(autouse=True)
def heard(monkeypatch):
    monkeypatch.setattr(logging.getLogger("asap"), "propagate", True)


def draw(form: str = "PNG", seed: int = 0) -> bytes:
    """An encoded picture."""
    pixels = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


PNG = draw()


def write(path: Path, content: bytes = PNG) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def two(root: Path) -> Path:
    for i in range(3):
        write(root / "cat" / f"{i}.png", draw(seed=i))
        write(root / "dog" / f"{i}.png", draw(seed=3 + i))
    return root


REAL = [f"{name}/{i}.png" for name in ("cat", "dog") for i in range(3)]


# ---- links

LINKS: dict[str, Callable[[Path], object]] = {
    "to the root": lambda r: (r / "cat" / "up").symlink_to(".."),
    "two that lead into each other": lambda r: (
        (r / "cat" / "x").symlink_to("../dog"), (r / "dog" / "x").symlink_to("../cat"),
    ),
    "to the class folder itself": lambda r: (r / "dog" / "again").symlink_to("."),
    "to another class": lambda r: (r / "cat" / "x").symlink_to("../dog"),
    "to another class, which sorts later, by a file": lambda r: (
        (r / "cat" / "3.png").symlink_to("../dog/0.png")
    ),
    "above the root": lambda r: (r / "cat" / "out").symlink_to("../.."),
    "a hard link": lambda r: os.link(r / "dog" / "0.png", r / "dog" / "z.png"),
    "a hard link in another class": lambda r: os.link(r / "cat" / "0.png", r / "dog" / "00.png"),
    "the root as a class": lambda r: (r / "all").symlink_to("."),
    "another name for a class": lambda r: (r / "hound").symlink_to("dog"),
    "a link to a link": lambda r: (
        (r / "cat" / "a").symlink_to("../dog/b"), (r / "dog" / "b").symlink_to("."),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", LINKS)
def test_a_second_name_is_reported_and_not_evaluated(case, tmp_path, caplog):
    root = two(tmp_path / "data")
    write(tmp_path / "elsewhere.png")
    LINKS[case](root)
    data = open_data("folder", TO_32, (2, 2), path=str(root))
    assert [sample.source for sample in data] == REAL
    assert data.classes == ("cat", "dog")
    assert data.files_left_out[SECOND] >= 1
    named, counted = caplog.messages
    second, first = list_pictures(root).left_out.twice[0]
    assert f"{second} (of {first})" in named and "left out" in counted


def test_what_is_linked_from_elsewhere_is_read_once_and_loops_there_end(tmp_path):
    root, disk = tmp_path / "data", tmp_path / "disk"
    two(root)
    write(disk / "birds" / "1.png")
    write(disk / "birds" / "more" / "2.png")
    write(disk / "single.png")
    (disk / "birds" / "more" / "up").symlink_to(disk / "birds")
    (disk / "birds" / "home").symlink_to(root)
    (root / "bird").symlink_to(disk / "birds")  # a class on another disk
    (root / "cat" / "b").symlink_to(disk / "birds")  # and a second name of it, which sorts first
    (root / "dog" / "one.png").symlink_to(disk / "single.png")
    (root / "dog" / "two.png").symlink_to(disk / "single.png")
    found = list_pictures(root)
    assert found.files == ["bird/1.png", "bird/more/2.png", *REAL, "dog/one.png"]
    assert found.left_out.counts == {SECOND: 4}
    assert ("dog/two.png", "dog/one.png") in found.left_out.twice
    assert ("cat/b", "bird") in found.left_out.twice


def test_links_to_a_folder_and_into_it_both_keep_what_they_name(tmp_path):
    write(tmp_path / "disk" / "1.png")
    write(tmp_path / "disk" / "dogs" / "2.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "animal").symlink_to(tmp_path / "disk")
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "disk" / "dogs")
    assert list_pictures(tmp_path / "data").files == ["animal/1.png", "dog/2.png"]


def test_links_into_classes_that_are_not_evaluated_are_not_followed(tmp_path):
    root = two(tmp_path / "data")
    write(tmp_path / "disk" / "fox" / "f.png")
    (root / "fox").symlink_to(tmp_path / "disk" / "fox")
    (root / "cat" / "a").symlink_to("../dog")
    (root / "cat" / "b.png").symlink_to("../dog/0.png")
    (root / "cat" / "c").symlink_to(tmp_path / "disk" / "fox")
    found = list_pictures(root, only=["cat"])
    assert found.files == REAL[:3] and found.left_out.counts == {SECOND: 3}


def test_a_link_to_nothing_is_an_unreadable_picture_or_a_missing_class(tmp_path):
    root = two(tmp_path)
    (root / "cat" / "gone.jpg").symlink_to("nowhere.jpg")
    (root / "cat" / "loop.jpg").symlink_to("loop.jpg")
    (root / "cat" / "notes").symlink_to("nowhere")
    found = list_pictures(root)
    assert found.files == [*REAL[:3], "cat/gone.jpg", "cat/loop.jpg", *REAL[3:]]
    assert found.left_out.counts == {"links to nothing": 1}
    (root / "fox").symlink_to("/disk/not/there")
    with pytest.raises(RequestError, match=r"fox is a link to /disk/not/there, which is not there"):
        list_pictures(root)


def test_the_result_does_not_depend_on_the_order_of_the_file_system(tmp_path, monkeypatch):
    root = two(tmp_path)
    for link in ("to another class", "a hard link", "to the root", "another name for a class"):
        LINKS[link](root) if link != "to another class" else (root / "cat" / "y").symlink_to(
            "../dog"
        )
    expected = list_pictures(root)
    scan = os.scandir

    class Backwards(list):
        __enter__ = lambda self: self  # noqa: E731
        __exit__ = lambda self, *error: None  # noqa: E731

    monkeypatch.setattr(os, "scandir", lambda path: Backwards(list(scan(path))[::-1]))
    found = list_pictures(root)
    assert (found.files, found.left_out.twice) == (expected.files, expected.left_out.twice)


def test_file_systems_without_inodes_or_with_few_of_them_lose_no_picture(tmp_path):
    one, other = write(tmp_path / "one.png"), write(tmp_path / "other.png", PNG + b"x")
    link = tmp_path / "link.png"
    link.symlink_to(one)

    def key(path: Path, inode: int) -> object:
        found = path.stat()
        mode, _, *rest = found
        times = {"st_mtime_ns": found.st_mtime_ns}
        return key_of(str(path), os.stat_result((mode, inode, *rest), times))

    for inode in (0, 7):  # none, and the same for two files
        assert key(one, inode) == key(link, inode) != key(other, inode)


# ---- what a picture is

READ = {
    ".jfif": "JPEG", ".jpe": "JPEG", ".JPG": "JPEG", ".gif": "GIF", ".ppm": "PPM", ".avif": "AVIF",
    ".tga": "TGA", ".jp2": "JPEG2000", "": "JPEG", ".dat": "PNG", ".pgm": "PPM", ".eps": "PNG",
    ".jpeg_large": "JPEG", ".heic": "JPEG", ".png": "WEBP", ".1": "BMP", ".ico": "ICO",
    ".mpo": "MPO", ".qoi": "QOI",
}  # fmt: skip


@pytest.mark.parametrize(("ending", "form"), READ.items())
def test_what_pillow_reads_is_read_by_content(ending, form, tmp_path):
    write(tmp_path / "a" / f"x{ending}", draw(form))
    (sample,) = ImageFolder(tmp_path, TO_32)
    assert sample.error is None and sample.image is not None


@pytest.mark.parametrize("ending", [".jfif", ".jpe", ".gif", ".ppm", ".avif", ".jp2", ".tga"])
def test_a_damaged_file_with_the_ending_of_a_picture_is_a_failed_image(ending, tmp_path):
    write(tmp_path / "a" / f"x{ending}", b"\1 no picture at all")
    write(tmp_path / "a" / "whole.png")
    failed, _ = sorted(ImageFolder(tmp_path, TO_32), key=lambda sample: sample.error is None)
    assert failed.error.startswith("not an image")


def test_a_damaged_picture_without_an_ending_is_a_failed_image(tmp_path):
    write(tmp_path / "a" / "0001", draw("JPEG")[:40])
    (sample,) = ImageFolder(tmp_path, TO_32)
    assert sample.error is not None


def test_what_is_left_out_is_counted_by_ending_and_said_in_the_log(tmp_path, caplog):
    root = two(tmp_path)
    write(root / "cat" / "a.HEIC", b"\0\0\0\x18ftypheic" + bytes(50))
    write(root / "cat" / "b.heic", b"\0\0\0\x18ftypheic" + bytes(50))
    write(root / "dog" / "c.nef", draw("TIFF"))  # a camera's raw file is TIFF outside
    write(root / "dog" / "README", b"what it is\n")
    write(root / "dog" / "drawing.svg", b"<svg/>")
    write(root / "dog" / "empty", b"")
    os.mkfifo(root / "dog" / "pipe.png")
    write(root / "loose.png")
    data = open_data("folder", TO_32, (2, 2), path=str(root))
    assert [sample.source for sample in data] == REAL
    assert data.files_left_out == {
        ".heic": 2, "without ending": 2, ".nef": 1, ".svg": 1, "special files": 1,
        "pictures beside the class folders": 1,
    }  # fmt: skip
    (line,) = caplog.messages
    assert "2 .heic" in line and "1 special file," in line + "," and "\n" not in line


def test_many_endings_become_a_few(tmp_path):
    counts = {f".{i}": i + 1 for i in range(40)} | {SECOND: 1}
    few = summed(counts)
    assert len(few) == 14 and few[".39"] == 40 and few[SECOND] == 1
    assert (
        sum(few.values()) == sum(counts.values())
        and counts_in_words({SECOND: 1}) == "1 second name"
    )


@pytest.mark.parametrize("classes", [None, ["cat", "dog", "fox", "owl"]])
def test_a_class_folder_left_empty_is_an_error_that_names_it_and_the_endings(classes, tmp_path):
    root = two(tmp_path)
    for i in range(3):
        write(root / "fox" / f"{i}.heic", b"\0\0\0\x18ftypheic" + bytes(50))
    with pytest.raises(RequestError, match=r"'fox' without an image .* 3 \.heic: convert"):
        ImageFolder(root, TO_32, classes=classes)


def test_a_class_of_second_names_alone_is_an_error(tmp_path):
    root = two(tmp_path)
    (root / "fox").mkdir()
    os.link(root / "dog" / "0.png", root / "fox" / "0.png")
    with pytest.raises(RequestError, match=r"'fox' .* fox/0\.png is a second name of dog/0\.png"):
        ImageFolder(root, TO_32)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 6\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize(("name", "said"), [("x.jpg", "EPS"), ("x.png", "EPS"), ("x.eps", "EPS")])
def test_formats_that_run_other_programs_are_never_decoded(name, said, tmp_path):
    write(tmp_path / name, EPS)
    with pytest.raises(UnreadableImage, match=f"not an image in a format that is read, but {said}"):
        open_rgb(tmp_path / name)
    assert not holds_picture(write(tmp_path / "y", EPS)) and not holds_picture(tmp_path / name)


def test_a_photograph_of_a_phone_under_a_wrong_name_says_what_it_is(tmp_path):
    with pytest.raises(UnreadableImage, match="but HEIC: save it as JPEG or PNG"):
        open_rgb(write(tmp_path / "x.jpg", b"\0\0\0\x18ftypheic" + bytes(50)))


def test_bytes_without_a_signature_are_no_picture_under_any_ending_but_their_own(tmp_path):
    content = draw("TGA")
    assert open_rgb(write(tmp_path / "x.tga", content)).size == (8, 6)
    with pytest.raises(UnreadableImage, match="not an image"):
        open_rgb(write(tmp_path / "x.jpg", content))


# ---- rubbish


@pytest.mark.parametrize("name", RUBBISH)
@pytest.mark.parametrize("where", ["", "cat", "dog/deep"])
def test_folders_of_systems_and_tools_are_left_out_and_counted(where, name, tmp_path):
    root = two(tmp_path)
    write(root / where / name / "0.png" / "SYNOPHOTO_THUMB_M.jpg")
    write(root / where / name / "1.png")
    for classes in (None, ["cat", "dog"]):
        data = ImageFolder(root, TO_32, classes=classes)
        assert [sample.source for sample in data] == REAL and data.classes == ("cat", "dog")
        assert data.files_left_out == {HIDDEN: 2}


@pytest.mark.parametrize(
    "name", ["._0.png", "Thumbs.db", ".DS_Store", "desktop.ini", "0.png~", "1.png.part",
             "0.jpg_original", ".hidden.png", "~$0.png", "x.pngZone.Identifier"],
)  # fmt: skip
def test_files_of_systems_and_tools_are_left_out_and_counted(name, tmp_path):
    root = two(tmp_path)
    write(root / "cat" / name)
    found = list_pictures(root)
    assert found.files == REAL and found.left_out.counts == {HIDDEN: 1}


def test_a_class_may_be_called_like_a_copy(tmp_path):
    for name in ("cat.bak", "dog~", "x.part"):
        write(tmp_path / name / "0.png")
    assert ImageFolder(tmp_path, TO_32).classes == ("cat.bak", "dog~", "x.part")


def test_lost_and_found_may_be_unreadable(tmp_path, monkeypatch):
    root = two(tmp_path)
    (root / "lost+found").mkdir()
    scan = os.scandir

    def guarded(path):
        if str(path).endswith("lost+found"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert ImageFolder(root, TO_32).source.files == REAL


# ---- ImageNet's readers


@pytest.fixture(scope="module")
def fake():
    return FakeImageNet.make(12, classes=4)


def litter(folder: Path) -> None:
    """What a Mac, a NAS and a file system leave in a folder."""
    write(folder / "._ILSVRC2012_val_00000001.JPEG", b"Mac OS X")
    write(folder / "@eaDir" / "ILSVRC2012_val_00000001.JPEG" / "SYNOPHOTO_THUMB_M.jpg")
    write(folder / "Thumbs.db", b"x")
    (folder / "lost+found").mkdir()


def test_the_four_layouts_leave_out_the_same_kinds_and_agree(fake, tmp_path):
    places = {
        name: getattr(fake, name)(tmp_path / name) for name in ("folders", "flat", "tar", "parquet")
    }
    for name in ("flat", "tar"):
        fake.devkit(places[name])
    clean = {name: ImageNet(place, TO_32) for name, place in places.items()}
    wnid = fake.path(min(fake.files)).split("/")[0]
    first = fake.name(min(fake.files))
    litter(places["folders"] / "val")
    litter(places["folders"] / "val" / wnid)
    (places["folders"] / "val" / wnid / "up").symlink_to("..")
    litter(places["flat"])
    write(places["flat"] / "ILSVRC2012_val_00000001.heic", b"\0\0\0\x18ftypheic" + bytes(50))
    with tarfile.open(places["tar"] / "ILSVRC2012_img_val.tar", "a") as archive:
        for kind, name, target in (
            (tarfile.REGTYPE, f"./._{first}", ""),
            (tarfile.REGTYPE, "notes.txt", ""),
            (tarfile.DIRTYPE, "lost+found", ""),
            (tarfile.LNKTYPE, "ILSVRC2012_val_00049999.JPEG", first),
            (tarfile.SYMTYPE, "ILSVRC2012_val_00049998.JPEG", first),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    littered = {name: ImageNet(place, TO_32) for name, place in places.items()}
    for name in places:
        assert list(littered[name].source.paths) == list(clean["folders"].source.paths), name
        assert littered[name].labels == clean[name].labels
        assert clean[name].files_left_out == {}
    assert littered["folders"].files_left_out == {HIDDEN: 6, SECOND: 1}
    assert littered["flat"].files_left_out == {HIDDEN: 2, ".heic": 1}
    assert littered["tar"].files_left_out == {HIDDEN: 1, ".txt": 1, SECOND: 2}


@pytest.mark.parametrize("ending", [".jpg", ".jpeg", ".jpe", ".JFIF"])
def test_validation_images_may_have_any_ending_of_jpeg_in_every_layout(ending, fake, tmp_path):
    renamed = {n: f"ILSVRC2012_val_{n:08d}{ending}" for n in fake.files}
    calls = type("Renamed", (FakeImageNet,), {"name": lambda self, n: renamed.get(n, f"{n}")})
    other = calls(fake.files, fake.kinds, fake.wnids)
    expected = ImageNet(fake.folders(tmp_path / "as published"), TO_32)
    for name in ("folders", "flat", "tar"):
        root = getattr(other, name)(tmp_path / name)
        data = ImageNet(fake.devkit(root) if name != "folders" else root, TO_32)
        assert (data.digest, data.label_digest) == (expected.digest, expected.label_digest), name
        assert data.description == expected.description and not data.files_left_out


def test_an_archive_may_hold_its_images_as_links_to_files_of_other_names(fake, tmp_path):
    number = min(fake.files)
    with tarfile.open(tmp_path / "ILSVRC2012_img_val.tar", "w") as archive:
        blob = tarfile.TarInfo("blobs/00ab")
        blob.size = len(fake.files[number])
        archive.addfile(blob, io.BytesIO(fake.files[number]))
        link = tarfile.TarInfo(f"val/{fake.path(number)}")
        link.type, link.linkname = tarfile.SYMTYPE, "../../blobs/00ab"
        archive.addfile(link)
        gone = tarfile.TarInfo(f"val/{fake.wnid(3)}/{fake.name(3)}")
        gone.type, gone.linkname = tarfile.LNKTYPE, "nowhere"
        if number != 3:
            archive.addfile(gone)
    data = ImageNet(tmp_path, TO_32)
    read = {sample.source: sample.error for sample in data}
    assert data.source.read(list(read).index(fake.path(number))).getvalue() == fake.files[number]
    assert read[fake.path(3)].startswith("missing") and data.files_left_out == {}


# ---- property: random trees

GOOD = ("1.png", "2.JPG", "x.gif", "0001")
OTHER = {
    "n.txt": b"text",
    "v.heic": b"\0\0\0\x18ftypheic" + bytes(20),
    "Thumbs.db": b"x",
    "._1.png": PNG,
}
INSIDE = ("", "s", "s/t")
CLASSES = st.sampled_from(["a", "b", "c"])
FILES = st.lists(
    st.tuples(
        CLASSES,
        st.sampled_from([*INSIDE, "@eaDir", ".cache"]),
        st.sampled_from([*GOOD, *OTHER]),
    ),
    min_size=1, max_size=12, unique=True,
)  # fmt: skip
LINKS_OF = st.lists(
    st.tuples(
        CLASSES,
        st.sampled_from(["l1", "l2", "l3.png"]),
        st.sampled_from(
            [".", "..", "../a", "../b/s", "../..", "../../out", "../../out/in", "nowhere"]
        ),
    ),
    max_size=5, unique_by=lambda link: link[:2],
)  # fmt: skip


def relative(*parts: str) -> str:
    return "/".join(filter(None, parts))


@settings(max_examples=60)
@given(files=FILES, links=LINKS_OF, hard=st.sets(st.integers(0, 11), max_size=3))
def test_every_real_picture_is_listed_once_in_its_own_class(files, links, hard):
    with TemporaryDirectory() as folder:
        top = Path(folder).resolve()
        root = top / "root"
        good = [relative(*file) for file in files if file[2] in GOOD and file[1] in INSIDE]
        for i, file in enumerate(files):
            write(root / relative(*file), OTHER.get(file[2]) or draw(seed=i))
        outside = [write(top / "out" / "o.png"), write(top / "out" / "in" / "i.png")]
        for name, link, target in links:
            (root / name).mkdir(exist_ok=True)
            (root / name / link).symlink_to(target)
        twice = {}
        for i in hard:
            if good:
                first = good[i % len(good)]
                twice[f"{class_of(first)}/zz{i}.png"] = first
                os.link(root / first, root / class_of(first) / f"zz{i}.png")
        found = list_pictures(root)

        real = {path: Path(os.path.realpath(root / path)) for path in found.files}
        dangling = {path for path, place in real.items() if not place.exists()}
        own = {path for path, place in real.items() if place.is_relative_to(root)} - dangling
        assert own == set(good)
        inodes = [place.stat().st_ino for path, place in real.items() if path not in dangling]
        assert len(set(inodes)) == len(inodes)
        assert twice.items() <= dict(found.left_out.twice).items()
        assert set(real.values()) - {real[path] for path in own | dangling} <= set(outside)
        # Every file and every link is listed, left out, or leads to a folder that was gone through.
        counts = found.left_out.counts.total()
        counts -= sum(not real_parent(root / second).is_relative_to(root) for second in
                      dict(found.left_out.twice))  # fmt: skip
        through = {relative(*path.split("/")[:2]) for path in set(found.files) - own - dangling}
        entries = [Path(at) / name for at, folders, names in os.walk(root)
                   for name in [*names, *folders]]  # fmt: skip
        leaves = sum(path.is_symlink() or not path.is_dir() for path in entries)
        assert len(own | dangling) + counts == leaves - len(through)


def real_parent(path: Path) -> Path:
    return path.parent.resolve()
