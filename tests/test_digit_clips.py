"""The embedded clips: what moves, how it is encoded, and the folder that holds the files."""

import re
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from PIL import Image
from samples import open_data
from timm.data.transforms_factory import create_transform

from asap.data.base import DataSet
from asap.data.digits import clips
from asap.data.digits.clip_cache import DigitClipFiles, encoded
from asap.data.digits.clip_options import CLIPS, DigitClipsOptions
from asap.data.digits.clips import FRAMES, MOTIONS, clip, digit_of, label_of
from asap.data.options import Opening
from asap.data.video.clip_files import ClipFiles
from asap.data.video.options import with_split
from asap.errors import RequestError
from asap.spec.run_spec import DataSpec

CLIP: Any = create_transform(
    112, interpolation="bicubic", crop_pct=1.0, mean=(0.5,) * 3, std=(0.5,) * 3
)  # fmt: skip


def decoded(content: bytes) -> np.ndarray:
    with av.open(BytesIO(content), "r") as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def object_of(frame: np.ndarray) -> tuple[float, float, int]:
    """Centre (x, y) and area of the digit: its strokes are the only bright pixels."""
    y, x = np.nonzero(frame.max(2) > 172)
    return float(x.mean()), float(y.mean()), len(x)


def files(folder: Path, count: int = 3, seed: int = 0) -> DigitClipFiles:
    return DigitClipFiles(folder, "evaluation", seed, count)


def contents(source: DigitClipFiles) -> list[bytes]:
    return [source.read(i).read_bytes() for i in source.reading_order]


