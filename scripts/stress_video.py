"""Opens clips thousands of times and checks that the process that decodes them does not grow.

    nice python scripts/stress_video.py  # writes results/bench/cpu/video_opens.txt

Clips of several codecs, sound and damaged, in turn; each is read through `read_clip`, as a data set
does. Linux only: the sizes are read from /proc.
"""

import argparse
import sys
import tempfile
from collections import Counter
from fractions import Fraction
from itertools import cycle
from pathlib import Path

import av
import numpy as np

from asap.data.video import watchdog
from asap.data.video.sampling import Views
from asap.data.video.unreadable import UnreadableClip

TARGET = Path(__file__).resolve().parents[1] / "results" / "bench" / "cpu" / "video_opens.txt"
WIDTH, HEIGHT, FRAMES = 320, 240, 60
CODECS = {
    "h264.mp4": ("libx264", {"preset": "veryfast", "g": "30"}),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}),
    "hevc.mp4": ("libx265", {"preset": "ultrafast", "x265-params": "log-level=none:keyint=20"}),
    "mpeg4.mp4": ("mpeg4", {"g": "12", "bf": "2"}),
}
VIEWS = Views(frames=8)
WARM = 4  # the first 1/WARM of the opens fill caches
MOST_GROWTH = 0.05  # of the child's memory after that


def encode(path: Path, codec: str, options: dict[str, str]) -> None:
    """A square that moves over noise."""
    ground = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=30, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(FRAMES):
            picture = ground.copy()
            picture[100:140, 4 * i : 4 * i + 40] = 255
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def clips_in(folder: Path) -> list[Path]:
    """Sound clips and, of each, a cut and an overwritten copy; a text and an empty file."""
    made = []
    for name, (codec, options) in CODECS.items():
        sound = folder / name
        encode(sound, codec, options)
        data = sound.read_bytes()
        cut, over = folder / f"cut_{name}", folder / f"over_{name}"
        cut.write_bytes(data[: len(data) // 2])
        middle = len(data) // 2
        over.write_bytes(data[:middle] + bytes(2000) + data[middle + 2000 :])
        made += [sound, sound, cut, over]
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("no clip")
    return [*made, folder / "empty.mp4", folder / "text.mp4"]


def size_of(pid: int) -> tuple[float, int, int]:
    """Memory in MB, open files, threads."""
    status = Path(f"/proc/{pid}/status").read_text()
    values = dict(line.split(":", 1) for line in status.splitlines())
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    return int(values["VmRSS"].split()[0]) / 1024, files, int(values["Threads"])


def measured(opens: int, clips: list[Path]) -> tuple[list[list[float]], Counter[str]]:
    """Rows (opens, MB, files, threads), and how many opens ended in which way."""
    rows, ended = [], Counter()
    for i, clip in zip(range(1, opens + 1), cycle(clips), strict=False):
        try:
            ended[watchdog.read_clip(clip, VIEWS).decoder] += 1
        except UnreadableClip as error:
            ended[error.kind] += 1
        if i % (opens // 20) == 0:
            rows.append([i, *size_of(watchdog.pid())])
    return rows, ended


def main() -> int:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--opens", type=int, default=2000)
    made.add_argument("--out", type=Path, default=TARGET)
    given = made.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clips = clips_in(Path(folder))
        watchdog.pid()
        first = watchdog.pid()
        rows, ended = measured(given.opens, clips)
    same = watchdog.pid() == first
    at = len(rows) // WARM - 1
    growth = max(row[1] for row in rows[-3:]) / max(row[1] for row in rows[: at + 1]) - 1
    files, threads = {row[2] for row in rows}, max(row[3] for row in rows)
    # A decoder's threads may still be ending when they are counted.
    passed = same and growth <= MOST_GROWTH and len(files) == 1 and threads <= 4
    lines = [
        f"scripts/stress_video.py --opens {given.opens}", "",
        f"{len(clips)} clips in turn, {WIDTH} x {HEIGHT}, {FRAMES} frames: {', '.join(CODECS)};",
        "each sound (twice), cut and overwritten; an empty file, a text. 8 frames of each.",
        f"How the opens ended: {', '.join(f'{n:,} {how}' for how, n in ended.most_common())}.",
        "",
        "The process that decodes:", "  opens      MB  files  threads",
        *(f"{i:7,} {mb:7.1f} {n:6} {t:8}" for i, mb, n, t in rows), "",
        f"One process throughout: {'yes' if same else 'no'}. Growth of its memory after the first",
        f"{rows[at][0]:,} opens: {100 * growth:.1f} % (at most {100 * MOST_GROWTH:.0f} %).",
        "", "passed" if passed else "FAILED", "",
    ]  # fmt: skip
    text = "\n".join(lines)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(text, "utf-8")
    sys.stdout.write(text)
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
