"""A fake Kinetics of small clips, in each of the layouts in which people have the real one."""

import csv
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from asap.data.kinetics.names import kinetics_400

# Names with all that copies spell in different ways; some of the 400, in sorted order.
CLASSES = (
    "abseiling", "air drumming", "massaging person's head", "passing American football (in game)",
    "petting animal (not cat)", "tying knot (not on a tie)",
)  # fmt: skip
LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"))
SHORT = {"validation": "val", "train": "train"}
SPELLINGS: dict[str, Callable[[str], str]] = {
    "as published": str,
    "underscores": lambda name: name.replace(" ", "_"),
    "plain": lambda name: "".join(c for c in name.replace(" ", "_") if c not in "'()"),
    "detox": lambda name: re.sub(r"_?\(|\)", "-", re.sub(r"[ ']", "_", name)),
    "renamed": lambda name: re.sub(r"[()']", "-", name.replace(" ", "_")),
    "curly": lambda name: name.replace("'", "\u2019").upper(),
}


def encoded(label: int, seed: int, frames: int = 16) -> bytes:
    """An mp4 file of H.264, 64 x 48 pixels: a bright square in its class's colour moves right."""
    draw = np.random.default_rng(seed)
    colour = [230 if (label + 1) >> bit & 1 else 30 for bit in range(3)]
    top, left = draw.integers(0, 24), draw.integers(0, 8)
    ground = draw.integers(90, 130, (48, 64, 3)).astype(np.uint8)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        # One thread and no vector code: the same bytes every time.
        options = {"preset": "ultrafast", "crf": "18", "g": "8", "x264-params": "asm=0"}
        stream = container.add_stream("libx264", rate=8, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.thread_count = 1
        for i in range(frames):
            picture = ground.copy()
            picture[top : top + 24, left + 2 * i : left + 2 * i + 24] = colour
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = i, Fraction(1, 8)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


@dataclass(frozen=True)
class FakeClip:
    """A clip: `name` is its canonical name."""

    video: str
    start: int
    label: int  # among CLASSES

    @property
    def name(self) -> str:
        return f"{self.video}_{self.start:06d}_{self.start + 10:06d}"


@dataclass(frozen=True)
class FakeKinetics:
    """`content`: the bytes of each clip's file by its canonical name.

    classes: the positions of CLASSES among the model's classes.
    """

    clips: dict[str, list[FakeClip]]  # by split
    content: dict[str, bytes]
    positions: tuple[int, ...]

    @classmethod
    def make(
        cls,
        n: int,
        train: int = 0,
        encode: Callable[[int, int], bytes] = lambda label, seed: f"{label} {seed}".encode(),
    ) -> "FakeKinetics":
        """encode: the bytes of a file from its class and a number of its own."""
        draw = np.random.default_rng(0)
        clips: dict[str, list[FakeClip]] = {"validation": [], "train": []}
        for split, count in (("validation", n), ("train", train)):
            for i in range(count):
                video = "".join(draw.choice(LETTERS, 11))
                clips[split].append(FakeClip(video, int(draw.integers(200)), i % len(CLASSES)))
        both = [*clips["validation"], *clips["train"]]
        content = {clip.name: encode(clip.label, i) for i, clip in enumerate(both)}
        positions = tuple(kinetics_400().index(name) for name in CLASSES)
        return cls(clips, content, positions)

    def write(self, file: Path, clip: FakeClip) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(self.content[clip.name])
        return file

    def flat(self, root: Path, folder: str = "{}", ending: str = ".mp4") -> Path:
        for split, clips in self.clips.items():
            for clip in clips:
                self.write(root / folder.format(SHORT[split]) / f"{clip.name}{ending}", clip)
        return root

    def annotate(self, root: Path, split: str, name: str = "annotations/{}.csv") -> Path:
        file = root / name.format(SHORT[split])
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", newline="") as lines:
            writer = csv.writer(lines)
            writer.writerow(["label", "youtube_id", "time_start", "time_end", "split"])
            for clip in self.clips[split]:
                row = [CLASSES[clip.label], clip.video, clip.start, clip.start + 10, SHORT[split]]
                writer.writerow(row)
        return file

    def cvdf(self, root: Path) -> Path:
        self.flat(root)
        for split in self.clips:
            self.annotate(root, split)
        return root

    def folders(
        self, root: Path, spelling: str = "as published", folder: str = "{}", ending: str = ".mp4"
    ) -> Path:
        for split, clips in self.clips.items():
            for clip in clips:
                name = SPELLINGS[spelling](CLASSES[clip.label])
                file = root / folder.format(SHORT[split]) / name / f"{clip.name}{ending}"
                self.write(file, clip)
        return root

    def list(self, file: Path, split: str, path: str, separator: str = " ") -> Path:
        """A list of lines `<path> <label>`; `path` has {clip}, {cls} and {split}."""
        draw = np.random.default_rng(1)
        lines = []
        for i in draw.permutation(len(self.clips[split])):
            clip = self.clips[split][i]
            name = SPELLINGS["underscores"](CLASSES[clip.label])
            there = path.format(clip=clip.name, cls=name, split=SHORT[split])
            lines.append(f"{there}{separator}{self.positions[clip.label]}\n")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(lines))
        return file

    def pyslowfast(self, root: Path) -> Path:
        self.folders(root, "underscores", "clips/{}")
        for split in self.clips:
            self.list(root / f"{SHORT[split]}.csv", split, "clips/{split}/{cls}/{clip}.mp4", ",")
        return root

    def mmaction2(self, root: Path) -> Path:
        self.folders(root, "underscores", "videos_{}")
        for split in self.clips:
            name = f"kinetics400_{SHORT[split]}_list_videos.txt"
            self.list(root / name, split, "{cls}/{clip}.mp4")
        return root

    def opendatalab(self, root: Path) -> Path:
        """Tar parts unpacked below `videos_val`, with annotations of DeepMind's names."""
        for split, clips in self.clips.items():
            for i, clip in enumerate(clips):
                part = root / "Kinetics-400" / f"videos_{SHORT[split]}" / f"part_{i % 3}"
                self.write(part / f"{clip.name}.mp4", clip)
            self.annotate(root / "Kinetics-400", split, "annotations/kinetics_{}.csv")
        return root

    LAYOUTS = ("cvdf", "folders", "pyslowfast", "mmaction2", "opendatalab")
