"""Clips are read frame by frame as they were encoded, by both decoders, or not at all."""

import random
from io import BytesIO

import clips
import numpy as np
import pytest

from asap.data.video.reader import UnreadableClip, open_clip

BOTH = ("decord", "pyav")
DECODED = [kind for kind in clips.KINDS if kind != "av1"]  # decord 0.6.0 has no AV1


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """kind -> its file, encoded once."""
    folder = tmp_path_factory.mktemp("clips")
    return lambda kind: clips.made(folder, kind)


def read(file, indices, decoder="auto"):
    reader = open_clip(file, decoder)
    try:
        return reader.get(indices)
    finally:
        reader.close()


@pytest.mark.parametrize("decoder", BOTH)
@pytest.mark.parametrize("kind", DECODED)
def test_a_frame_is_the_one_that_was_asked_for(kind, decoder, made):
    """In order, at random, with repeats, and again from the same reader."""
    n = clips.KINDS[kind].frames
    reader = open_clip(made(kind), decoder)
    assert (reader.decoder, reader.num_frames, reader.length) == (decoder, n, "verified")
    assert reader.missing_frames == 0
    assert clips.numbers_in(reader.get(range(n))) == list(range(n))
    draw = random.Random(kind)
    for _ in range(6):
        wanted = draw.choices(range(n), k=8)
        assert clips.numbers_in(reader.get(wanted)) == wanted
        fresh = sorted(draw.sample(range(n), 4))
        assert clips.numbers_in(read(made(kind), fresh, decoder)) == fresh
    reader.close()


def test_pyav_reads_av1(made):
    wanted = [61, 3, 89, 3]
    assert clips.numbers_in(read(made("av1"), wanted)) == wanted
    with pytest.raises(UnreadableClip, match=r"^undecodable: decord: "):
        open_clip(made("av1"), "decord")


@pytest.mark.parametrize("kind", [k for k in DECODED if k != "h264_10bit"])
def test_both_decoders_give_the_same_pixels(kind, made):
    n = clips.KINDS[kind].frames
    one, other = (read(made(kind), range(0, n, 7), decoder) for decoder in BOTH)
    np.testing.assert_array_equal(one, other)


def test_auto_takes_decord_only_where_it_is_right(made):
    taken = {kind: open_clip(made(kind)).decoder for kind in clips.KINDS}
    assert {kind for kind, decoder in taken.items() if decoder == "decord"} == {
        "h264", "h264_long", "h264_444", "h264_varying", "hevc_closed", "vp9",
    }  # fmt: skip


@pytest.mark.parametrize("decoder", BOTH)
def test_content_in_memory_is_read_as_the_file_is(decoder, made):
    for kind in ("h264", "hevc", "vp9"):
        content = BytesIO(made(kind).read_bytes())
        np.testing.assert_array_equal(
            read(content, [70, 5], decoder), read(made(kind), [70, 5], decoder)
        )


@pytest.mark.parametrize("decoder", BOTH)
@pytest.mark.parametrize("quarters", clips.TURNS)
def test_a_turned_clip_is_shown_upright(quarters, decoder, made, tmp_path):
    clip = clips.turned(made("h264"), tmp_path / "turned.mp4", quarters)
    stored = read(made("h264"), [33], decoder)
    np.testing.assert_array_equal(
        read(clip, [33], decoder), np.rot90(stored, -quarters, axes=(1, 2))
    )
