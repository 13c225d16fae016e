"""Clips are read frame by frame as they were encoded, by both decoders, or not at all."""

import random
from fractions import Fraction
from io import BytesIO

import av
import clips
import numpy as np
import pytest

from asap.data.video.reader import UnreadableClip, open_clip

BOTH = ("decord", "pyav")
CASES = [(kind, "pyav") for kind in clips.KINDS] + [(kind, "decord") for kind in clips.BY_DECORD]


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


@pytest.mark.parametrize(("kind", "decoder"), CASES)
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


@pytest.mark.parametrize("kind", [k for k in clips.KINDS if k not in clips.BY_DECORD])
def test_what_decord_cannot_number_is_an_error_of_decord(kind, made):
    with pytest.raises(UnreadableClip, match=r"^undecodable: decord: "):
        open_clip(made(kind), "decord")


@pytest.mark.parametrize("kind", [k for k in clips.BY_DECORD if k != "h264_10bit"])
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


SPACES = {"BT.601": (5, 1, "ITU601"), "BT.709": (1, 1, "ITU709"), "BT.709, full": (1, 2, "ITU709")}


@pytest.mark.parametrize("space", SPACES)
def test_colours_are_those_that_the_clip_says(space, tmp_path):
    matrix, limits, name = SPACES[space]
    colour, path = np.full((64, 96, 3), (200, 40, 60), np.uint8), tmp_path / "colour.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, limits
        for i in range(3):
            frame = av.VideoFrame.from_ndarray(colour, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=name, dst_color_range=limits
            )
            frame.pts, frame.time_base = i, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for decoder in BOTH:  # another matrix or range is off by 8 and more
        assert np.abs(read(path, [1], decoder)[0].astype(int) - colour).max() <= 4
