"""Measure the time to hash many small picture files, at the first start and at the second.

    python scripts/bench_digest.py                     # 50,000 files of about 10 kB

The files hold random bytes, in 1,000 class folders on the disk of the temporary folder. They have
just been written, so the first start reads them from memory. With --cold, the system's file cache
is emptied before each start (needs root). Writes results/bench/cpu/digest.txt.
"""

import argparse
import hashlib
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bench_data import write_report
from PIL import Image
from torch import Tensor

from asap.data.images import content
from asap.data.images.content_index import Index
from asap.data.images.folder import ImageFolder

ROOT = Path(__file__).resolve().parents[1]
OUT = ROOT / "results" / "bench" / "cpu" / "digest.txt"
CLASSES = 1000
STARTS = 3  # starts after the first one; their median is reported


def make_files(root: Path, count: int, size: int) -> int:
    """Make `count` files of `size` bytes, plus or minus 10 %; returns their total size."""
    draw, total = np.random.default_rng(0), 0
    for i in range(count):
        file = root / f"n{i % CLASSES:08d}" / f"{i:06d}.jpeg"
        file.parent.mkdir(parents=True, exist_ok=True)
        total += file.write_bytes(draw.bytes(int(size * draw.uniform(0.9, 1.1))))
    return total


def _not_decoded(picture: Image.Image) -> Tensor:
    raise AssertionError("a digest is made from a file's bytes")


def start(root: Path, index: Path | None, cold: bool) -> tuple[float, float, str]:
    """Seconds to list the files, seconds to hash their content, and the digest."""
    if cold:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
    began = time.monotonic()
    data = ImageFolder(root, _not_decoded)
    data.index, listed = index, time.monotonic()
    digest = data.digest
    return listed - began, time.monotonic() - listed, digest


def speed(name: str) -> float:
    """MB/s of a hash function over pieces of 100 kB, on one core."""
    piece, hashed = bytes(100_000), getattr(hashlib, name)()
    began = time.thread_time()
    for _ in range(1000):
        hashed.update(piece)
    return 1000 * len(piece) / (time.thread_time() - began) / 1e6


def measured(count: int, size: int, cold: bool) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        root, index = Path(folder) / "set", Path(folder) / "results" / "digests" / "index"
        total = make_files(root, count, size)
        time.sleep(content.SETTLED / 1e9 + 0.1)  # younger files are not put into the index
        listing, first, digest = start(root, index, cold)
        again = [start(root, index, cold) for _ in range(STARTS)]
        assert {said for _, _, said in again} == {digest}
        assert len(Index.read(index)) == count
        held = index.stat().st_size
    second = float(np.median([seconds for _, seconds, _ in again]))
    slowest = max(seconds for _, seconds, _ in again)
    where = "the file cache emptied before each start" if cold else "files in the file cache"
    hashes = ", ".join(f"{name} {speed(name):,.0f}" for name in ("sha256", "blake2b"))
    return [
        f"{count:,} files of about {size:,} bytes, {total / 1e6:,.0f} MB; {where}",
        f"listing the files          {listing:8.2f} s (every start)",
        f"first start, all are read  {first:8.2f} s ({total / first / 1e6:,.0f} MB/s)",
        f"second start               {second:8.2f} s (median of {STARTS}; slowest {slowest:.2f} s)",
        f"the index                  {held / 1e6:8.2f} MB",
        f"hashes, MB/s of one core: {hashes}",
    ]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--files", type=int, default=50_000)
    made.add_argument("--size", type=int, default=10_000, help="bytes of a file")
    made.add_argument("--cold", action="store_true", help="empty the system's file cache first")
    made.add_argument("--out", type=Path, default=OUT)
    return made


def main(arguments: list[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    before = os.getloadavg()[0]
    lines = measured(given.files, given.size, given.cold)
    versions = f"Python {platform.python_version()}, {platform.machine()}"
    write_report(given.out, "scripts/bench_digest.py", lines, versions, before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
