"""Measure how fast pictures are read, what the crop cache costs, and how much memory grows.

    python scripts/bench_data.py                       # some minutes
    python scripts/bench_data.py --rounds 40 --memory 400 4000 40000

The script makes JPEG files of 500 x 375 pixels. In every round, in shuffled order, each of these
candidates processes the same pictures on one thread, and its CPU time is measured:

    jpeg     our data set: decode, resize, crop and normalise, by timm's transform for DeiT
    pillow   Pillow alone: decode, resize (bicubic, short side 248), crop (224)
    cache    our data set from its crop cache: read, check, normalise
    model    a dense DeiT-Tiny with random weights, fp32, by the project's executor

Memory is the peak resident set of a process that evaluates a tiny model over a number of pictures.
Writes results/bench/cpu/data.txt.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console

import asap
from asap.backbones.preprocess import preprocessing_of
from asap.data.crops.cache import CachedCrops, cached
from asap.data.images.folder import ImageFolder
from asap.experiment.pipeline import run
from asap.methods import build
from asap.spec.run_spec import BackboneSpec, DataSpec, MethodSpec, RunSpec

OUT = Path(__file__).resolve().parents[1] / "results" / "bench" / "cpu" / "data.txt"
QUARTILES = (50, 25, 75)
TINY, SMALL = ("test_vit", "random"), {"num_classes": 5, "img_size": 64}  # for the memory test


def make_pictures(root: Path, count: int, size: tuple[int, int], seed: int) -> Path:
    """Make `count` JPEG files, quality 90: enlarged coarse random colours with some fine noise."""
    draw = np.random.default_rng(seed)
    for i in range(count):
        coarse = Image.fromarray(draw.integers(0, 256, (12, 16, 3), np.uint8))
        smooth = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), np.int16)
        noisy = smooth + draw.integers(-12, 13, smooth.shape, np.int16)
        file = root / str(i % 5) / f"{i:06d}.jpeg"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file, quality=90)
    return root


def by_pillow(file: Path) -> np.ndarray:
    """The crop of one file, made by Pillow alone."""
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    scale = 248 / min(picture.size)
    width, height = (int(side * scale) for side in picture.size)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    resized = picture.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized.crop((left, top, left + 224, top + 224)))


def measured(root: Path, images: int, rounds: int) -> dict[str, np.ndarray]:
    """CPU seconds per image of each candidate in each round."""
    torch.set_num_threads(1)
    backbone = asap.load_backbone("deit_tiny_patch16_224.fb_in1k", "random")
    transform = preprocessing_of(backbone).transform
    data = ImageFolder(make_pictures(root / "speed", images, (500, 375), 0), transform)
    crops = cached(data, root / "cache", None)
    assert isinstance(crops, CachedCrops)
    files = [root / "speed" / path for path in data.source.paths]
    model = asap.ReducedViT(backbone.eval(), build("dense", {}))
    samples = [crops[i] for i in range(min(8, images))]
    batch = torch.stack([s.image for s in samples if s.image is not None])
    ids = torch.tensor([s.id for s in samples])
    for i, file in enumerate(files):
        assert torch.equal(crops[i].whole, data[i].whole)
        assert np.array_equal(by_pillow(file), crops.crops.read(i))

    def over(act: Callable[[int], object]) -> Callable[[], float]:
        return lambda: _seconds(lambda: [act(i) for i in range(images)]) / images

    turns = {
        "jpeg": over(lambda i: data[i]),
        "pillow": over(lambda i: by_pillow(files[i])),
        "cache": over(lambda i: crops[i]),
        "model": lambda: _seconds(lambda: forward(model, batch, ids)) / len(batch),
    }
    draw, found = np.random.default_rng(1), {name: [] for name in turns}
    for turn in range(rounds + 1):
        for name in draw.permutation(list(turns)):
            seconds = turns[name]()
            if turn:  # the first one is the warm-up
                found[name].append(seconds)
    return {name: np.array(seconds) for name, seconds in found.items()}


def forward(model: asap.ReducedViT, batch: torch.Tensor, ids: torch.Tensor) -> None:
    with torch.inference_mode():
        model(batch, ids)


def _seconds(act: Callable[[], object]) -> float:
    start = time.thread_time()
    act()
    return time.thread_time() - start


def evaluated(root: Path, count: int, cache: bool) -> float:
    """Peak memory, in MB, of a process that evaluates a tiny model over `count` pictures."""
    command = [sys.executable, __file__, "--child", str(root), "--images", str(count)]
    done = subprocess.run(
        [*command, *(["--cached"] if cache else [])], check=True, stdout=subprocess.PIPE, text=True
    )
    return float(done.stdout.split()[-1])


def evaluate_here(root: Path, count: int, cache: bool) -> float:
    torch.set_num_threads(1)
    _, (dense,) = run(
        RunSpec(
            title="memory",
            backbone=BackboneSpec(*TINY, model_args=SMALL),
            data=DataSpec("folder", str(root), cache=str(root.parent / "cache") if cache else None),
            rows=(MethodSpec.of("dense", {}, "Dense"),),
            results=root.parent / f"results-{count}-{cache}-{os.getpid()}",
            batch_size=20,
            device="cpu",
        )
    )
    assert dense.accuracy is not None, dense.reason
    # Not getrusage: its peak of a new process begins with the peak of the parent process.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def report(found: dict[str, np.ndarray], images: int) -> list[str]:
    """The lines about speeds and paired ratios: median and quartiles over rounds."""

    def line(name: str, values: np.ndarray, form: str, what: str) -> str:
        median, low, high = (format(x, form) for x in np.percentile(values, QUARTILES))
        return f"{name:<34} {median:>9} [{low}, {high}] {what}"

    per_second = "images/s of one core"
    share = found["cache"] / (found["cache"] + found["model"])
    return [
        f"{images} JPEG files of 500 x 375 pixels, quality 90; {len(found['jpeg'])} rounds; one "
        "thread, CPU time; median [quartiles]",
        line("JPEG path (timm's transform)", 1 / found["jpeg"], ".1f", per_second),
        line("Pillow alone (bytes, no floats)", 1 / found["pillow"], ".1f", per_second),
        line("JPEG path / Pillow alone", found["pillow"] / found["jpeg"], ".3f", "of its speed"),
        line("crop cache (with normalising)", 1 / found["cache"], ".1f", per_second),
        line("crop cache / JPEG path", found["jpeg"] / found["cache"], ".1f", "times its speed"),
        line("DeiT-Tiny, dense, fp32, batch 8", 1 / found["model"], ".2f", per_second),
        line("crop cache in its evaluation", 100 * share, ".3f", "% of cache + model"),
        "Files are in the page cache: waiting for a disk is not counted.",
    ]


def memory_lines(root: Path, counts: list[int]) -> list[str]:
    transform = preprocessing_of(asap.load_backbone(*TINY, model_args=SMALL)).transform
    lines = ["Peak resident memory of a process that evaluates test_vit (64 pixels, fp32), in MB:"]
    for cache in (False, True):
        peaks = []
        for count in counts:
            folder = root / f"memory-{count}" / "set"
            if not folder.exists():
                make_pictures(folder, count, (100, 75), count)
            if cache:
                cached(ImageFolder(folder, transform), folder.parent / "cache", None)
            peaks.append(evaluated(folder, count, cache))
        grown = [f"{100 * (b / a - 1):+.1f} %" for a, b in pairwise(peaks)]
        said = ", ".join(f"{n:,} images {p:.1f}" for n, p in zip(counts, peaks, strict=True))
        lines.append(f"{'crop cache' if cache else 'JPEG path'}: {said} ({', then '.join(grown)})")
    return lines


def write_report(out: Path, script: str, lines: list[str], versions: str, before: float) -> None:
    """Write and print what was measured; before: the load average when it began."""
    load = (
        f"Load average {before:.1f} before and {os.getloadavg()[0]:.1f} after, on {os.cpu_count()} "
        "cores; well below the number of cores is idle."
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("\n".join([script, "", *lines, "", versions, load, ""]))
    Console(width=140).print("\n".join(lines), markup=False, highlight=False)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--images", type=int, default=32, help="for the speeds")
    made.add_argument("--rounds", type=int, default=15)
    made.add_argument("--memory", type=int, nargs="*", default=[40, 400, 4000], help="image counts")
    made.add_argument("--out", type=Path, default=OUT)
    made.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    made.add_argument("--cached", action="store_true", help=argparse.SUPPRESS)
    return made


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    if given.child:
        sys.stdout.write(f"{evaluate_here(given.child, given.images, given.cached)}\n")
        return 0
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        lines = report(measured(Path(folder), given.images, given.rounds), given.images)
        if given.memory:
            lines += ["", *memory_lines(Path(folder), given.memory)]
    versions = f"torch {torch.__version__}, Pillow {Image.__version__}, {platform.machine()}"
    write_report(given.out, "scripts/bench_data.py", lines, versions, before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
