"""Pictures are identified by their bytes: what a digest sees, and what the index may remember."""

import errno
import os
import shutil
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from io import BytesIO, FileIO
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from PIL import Image
from samples import open_data
from timm.data import create_transform

from asap.data.base import take
from asap.data.imagenet.validation import ImageNet
from asap.data.images import content, content_index
from asap.data.images.content import NOTHING, SETTLED, Stored, hashes_of
from asap.data.images.content_index import PER_PATH, Index
from asap.data.images.folder import ImageFolder
from tests.fake_imagenet import FakeImageNet

TO_32 = create_transform(32, interpolation="bicubic", crop_pct=0.9)
FEW = FakeImageNet.make(22, 5)
TICK = 0.012  # seconds: longer than a file system's clock stands still


@pytest.fixture
def later(monkeypatch) -> Callable[[float], None]:
    """`later(seconds)` sets the clock of the machine, but not those of files, forward or back."""
    now, ahead = time.time_ns, [0.0]
    monkeypatch.setattr(time, "time_ns", lambda: now() + int(ahead[0] * 1e9))

    def move(seconds: float) -> None:
        ahead[0] += seconds

    return move


@pytest.fixture
def read(monkeypatch) -> list[str]:
    """Grows by the name of every file that is read to be hashed."""
    names: list[str] = []
    real = content._read

    def noting(file, advance):
        names.append(Path(file.path).name)
        return real(file, advance)

    monkeypatch.setattr(content, "_read", noting)
    return names


def hashed(*files: Path, index: Path | None = None) -> list[bytes]:
    return hashes_of([Stored(str(file)) for file in files], index)


def by_hand(*files: Path) -> list[bytes]:
    return [sha256(file.read_bytes()).digest() for file in files]


