"""A damaged clip is an error that says what is wrong, never other frames and never a hang."""

import random
import re
from dataclasses import replace

import av
import clips
import numpy as np
import pytest

from asap.data.video.reader import UnreadableClip, open_clip

EVERY = ("auto", "decord", "pyav")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("damage")


@pytest.fixture(scope="module")
def made(folder):
    return lambda kind: clips.made(folder, kind)


def refusal(file, decoder="auto", indices=None):
    """The error of reading all frames of a clip, or these."""
    with pytest.raises(UnreadableClip) as caught:
        reader = open_clip(file, decoder)
        reader.get(range(reader.num_frames) if indices is None else indices)
    text = str(caught.value)
    assert text.startswith(f"{caught.value.kind}: ")
    assert "\n" not in text and str(file) not in text
    assert not re.search(r"\d\d:\d\d|@ 0x", text)  # the same in every run
    return text


@pytest.mark.parametrize("decoder", EVERY)
def test_files_that_are_no_clips(decoder, folder, tmp_path):
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("not a clip at all" * 100)
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "loop.mp4").symlink_to("loop.mp4")
    (tmp_path / "dangling.mp4").symlink_to("nowhere.mp4")
    names = ("empty", "text", "folder", "loop", "dangling", "none")
    found = {name: refusal(tmp_path / f"{name}.mp4", decoder) for name in names}
    assert found.pop("none") == found.pop("dangling") == "missing: it is listed and not there"
    assert found.pop("folder") == "undecodable: it is not a file"
    assert "symbolic links" in found["loop"]
    assert all(text.startswith("undecodable: ") for text in found.values())
    assert refusal(clips.sound(tmp_path / "sound.mp4"), decoder) == "no video stream: it has audio"


@pytest.mark.parametrize("decoder", EVERY)
def test_no_frame_and_one_frame(decoder, tmp_path):
    for ending, kind in (("mp4", "h264"), ("webm", "vp9")):
        none, one = tmp_path / f"none.{ending}", tmp_path / f"one.{ending}"
        clips.encode(none, replace(clips.KINDS[kind], frames=0))
        assert refusal(none, decoder) == {
            "mp4": "no video stream: it has no stream", "webm": "undecodable: End of file",
        }[ending]  # fmt: skip
        clips.encode(one, replace(clips.KINDS[kind], frames=1))
        if (ending, decoder) == ("webm", "decord"):
            assert "Failed to measure duration" in refusal(one, decoder)
            continue
        reader = open_clip(one, decoder)
        assert reader.num_frames == 1
        assert clips.numbers_in(reader.get([0, 0])) == [0, 0]


def cut(clip, target, share):
    data = clip.read_bytes()
    target.write_bytes(data[: int(share * len(data))])
    return target


@pytest.mark.parametrize("decoder", EVERY)
def test_a_cut_clip_is_never_a_shorter_one(decoder, made, tmp_path):
    assert refusal(cut(made("h264"), tmp_path / "last.mp4", 0.6), decoder).startswith("undecodable")
    clips.encode(tmp_path / "first.mp4", clips.KINDS["h264"], {"movflags": "faststart"})
    for kind, file in (
        ("mp4", tmp_path / "first.mp4"), ("mkv", made("h264_long")), ("webm", made("vp9")),
        ("avi", made("mpeg4_avi")),
    ):  # fmt: skip
        text = refusal(cut(file, tmp_path / f"cut.{kind}", 0.6), decoder)
        if kind == "avi":
            assert text.startswith("undecodable: ")
        else:
            assert text.startswith("short: ") and " of " in text, kind


