"""Tiny clips for tests, encoded on the spot: every frame has its number in it, as bits."""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, BITS = 96, 64, 10  # decord cannot read pictures that are 48 wide


def picture(number: int) -> np.ndarray:
    """(64, 96, 3) uint8: the number as bits in the upper half, colours that move in the lower."""
    made = np.full((HEIGHT, WIDTH, 3), 60, np.uint8)
    for bit in range(BITS):
        made[:24, 6 * bit : 6 * bit + 6] = 230 if number >> bit & 1 else 20
    made[24:, :, 0] = 7 * number % 200 + 20
    made[24:, :, 1] = np.linspace(20, 220, WIDTH).astype(np.uint8)
    made[24:, :, 2] = 13 * number % 200 + 20
    return made


def number_in(frame: np.ndarray) -> int:
    """The number that `picture` drew into a decoded frame."""
    means = [frame[4:20, 6 * bit + 1 : 6 * bit + 5].mean() for bit in range(BITS)]
    return sum(1 << bit for bit, mean in enumerate(means) if mean > 128)


def numbers_in(frames: np.ndarray) -> list[int]:
    return [number_in(frame) for frame in frames]


@dataclass(frozen=True)
class Kind:
    """How a clip is encoded. times: of the frames in milliseconds; None: 30 a second."""

    codec: str
    ending: str = "mp4"
    options: Mapping[str, str] = field(default_factory=dict)
    frames: int = 90
    pixels: str = "yuv420p"
    times: Sequence[int] | None = None


X264 = {"preset": "veryfast", "crf": "18", "bf": "3", "sc_threshold": "0"}
KINDS = {
    "h264": Kind("libx264", options=X264 | {"g": "60"}),
    "h264_open": Kind(
        "libx264",
        options=X264 | {"x264-params": "open-gop=1:keyint=12:min-keyint=12:scenecut=0"},
    ),
    "h264_long": Kind("libx264", "mkv", X264 | {"g": "250"}, frames=300),
    "h264_444": Kind("libx264", options=X264, pixels="yuv444p", frames=30),
    "h264_10bit": Kind("libx264", options=X264 | {"g": "30"}, pixels="yuv420p10le", frames=40),
    "h264_varying": Kind(
        "libx264", options=X264 | {"g": "30"},
        times=[33 * i + 400 * (i // 10) + i * i % 7 for i in range(90)],
    ),
    "hevc": Kind(
        "libx265", options={"x265-params": "keyint=12:min-keyint=12:bframes=4:log-level=none"}
    ),
    "hevc_closed": Kind(
        "libx265",
        options={"x265-params": "keyint=30:open-gop=0:bframes=4:log-level=none"},
    ),
    "vp9": Kind(
        "libvpx-vp9", "webm",
        {"deadline": "realtime", "cpu-used": "8", "g": "30", "lag-in-frames": "10"},
    ),
    "mpeg4": Kind("mpeg4", options={"bf": "2", "g": "12"}),
    "mpeg4_avi": Kind("mpeg4", "avi", {"bf": "2", "g": "12"}),
    "vp8": Kind(
        "libvpx", "webm",
        {"deadline": "good", "cpu-used": "5", "lag-in-frames": "16", "auto-alt-ref": "1"},
    ),
    "av1": Kind("libsvtav1", options={"preset": "10", "g": "30", "svtav1-params": "lp=1"}),
}  # fmt: skip
# decord 0.6.0 has no AV1, and numbers frames by packets.
BY_DECORD = [kind for kind in KINDS if kind not in ("av1", "vp8", "mpeg4_avi")]


def made(folder: Path, name: str) -> Path:
    """The file of a kind in the folder; encoded if it is not there yet."""
    path = folder / f"{name}.{KINDS[name].ending}"
    if not path.exists():
        encode(path, KINDS[name])
    return path


def encode(path: Path, kind: Kind, muxer: Mapping[str, str] | None = None):
    """Write a clip of the kind; `muxer`: options of the container."""
    unit = Fraction(1, 30) if kind.times is None else Fraction(1, 1000)
    with av.open(str(path), "w", options=dict(muxer or {})) as container:
        stream = container.add_stream(kind.codec, rate=30, options=dict(kind.options))
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, kind.pixels
        stream.thread_count = 1
        if kind.times is not None:
            stream.codec_context.time_base = unit
        container.start_encoding()
        for i in range(kind.frames):
            frame = av.VideoFrame.from_ndarray(picture(i), format="rgb24")
            frame = frame.reformat(format=kind.pixels)
            frame.pts, frame.time_base = i if kind.times is None else kind.times[i], unit
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def sound(path: Path, seconds: float = 0.5) -> Path:
    """Write a file with an audio stream only."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        for i in range(int(seconds * 16000 / 1024)):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, 1024 * i, Fraction(1, 16000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


# The matrices of MPEG-4's track header: clockwise quarter turns that a player has to make.
TURNS = {1: (0, 1, -1, 0), 2: (-1, 0, 0, -1), 3: (0, -1, 1, 0)}


def turned(clip: Path, target: Path, quarters: int) -> Path:
    """A copy of an mp4 file whose header asks for so many quarter turns clockwise."""
    data, one = bytearray(clip.read_bytes()), 1 << 16
    a, b, c, d = (one * value for value in TURNS[quarters])
    at = data.index(b"tkhd") + 4 + 40
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(data)
    return target


def copied(clip: Path, target: Path, first: int, shift: int = 0) -> Path:
    """A stream copy, without decoding: the packets from number `first` on, `shift` frames earlier.

    mp4 hides what then comes before time zero by an edit list.
    """
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"} if shift else {}
    with av.open(str(clip)) as source, av.open(str(target), "w", options=options) as container:
        stream = source.streams.video[0]
        copy = container.add_stream_from_template(stream)
        for packet in [p for p in source.demux(stream) if p.size][first:]:
            earlier = int(shift / 30 / packet.time_base)
            packet.pts, packet.dts, packet.stream = packet.pts - earlier, packet.dts - earlier, copy
            container.mux(packet)
    return target