def written(folder: Path, **contents: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in contents.items():
        (folder / name).write_text(text)
    return [folder / name for name in contents]


# ---- what is remembered


def test_what_is_remembered_is_not_read_again(later, read, tmp_path):
    files, index = written(tmp_path / "set", a="one", b="two", c="one"), tmp_path / "x" / "index"
    later(3)
    assert hashed(*files, index=index) == by_hand(*files) and sorted(read) == ["a", "b", "c"]
    assert hashed(*files, index=index) == by_hand(*files) and len(read) == 3
    files[1].write_text("six")
    later(3)
    assert hashed(*files, index=index) == by_hand(*files) and read[3:] == ["b"]
    assert hashed(files[1], index=index) == by_hand(files[1]) and len(read) == 4
    assert {path.name for path in index.parent.iterdir()} == {"index", "index.lock"}


def test_a_file_that_changed_within_two_seconds_is_not_remembered(later, tmp_path):
    """The change in the same tick of the clock would have the same size and times."""
    (file,), index = written(tmp_path / "set", a="one"), tmp_path / "index"
    for ahead in (0.0, 1.8):
        later(ahead)
        assert hashed(file, index=index) == by_hand(file)
        assert not index.exists()
    later(0.3)
    assert hashed(file, index=index) == by_hand(file) and len(Index.read(index)) == 1
    assert SETTLED == 2e9


@pytest.mark.parametrize("when", ["modified", "read"])
def test_times_that_cannot_be_trusted_are_not_remembered(when, later, monkeypatch, tmp_path):
    (file,), index = written(tmp_path / "set", a="one"), tmp_path / "index"
    later(10)
    if when == "modified":  # in the future: it may be changed again in that very moment
        os.utime(file, (time.time() + 60, time.time() + 60))
    else:  # the clock runs backwards
        ticks = iter(range(2**62, 0, -(10**9)))
        monkeypatch.setattr(time, "time_ns", lambda: next(ticks))
    assert hashed(file, index=index) == by_hand(file)
    assert not index.exists()


def test_an_index_from_the_future_is_not_believed(later, read, tmp_path):
    (file,), index = written(tmp_path / "set", a="one"), tmp_path / "index"
    later(10)
    hashed(file, index=index)
    later(-5)
    assert hashed(file, index=index) == by_hand(file) and read == ["a", "a"]


def edited(file: Path) -> None:
    """Another content of the same size, with the old time of modification."""
    before = file.stat()
    file.write_bytes(bytes(b ^ 1 for b in file.read_bytes()))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def moved_over(file: Path) -> None:
    """Another file of the same size and time in its place."""
    other = file.with_name(".other")
    other.write_bytes(bytes(b ^ 1 for b in file.read_bytes()))
    shutil.copystat(file, other)
    other.replace(file)


def linked_elsewhere(file: Path) -> None:
    other = file.parent.parent / "other"
    other.write_bytes(bytes(b ^ 1 for b in file.read_bytes()))
    shutil.copystat(file, other)
    file.unlink()
    file.symlink_to(other)


@pytest.mark.parametrize("change", [edited, moved_over, linked_elsewhere])
def test_a_change_of_the_same_size_and_time_is_seen(change, later, tmp_path):
    (file,), index = written(tmp_path / "set", a="one"), tmp_path / "index"
    later(3)
    before, stat = hashed(file, index=index), file.stat()
    time.sleep(TICK)
    change(file)
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert before != hashed(file, index=index) == by_hand(file)


def test_a_file_that_changes_while_it_is_read_is_read_again(later, tmp_path):
    (file,), index, turns = written(tmp_path / "set", a="0"), tmp_path / "index", []
    later(10)

    def changing(path, advance, until):
        found = sha256(Path(path).read_bytes()).digest()
        turns.append(found)
        if len(turns) < until:
            time.sleep(TICK)
            Path(path).write_text(str(len(turns)))
        return found

    for until, remembered in ((2, True), (99, False)):
        turns.clear()
        one = [Stored(str(file), lambda path, advance, n=until: changing(path, advance, n))]
        assert hashes_of(one, index) == [turns[-1]] and len(turns) > 1
        assert (turns[-1] in Index.read(index).values()) == remembered
        file.write_text("0")


def unreadables(folder: Path) -> dict[str, Path]:
    folder.mkdir()
    (folder / "link").symlink_to(folder / "nothing")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    return {name: folder / name for name in ("link", "folder", "pipe", "missing")}


def test_what_cannot_be_read_has_a_hash_that_is_never_remembered(later, tmp_path):
    files, index = unreadables(tmp_path / "set"), tmp_path / "index"
    later(3)
    assert hashed(*files.values(), index=index) == [NOTHING] * 4 and not index.exists()
    (tmp_path / "set" / "nothing").write_text("here")
    assert hashed(files["link"], index=index) == by_hand(files["link"])


def test_a_file_that_is_denied_once_is_read_by_the_next_start(later, monkeypatch, tmp_path):
    files, index = written(tmp_path / "set", a="one", b="two"), tmp_path / "index"
    later(3)
    opened = Path.open

    def denied(self, *rest, **more):
        if self.name == "a":
            raise PermissionError(13, "Permission denied")
        return opened(self, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", denied)
        assert hashed(*files, index=index) == [NOTHING, *by_hand(files[1])]
    assert hashed(*files, index=index) == by_hand(*files)


def test_an_interrupt_keeps_what_was_read(later, read, monkeypatch, tmp_path):
    files, index = written(tmp_path / "set", **dict.fromkeys("abcdef", "x")), tmp_path / "index"
    later(3)
    monkeypatch.setattr(content, "FEW", 1)
    monkeypatch.setattr(content, "THREADS", 1)

    def interrupted(path, advance):
        raise KeyboardInterrupt

    last = Stored(str(files[-1]), interrupted)
    with pytest.raises(KeyboardInterrupt):
        hashes_of([*(Stored(str(file)) for file in files[:-1]), last], index)
    assert len(Index.read(index)) >= 1
    del read[:]
    assert hashed(*files, index=index) == by_hand(*files) and len(read) < 6


# ---- an index that disagrees is not believed


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Iterator[tuple[list[Path], Path, bytes]]:
    """Files that are old enough, an index of them, and its bytes."""
    folder = tmp_path_factory.mktemp("sound")
    files = written(folder / "set", a="one", b="two", c="three")
    index, now = folder / "index", time.time_ns
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: now() + 10**10)
        hashed(*files, index=index)
        yield files, index, index.read_bytes()


WRONG = {
    "empty": lambda good: b"",
    "text": lambda good: b"not an index\n",
    "cut": lambda good: good[:-1],
    "only its name": lambda good: content_index.MAGIC,
    "longer": lambda good: good + b"x",
    "of another version": lambda good: good.replace(b"index 1", b"index 2", 1),
    "a picture": lambda good: FEW.files[min(FEW.files)],
}


@pytest.mark.parametrize("how", WRONG)
def test_an_index_that_is_damaged_costs_a_reading_only(how, sound, read):
    files, index, good = sound
    index.write_bytes(WRONG[how](good))
    assert hashed(*files, index=index) == by_hand(*files) and len(read) == 3
    assert hashed(*files, index=index) == by_hand(*files) and len(read) == 3


@given(data=st.data())
@settings(max_examples=60)
def test_no_damage_to_an_index_changes_a_hash(data, sound):
    files, index, good = sound
    at = data.draw(st.integers(0, len(good) - 1))
    to = data.draw(st.binary(max_size=3))
    index.write_bytes(good[:at] + to + good[at + data.draw(st.integers(0, 3)) :])
    assert hashed(*files, index=index) == by_hand(*files)


def test_an_index_of_other_files_is_not_believed(sound, tmp_path):
    """Copied with the results from another machine: the same paths, but not the same files."""
    files, index, good = sound
    index.write_bytes(good)
    other = {
        (path, b"1" + stamp, parts): bytes([1] * 32) for path, stamp, parts in Index.read(index)
    }
    index.write_bytes(Index(other).encode())
    assert hashed(*files, index=index) == by_hand(*files)


def test_several_writers_lose_nothing_and_old_states_are_forgotten(monkeypatch, tmp_path):
    index = tmp_path / "index"
    for i in range(PER_PATH + 2):
        Index.remember(index, {(b"/a", b"%d" % i, b""): bytes(32)})
        Index.remember(index, {(b"/b", b"0", b""): bytes([i] * 32)})
    found = Index.read(index)
    assert [stamp for path, stamp, _ in found if path == b"/a"] == [b"%d" % i for i in range(2, 6)]
    assert found[b"/b", b"0", b""] == bytes([5] * 32)
    monkeypatch.setattr(content_index, "MOST", 2)
    Index.remember(index, {(b"/c", b"0", b""): bytes(32)})
    assert {path for path, _, _ in Index.read(index)} == {b"/b", b"/c"}


def test_an_index_that_cannot_be_written_is_told_and_does_no_harm(later, caplog, tmp_path):
    (file, other), index = written(tmp_path, a="one", b="two"), tmp_path / "b" / "index"
    later(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content_index.log.parent, "propagate", True)
        assert hashed(file, index=index) == by_hand(file)
    assert "cannot be written" in caplog.text and other.read_text() == "two"


# ---- digests


def pictures(root: Path, seed: int = 0, ending: str = "bmp") -> Path:
    """Three pictures of each of two classes; as BMP of equal sizes whatever the seed."""
    draw = np.random.default_rng(seed)
    for name in ("a/0", "a/1", "a/2", "b/0", "b/1", "b/2"):
        file = root / f"{name}.{ending}"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (9, 7, 3), np.uint8)).save(file)
    return root


