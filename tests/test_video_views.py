"""Which frames of a clip are taken, how they are cut, and what a sample of clips holds."""

from dataclasses import dataclass
from pathlib import Path

import clips
import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.transforms_factory import create_transform

from asap.data.images.source import FileSource
from asap.data.loading import loader
from asap.data.open import DATA_SETS
from asap.data.options import Opening
from asap.data.video.clip_files import ClipFiles
from asap.data.video.frame_crops import FrameCrops, frame_difference
from asap.data.video.options import ClipOptions, with_split
from asap.data.video.sampling import Views
from asap.data.video.watchdog import read_clip
from asap.errors import RequestError
from asap.spec.run_spec import DataSpec

TRANSFORM = create_transform((3, 32, 32), crop_pct=1.0, interpolation="bicubic")


def test_uniform_frames_are_the_middles_of_equal_parts():
    for n in (1, 3, 8, 31, 300):
        (found,) = Views(frames=8).indices(n)
        assert found == [int((i + 0.5) * n / 8) for i in range(8)]
    assert Views(frames=2, clips=2).indices(8) == [[1, 5], [3, 7]]


def test_dense_frames_are_a_stride_apart_and_clips_fill_the_video():
    views = Views(frames=4, clips=3, sampling="dense", stride=5)
    assert views.least == 16
    assert views.indices(20) == [[0, 5, 10, 15], [2, 7, 12, 17], [4, 9, 14, 19]]
    assert Views(frames=4, sampling="dense", stride=5).indices(19) == [[1, 6, 11, 16]]
    with pytest.raises(ValueError, match="15 frames are fewer than the 16"):
        views.indices(15)


@pytest.mark.parametrize(
    "wrong",
    [
        {"frames": 0}, {"clips": 0}, {"crops": 2}, {"sampling": "random"},
        {"sampling": "dense"}, {"stride": 4}, {"sampling": "dense", "stride": 0},
    ],
)  # fmt: skip
def test_impossible_views_are_refused(wrong):
    with pytest.raises(RequestError, match=r"data\.[a-z]+="):
        Views(**wrong)


@pytest.mark.parametrize("size", [(96, 64), (64, 96), (64, 64)])
def test_three_crops_lie_along_the_longer_side(size):
    width, height = size
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    cut = FrameCrops(TRANSFORM, 3)
    first, middle, last = (cut.image(one) for one in cut.pictures(frame))
    torch.testing.assert_close(middle, TRANSFORM(Image.fromarray(frame)), rtol=0, atol=0)
    # After resizing, the shorter side is 32 and the longer one 48: the crops begin at 0 and at 16.
    resized = TRANSFORM.transforms[0](Image.fromarray(frame))
    for found, x in ((first, 0), (last, max(resized.size) - 32)):
        at = (x, 0) if width >= height else (0, x)
        whole = resized.crop((*at, at[0] + 32, at[1] + 32))
        torch.testing.assert_close(found, cut.image(whole), rtol=0, atol=0)


def test_a_preprocessing_without_a_crop_has_one_view_only():
    squash = create_transform((3, 32, 32), crop_mode="squash", crop_pct=1.0)
    squash.transforms = [s for s in squash.transforms if "Crop" not in type(s).__name__]
    FrameCrops(squash, 1)
    with pytest.raises(RequestError, match="crops=3 needs a preprocessing"):
        FrameCrops(squash, 3)
    with pytest.raises(RequestError, match="no step that makes a tensor"):
        FrameCrops(lambda picture: torch.zeros(3, 32, 32), 1)