def test_a_little_short_is_counted_and_read(made, tmp_path):
    """As healthy stream copies are: up to two frames, or 2 %."""
    clips.encode(tmp_path / "whole.mp4", clips.KINDS["h264"], {"movflags": "faststart"})
    data, found = (tmp_path / "whole.mp4").read_bytes(), set()
    for share in np.linspace(1, 0.9, 60):
        file = cut(tmp_path / "whole.mp4", tmp_path / "cut.mp4", share)
        try:
            reader = open_clip(file)
        except UnreadableClip as error:
            assert error.kind == "short"
            found.add("short")
        else:
            assert reader.num_frames + reader.missing_frames == 90
            assert clips.numbers_in(reader.get(range(70))) == list(range(70))
            found.add(reader.missing_frames)
    assert len(data) and {0, "short"} < found <= {0, 1, 2, "short"}


def test_a_cut_clip_that_promises_nothing_is_read_as_far_as_it_goes(tmp_path):
    for ending, kind in (("webm", "vp9"), ("mkv", "h264")):
        live = tmp_path / f"live.{ending}"
        clips.encode(live, clips.KINDS[kind], {"live": "1"})
        for file in (live, cut(live, tmp_path / f"cut.{ending}", 0.6)):
            reader = open_clip(file)
            assert reader.length == "unverified"
            n = reader.num_frames - (file != live)  # the last one may be cut in two
            assert n >= (90 if file == live else 20)
            assert clips.numbers_in(reader.get(range(n))) == list(range(n))


@pytest.mark.parametrize("kind", clips.KINDS)
@pytest.mark.parametrize("decoder", EVERY)
def test_overwritten_bytes_are_noticed(decoder, kind, made, tmp_path):
    data = bytearray(made(kind).read_bytes())
    draw, file = random.Random(kind), tmp_path / made(kind).name
    at = data.find(b"mdat") if made(kind).suffix == ".mp4" else len(data) // 4
    for place in range(at + 1000, at + 1000 + (len(data) - at) // 4):
        data[place] = draw.randrange(256)
    file.write_bytes(data)
    said = refusal(file, decoder)
    assert said.startswith(("undecodable: ", "short: "))
    assert refusal(file, decoder) == said  # libav does not print the same twice by itself


def test_the_frames_before_a_damaged_one_are_not_refused(made, tmp_path):
    """Frames up to the damage can be had, those that are predicted from it cannot."""
    data = bytearray(made("h264").read_bytes())
    end = data.find(b"moov")
    data[end - 200 : end - 100] = bytes(100)
    (tmp_path / "late.mp4").write_bytes(data)
    for decoder in EVERY:
        assert "undecodable" in refusal(tmp_path / "late.mp4", decoder)
        early = open_clip(tmp_path / "late.mp4", decoder).get([0, 31])
        assert clips.numbers_in(early) == [0, 31]


@pytest.mark.parametrize("kind", ["h264", "h264_open", "hevc", "mpeg4"])
@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_stream_copies_show_what_they_have(kind, ending, made, tmp_path):
    """Cut at a key frame that earlier frames refer to, and by an edit list."""
    keys = {"h264": 60}.get(kind, 24)  # in open groups the packets of some earlier frames follow
    packet = next(i for i in range(keys - 8, keys + 1) if _is_key(made(kind), i))
    copy = clips.copied(made(kind), tmp_path / f"copy.{ending}", packet)
    reader = open_clip(copy)
    assert clips.numbers_in(reader.get(range(reader.num_frames))) == list(range(keys, 90))
    hidden = clips.copied(made(kind), tmp_path / f"hidden.{ending}", 0, shift=20)
    if ending == "mp4":
        reader = open_clip(hidden)
        assert (reader.decoder, reader.num_frames) == ("pyav", 70)
        assert clips.numbers_in(reader.get([0, 35, 69])) == [20, 55, 89]


def _is_key(file, number):
    with av.open(str(file)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
    return packets[number].is_keyframe


@pytest.mark.parametrize("kind", ["mpeg4", "hevc", "h264_open", "vp9"])
def test_a_copy_that_begins_between_key_frames_shows_no_grey(kind, made, tmp_path):
    copy = clips.copied(made(kind), tmp_path / made(kind).name, 15)
    assert refusal(copy).startswith(("short: ", "undecodable: "))