def digest(root: Path, index: Path | None = None, limit: int | None = None) -> str:
    return open_data("folder", TO_32, (8, 8), path=str(root), limit=limit, index=index).digest


def test_a_digest_is_of_names_and_bytes(tmp_path):
    root = pictures(tmp_path / "one")
    said = sha256()
    for name in ("a/0", "a/1", "a/2", "b/0", "b/1", "b/2"):
        file = root / f"{name}.bmp"
        said.update(f"{name}.bmp\0".encode() + sha256(file.read_bytes()).digest())
    assert digest(root) == said.hexdigest()
    other = pictures(tmp_path / "two", seed=1)
    sizes = [[f.stat().st_size for f in sorted(r.rglob("*.bmp"))] for r in (root, other)]
    assert sizes[0] == sizes[1] and digest(root) != digest(other)
    shutil.copytree(root, tmp_path / "copy")
    assert digest(tmp_path / "copy") == digest(root)
    (root / "a" / "2.bmp").rename(root / "a" / "3.bmp")
    assert digest(root) != digest(tmp_path / "copy")


def test_a_limit_reads_its_pictures_alone(read, tmp_path):
    root = pictures(tmp_path)
    first = digest(root, limit=2)
    del read[:]
    assert ImageFolder(root, TO_32).digest_of((1, 4)) == first and read == ["1.bmp", "1.bmp"]
    file = root / "a" / "0.bmp"  # not one of the two
    file.write_bytes(file.read_bytes() + b"x")
    assert digest(root, limit=2) == first != digest(root)
    data = take(ImageFolder(root, TO_32), 4)
    for i in (0, 3):
        file = root / data[i].source
        file.write_bytes(file.read_bytes() + b"x")
    assert take(ImageFolder(root, TO_32), 4).digest != data.digest