def test_frame_difference_by_hand():
    grey = [Image.new("RGB", (4, 4), (value,) * 3) for value in (10, 250, 245)]
    mixed = Image.new("RGB", (4, 4), (10, 13, 10))
    found = frame_difference([grey, [grey[0], mixed, mixed]])
    assert found.tolist() == [240.0, 5.0, 1.0, 0.0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two clips that can be read and two that cannot."""
    folder = tmp_path_factory.mktemp("clips")
    clips.made(folder, "h264")
    clips.made(folder, "mpeg4")
    (folder / "broken.mp4").write_bytes(b"nothing of a clip")
    return folder


FOUR = Views(frames=4)
FILES = ("h264.mp4", "broken.mp4", "mpeg4.mp4", None)


def clip_files(folder, views=FOUR, **more):
    paths = [f"a/{name}" for name in ("h264.mp4", "broken.mp4", "mpeg4.mp4", "gone.mp4")]
    source = FileSource(folder, FILES, paths, [0, 1, 1, 0])
    return ClipFiles(
        source, TRANSFORM, views, name="clips", classes=("left", "right"), clusters=(0, 1, 0, 2),
        about="4 clips", **more,
    )  # fmt: skip


@pytest.mark.process
def test_a_sample_has_the_views_of_its_clip(folder):
    views = Views(frames=4, clips=2, crops=3)
    sample = clip_files(folder, views)[0]
    assert sample.error is None
    assert (sample.frames, sample.n_images, sample.label, sample.cluster) == (4, 24, 0, 0)
    assert (sample.extras["decoder"], sample.extras["length"]) == ("decord", "verified")
    clip = read_clip(folder / "h264.mp4", views)
    assert sample.inputs is not None
    assert clips.numbers_in(clip.frames) == sorted({i for clip in views.indices(90) for i in clip})
    inputs = sample.inputs.unflatten(0, (2, 3, 4))
    for number, (at, frames) in enumerate(zip(inputs, views.indices(90), strict=True)):
        for t, frame in enumerate(frames):
            picture = Image.fromarray(clip.frames[clip.clips[number][t]])
            torch.testing.assert_close(at[1, t], TRANSFORM(picture), rtol=0, atol=0)
            assert clips.number_in(clip.frames[clip.clips[number][t]]) == frame
    differences = sample.extras["frame_difference"]
    assert differences.shape == (18,)
    assert (differences > 0).all()


@pytest.mark.process
def test_a_clip_that_cannot_be_read_says_why(folder):
    found = [sample.error for sample in map(clip_files(folder).__getitem__, range(4))]
    assert found[0] is found[2] is None
    assert found[1].startswith("undecodable: ")
    assert found[3] == "missing: it is listed and not there"


@pytest.mark.process
def test_the_number_of_workers_changes_nothing(folder):
    data = clip_files(folder)
    expected = list(map(data.__getitem__, range(4)))
    for workers in (1, 4):
        batches = loader(data, [3, 2, 0, 1], 2, workers)
        found = {sample.index: sample for batch in batches for sample in batch}
        for one in expected:
            other = found[one.index]
            assert (other.error, other.id, other.frames) == (one.error, one.id, one.frames)
            assert (one.inputs is None) == (other.inputs is None)
            if one.inputs is not None:
                assert torch.equal(one.inputs, other.inputs)
                assert one.extras.keys() == other.extras.keys()


def test_what_decides_the_pixels_is_in_the_digest(folder):
    plain = clip_files(folder)
    assert plain.digest == clip_files(folder, decoder="pyav", seconds_per_clip=5.0).digest
    others = [
        clip_files(folder, views).digest
        for views in (
            Views(frames=5), Views(frames=4, crops=3), Views(frames=4, clips=2),
            Views(frames=4, sampling="dense", stride=2),
        )
    ]  # fmt: skip
    assert len({plain.digest, *others}) == 5
    assert plain.digest_of([0]) != plain.digest_of([2])
    assert "4 clips, 4 x 1 x 1 frames" in plain.description


@dataclass(frozen=True)
class SomeOptions(ClipOptions):
    splits = ("validation", "train")

    split: str = "validation"

    def files(self, opening):
        return clip_files(Path(opening.spec.path), self.views)


def opening(folder, **more):
    return Opening(DataSpec("clips", path=str(folder), **more), TRANSFORM, (2, 2), limit=1)


@pytest.mark.process
def test_options_of_clips(folder):
    data = SomeOptions(frames=3).open(opening(folder, title="mine"))
    assert len(data) == 1
    assert (data[0].n_images, data[0].frames) == (3, 3)
    assert data.description.startswith("mine: 4 clips")
    with pytest.raises(RequestError, match="cache='auto' is for pictures"):
        SomeOptions().open(opening(folder, cache="auto"))
    for wrong, text in (
        ({"decoder": "opencv"}, "data.decoder='opencv'"),
        ({"seconds_per_clip": 0.0}, "data.seconds_per_clip=0"),
        ({"split": "test"}, "data.split='test'"),
        ({"sampling": "dense"}, "data.stride"),
    ):
        with pytest.raises(RequestError, match=text):
            SomeOptions(**wrong)


def test_decord_is_refused_where_it_is_not_installed(monkeypatch):
    assert SomeOptions(decoder="decord").decoder == "decord"
    monkeypatch.setattr("asap.data.video.options.find_spec", lambda name: None)
    assert SomeOptions().decoder == "auto"
    with pytest.raises(RequestError, match=r"decoder=decord: there is no decord in this"):
        SomeOptions(decoder="decord")


def test_another_split_of_the_same_clips(monkeypatch):
    monkeypatch.setitem(DATA_SETS, "clips", SomeOptions)
    spec = DataSpec("clips", path="here", part="rest", title="mine", options={"frames": 3})
    train = with_split(spec, "train")
    assert train.options == {"frames": 3, "split": "train"}
    assert (train.path, train.part, train.title) == ("here", "all", None)
    with pytest.raises(RequestError, match=r"data=clips has no split 'test'.*head\.file"):
        with_split(spec, "test")
    with pytest.raises(RequestError, match="data=imagenet has no split 'train'"):
        with_split(DataSpec("imagenet"), "train")