@pytest.mark.parametrize("index", range(8))
def test_a_digit_moves_as_its_class_says(index):
    made = clip("train", 3, index)
    (x0, y0, a0), (x1, y1, a1) = object_of(made.frames[0]), object_of(made.frames[-1])
    right, down = x1 - x0, y1 - y0
    xq, yq, _ = object_of(made.frames[FRAMES // 2])
    match MOTIONS[made.label]:
        case "left":
            assert right < -35 and abs(down) < 6
        case "right":
            assert right > 35 and abs(down) < 6
        case "up":
            assert down < -35 and abs(right) < 6
        case "down":
            assert down > 35 and abs(right) < 6
        case "grow":
            assert a1 > 3 * a0
        case "shrink":
            assert a0 > 3 * a1
        case "still":
            assert (made.frames == made.frames[:1]).all()
        case "circle":  # it ends where it began, with the middle on the other side
            assert np.hypot(right, down) < 6 and np.hypot(xq - x0, yq - y0) > 18
    assert made.frames.shape == (FRAMES, 112, 112, 3) and made.digit == digit_of("train", index)


def test_motions_occur_equally_often_and_digits_belong_to_one_split():
    for split in ("train", "evaluation"):
        labels = [label_of(split, 0, i) for i in range(80)]
        assert np.bincount(labels).tolist() == [10] * 8
        assert labels != [label_of(split, 1, i) for i in range(80)]
        assert clip(split, 0, 5).label == labels[5]
    train, held_out = ({digit_of(s, i) for i in range(2000)} for s in ("train", "evaluation"))
    assert len(held_out) == 599 and not train & held_out


def test_the_middle_of_a_clip_does_not_depend_on_the_motion(monkeypatch):
    """With the same draws, so a single frame there says nothing but by the steps beside it."""
    middles = []
    for label in range(8):
        monkeypatch.setattr(clips, "label_of", lambda *_, label=label: label)
        frames = clip("train", 0, 0).frames.astype(int)
        middles.append((frames[FRAMES // 2 - 1] + frames[FRAMES // 2]) / 2)
    assert max(np.abs(one - middles[0]).mean() for one in middles) < 1.5


def test_a_clip_depends_on_split_seed_and_index_alone():
    one = clip("train", 0, 9).frames
    assert (one == clip("train", 0, 9).frames).all()
    for other in (("train", 1, 9), ("train", 0, 8), ("evaluation", 0, 9)):
        assert (one != clip(*other).frames).any()


def test_equal_frames_are_encoded_to_equal_bytes_that_decode_to_the_frames():
    frames = clip("train", 0, 1).frames
    first = encoded(frames)
    with ThreadPoolExecutor(2) as pool:  # a busy machine: x264's usual settings differ at once
        assert set(pool.map(encoded, [frames] * 4)) == {first}
    back = decoded(first)
    assert back.shape == frames.shape
    error = np.abs(back.astype(int) - frames).mean(axis=(1, 2, 3))
    assert error.max() < 6 and error.max() < 2 * error.mean()  # every frame in its place


def test_clips_are_made_when_they_are_wanted_and_only_once(tmp_path):
    source = files(tmp_path, 4)
    assert not list(tmp_path.rglob("*.mp4"))
    some = source.hashes([2], None)
    assert [p.name for p in tmp_path.rglob("*.mp4")] == ["000002.mp4"]
    all_of_them = source.hashes(range(4), None)
    assert all_of_them[2] == some[0] and len(set(all_of_them)) == 4
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.mp4")}
    assert files(tmp_path, 4).hashes(range(4), None) == all_of_them
    assert before == {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.mp4")}
    assert decoded(source.read(1).read_bytes()).shape == (FRAMES, 112, 112, 3)
    assert files(tmp_path, seed=1).hashes([0], None) != all_of_them[:1]


def test_damaged_and_missing_files_are_made_again(tmp_path):
    source = files(tmp_path)
    hashes, whole = source.hashes(range(3), None), contents(source)
    damaged, gone = source.file(0), source.file(1)
    damaged.write_bytes(whole[0][:300] + bytes(20) + whole[0][320:])
    gone.unlink()
    journal = source.folder / "journal.jsonl"
    journal.write_text(journal.read_text()[:-30])  # a kill while its last line was written
    assert files(tmp_path).hashes(range(3), None) == hashes
    assert contents(source) == whole
    gone.unlink()
    assert source.read(1).read_bytes() == whole[1]  # in the middle of a run


def test_two_processes_may_make_the_same_clips(tmp_path):
    alone = files(tmp_path / "alone", 2)
    with ThreadPoolExecutor(2) as pool:
        both = pool.map(lambda _: files(tmp_path / "both", 2).hashes(range(2), None), range(2))
        assert list(both) == [alone.hashes(range(2), None)] * 2
    assert contents(files(tmp_path / "both", 2)) == contents(alone)
    assert not list(tmp_path.rglob("*.tmp"))


def test_another_version_of_the_encoder_has_a_folder_and_hashes_of_its_own(tmp_path, monkeypatch):
    source = files(tmp_path, 1)
    hashes = source.hashes([0], None)
    monkeypatch.setattr(av, "__version__", "0.0")
    other = files(tmp_path, 1)
    assert other.folder != source.folder and other.hashes([0], None) != hashes


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"cannot be used \(Not a directory\).*data\.cache"):
        files(tmp_path / "file").hashes([0], None)


def opened(tmp_path: Path, **given) -> DataSet:
    return open_data("digits_clips", CLIP, (8, 8), **{"cache": tmp_path, **given})


@pytest.mark.process
def test_the_clips_are_a_data_set_that_a_decoder_reads(tmp_path):
    data = opened(tmp_path, videos=10)
    sample = data[9]
    assert sample.error is None and sample.inputs is not None
    made = clip("evaluation", 0, 9)
    want = torch.stack([CLIP(Image.fromarray(made.frames[i])) for i in range(2, 32, 4)])
    assert sample.inputs.shape == (8, 3, 112, 112) and sample.frames == 8
    assert (sample.inputs - want).abs().mean() < 0.06  # the encoder's loss, of a range of 2
    assert (sample.target, sample.cluster) == (made.label, made.digit)
    assert data.classes == MOTIONS and data.clustered and sample.extras["length"] == "verified"
    assert [data[0].cluster, len(data)] == [digit_of("evaluation", 0), 10]


def files_of(tmp_path: Path, **options) -> ClipFiles:
    """Not through `open_data`, whose checks in tests read every property, the digest among them."""
    spec = DataSpec("digits_clips", cache=str(tmp_path))
    return DigitClipsOptions(**options).files(Opening(spec, CLIP, (8, 8)))


def test_only_clips_that_are_hashed_are_made(tmp_path):
    data = files_of(tmp_path, videos=10)
    assert data.digest_of([1, 7]) != data.digest_of([1, 6])
    assert len(list(tmp_path.rglob("*.mp4"))) == 3
    assert files_of(tmp_path, frames=4).digest_of([1, 7]) != data.digest_of([1, 7])


def test_each_split_has_its_number_of_clips(tmp_path):
    sizes = {split: len(files_of(tmp_path, split=split)) for split in CLIPS}
    assert sizes == CLIPS == {"train": 800, "calibration": 160, "evaluation": 400}
    train = with_split(DataSpec("digits_clips", options={"frames": 4}), "train")
    assert train.options == {"frames": 4, "split": "train"}
    with pytest.raises(RequestError, match="data=digits has no split 'train'"):
        with_split(DataSpec("digits"), "train")


def test_impossible_settings_are_refused_by_name(tmp_path):
    for wrong, said in (
        ({"videos": 0}, "data.videos=0 is not possible: give 1 or more"),
        ({"split": "test"}, "data.split='test' is not possible: use one of train, calibration"),
        ({"path": "/x"}, "data.path='/x' is not for data=digits_clips: its files are in data"),
        ({"cache": None}, "data.cache=null leaves no place for the clips"),
    ):
        with pytest.raises(RequestError, match=re.escape(said)):
            opened(tmp_path, **wrong)