@pytest.mark.parametrize("layout", ["tar", "parquet"])
def test_one_byte_of_one_picture_in_an_archive_is_seen(layout, later, read, tmp_path):
    def opened(fake: FakeImageNet, name: str) -> ImageNet:
        root = getattr(fake, layout)(tmp_path / name)
        (root / "val.txt").write_text("".join(f"{FEW.name(n)} {FEW.wnid(n)}\n" for n in FEW.files))
        data = ImageNet(root, TO_32)
        data.index = tmp_path / "index"
        return data

    first = opened(FEW, "one").digest
    later(60)
    archives = len(set(read))
    del read[:]
    assert opened(FEW, "two").digest == first and len(read) == archives
    again = ImageNet(tmp_path / "two", TO_32)
    again.index = tmp_path / "index"
    if layout == "tar":  # parquet's files were just written again
        assert again.digest == first and len(read) == archives
    number = max(FEW.files)
    spoilt = bytearray(FEW.files[number])
    spoilt[-3] ^= 1
    other = FakeImageNet({**FEW.files, number: bytes(spoilt)}, FEW.kinds, FEW.wnids)
    time.sleep(TICK)
    assert opened(other, "two").digest != first
    assert ImageNet(other.folders(tmp_path / "folders"), TO_32).digest == opened(other, "3").digest


def test_beside_an_unreadable_part_of_an_archive_the_others_still_count(
    later, read, tmp_path, monkeypatch
):
    """Else two archives with one bad sector each would have one digest, and one number."""
    first, last = min(FEW.files), max(FEW.files)
    digests = []
    for name, end in (("one", b"x"), ("two", b"y")):
        fake = FakeImageNet({**FEW.files, last: FEW.files[last] + end}, FEW.kinds, FEW.wnids)
        data = ImageNet(fake.devkit(fake.tar(tmp_path / name)), TO_32)
        data.index = tmp_path / "index"
        lost = list(data.source.paths).index(fake.path(first))
        later(60)
        with monkeypatch.context() as disk:
            disk.setattr(Path, "open", _failing_at(data.source._members[lost].offset))
            digests.append(data.digest)
            del read[:]
            hashes = data.source.hashes(range(len(data)), data.index)
        assert [i for i, found in enumerate(hashes) if found == NOTHING] == [lost]
        assert len(read) == 1  # not remembered
        whole = ImageNet(tmp_path / name, TO_32)
        assert whole.digest != digests[-1]
    assert digests[0] != digests[1]


def _failing_at(offset: int) -> Callable:
    """`Path.open`, of archives that cannot be read from one place on their disk."""
    real = Path.open

    class Disk(FileIO):
        def read(self, count: int | None = -1, /) -> bytes:
            if self.tell() == offset:
                raise OSError(errno.EIO, "Input/output error")
            return super().read(count)

    def opening(self, *args, **options):
        return Disk(self) if self.suffix == ".tar" else real(self, *args, **options)

    return opening


def test_boxes_edited_at_equal_length_are_other_labels(tmp_path):
    root = FEW.folders(tmp_path / "set")
    boxes = FEW.kaggle_csv(tmp_path / "boxes.csv", {n: [(1, 2, 13, 14)] for n in FEW.files})
    first = ImageNet(root, TO_32, (8, 8), boxes=str(boxes)).label_digest
    before = boxes.stat().st_size
    boxes.write_bytes(boxes.read_bytes().replace(b" 13 14", b" 13 15", 1))
    assert boxes.stat().st_size == before
    assert ImageNet(root, TO_32, (8, 8), boxes=str(boxes)).label_digest != first


# ---- the property


def flip(root: Path, files: list[Path], draw: Callable[[int], int]) -> None:
    """One byte, at the same size; half of the time with the old time of modification."""
    file = files[draw(len(files))]
    before, found = file.stat(), bytearray(file.read_bytes())
    found[draw(len(found))] ^= 1
    file.write_bytes(found)
    if draw(2):
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def rename(root: Path, files: list[Path], draw: Callable[[int], int]) -> None:
    file = files[draw(len(files))]
    file.rename(file.with_name(f"{draw(4)}-{file.name}"))


def swap(root: Path, files: list[Path], draw: Callable[[int], int]) -> None:
    one, other = files[draw(len(files))], files[draw(len(files))]
    if one != other:
        one.rename(root / "aside")
        other.rename(one)
        (root / "aside").rename(other)


def touch(root: Path, files: list[Path], draw: Callable[[int], int]) -> None:
    os.utime(files[draw(len(files))], (draw(10**9), draw(10**9)))


def link(root: Path, files: list[Path], draw: Callable[[int], int]) -> None:
    """A link in the place of a file, to its content elsewhere or to another one."""
    file, found = files[draw(len(files))], bytearray(files[draw(len(files))].read_bytes())
    place = root.parent / f"store-{len(list(root.parent.iterdir()))}"
    place.write_bytes(found)
    file.unlink()
    file.symlink_to(place)


def replace(root: Path, files: list[Path], draw: Callable[[int], int]) -> None:
    file, fresh = files[draw(len(files))], BytesIO()
    Image.new("RGB", (9, 7), (draw(256), 0, 0)).save(fresh, "bmp")
    other = root.parent / "fresh"
    other.write_bytes(fresh.getvalue())
    shutil.copystat(file, other)
    other.replace(file)


@given(data=st.data())
@settings(max_examples=15)
def test_digests_are_equal_where_names_and_contents_are(data, tmp_path_factory):
    """Random edits, with an index that remembers nearly at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(content, "SETTLED", int(TICK * 1e9 / 2))
        folder = tmp_path_factory.mktemp("edits")
        root, index = pictures(folder / "set"), folder / "index"
        digest_of: dict[tuple, str] = {}
        for _ in range(data.draw(st.integers(2, 6))):
            time.sleep(TICK)
            files = sorted(root.rglob("*.bmp"))
            state = tuple((str(f.relative_to(root)), f.read_bytes()) for f in files)
            found = digest(root, index)
            assert digest_of.setdefault(state, found) == found == digest(root, index)
            edit = data.draw(st.sampled_from((flip, rename, swap, touch, link, replace)))
            edit(root, files, lambda n: data.draw(st.integers(0, n - 1)))
        assert len(set(digest_of.values())) == len(digest_of)
        assert index.exists()  # it did remember
