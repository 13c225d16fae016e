"""Check an ImageNet-1k validation set before an evaluation, and report what is missing.

python scripts/prepare_imagenet.py /data/imagenet             # layout, count, classes, checksums
python scripts/prepare_imagenet.py /data/imagenet --decode    # and decode every image (minutes)

Exit codes: 0 complete; 1 usable, but a part is missing or damaged, or a checksum is wrong; 2 no
validation set found (one line tells what to do). Nothing is changed, copied or downloaded.
"""

import argparse
import hashlib
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from preparing import at_least_one, concluded, console, list_names, refused
from rich.console import Console
from tqdm import tqdm

from asap.data.base import files_left_out
from asap.data.imagenet.devkit import ARCHIVES, find_devkit
from asap.data.imagenet.layouts import Layout, open_layout, recognise
from asap.data.imagenet.names import N_IMAGES, synsets
from asap.data.imagenet.original import differences
from asap.data.imagenet.validation import absent_files
from asap.data.images.decoding import UnreadableImage, open_rgb
from asap.data.images.source import Source
from asap.errors import RequestError
from asap.records.files_left_out import counts_in_words
from asap.spec.paths import path_argument

LAYOUT_NAMES = {
    "folders": "class folders <wnid>/*.JPEG",
    "flat": "flat files ILSVRC2012_val_*.JPEG with labels",
    "tar": "the archive ILSVRC2012_img_val.tar, read in place",
    "parquet": "a Hugging Face snapshot, read in place",
}
HOW_TO_GET = """How to get the validation set (for non-commercial research, on its terms):
  image-net.org: make an account, agree to the terms, download under ILSVRC2012
      ILSVRC2012_img_val.tar (6.3 GB) and ILSVRC2012_devkit_t12.tar.gz (2.5 MB) into one folder;
      for object recall also the validation bounding boxes, ILSVRC2012_bbox_val_v3.tgz
  Kaggle: join "ImageNet Object Localization Challenge" and accept its rules; its archive holds
      ILSVRC/Data/CLS-LOC/val, LOC_val_solution.csv (labels and boxes)
  Hugging Face: accept the terms of the gated data set ILSVRC/imagenet-1k, then
      hf download ILSVRC/imagenet-1k --repo-type dataset --include "data/validation-*"
Nothing needs unpacking. Then set IMAGENET to the folder."""


def main() -> int:
    """Check and report; returns the exit code."""
    arguments = _arguments()
    out = console()
    try:
        layout = recognise(arguments.path)
        labels = None if arguments.labels is None else str(arguments.labels)
        source = open_layout(layout, arguments.path, labels)
    except RequestError as error:
        return refused(error, HOW_TO_GET)
    out.print(f"layout     {LAYOUT_NAMES[layout.kind]}: {layout.place}", markup=False)
    problems = _counts(out, source)
    if arguments.checksums:
        problems += _checksums(out, layout)
    if arguments.decode:
        problems += _decoded(out, source, arguments.workers)
    return concluded(out, problems, HOW_TO_GET)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=path_argument, help="what IMAGENET will be set to")
    parser.add_argument(
        "--labels", type=path_argument, help="devkit or labels file, if it is not beside the images"
    )
    parser.add_argument("--decode", action="store_true", help="decode every image")
    parser.add_argument("--workers", type=at_least_one, default=1, help="processes that decode")
    parser.add_argument(
        "--no-checksums", dest="checksums", action="store_false", help="skip the MD5 of archives"
    )
    return parser.parse_args()


def _counts(out: Console, source: Source) -> list[str]:
    """Report counts and classes; returns the problems found."""
    count, first = absent_files(source)
    classes = len(set(source.labels))
    missing = [path for path, size in zip(source.paths, source.sizes(), strict=True) if size <= 0]
    out.print(f"images     {len(source.labels) - len(missing):,} of {N_IMAGES:,}")
    if left_out := files_left_out(source):
        out.print(f"left out   {counts_in_words(left_out)}", markup=False)
    out.print(f"classes    {classes:,} of {len(synsets()):,}, in timm's order")
    if first and count:
        out.print(f"absent     {', '.join(first)}{', ...' if count > len(first) else ''}")
    list_names(out, "missing", missing, "listed and not there, or empty")
    problems = [f"{count:,} images are absent"] if count else []
    for reason in differences(source):
        out.print(f"differs    {reason}", markup=False)
        problems.append(reason)
    return problems + ([f"{len(missing):,} files are missing or empty"] if missing else [])


def _checksums(out: Console, layout: Layout) -> list[str]:
    """Compare the official archives, if present, with torchvision's known checksums."""
    from torchvision.datasets.imagenet import ARCHIVE_META  # importable after asap

    kit = find_devkit([layout.place, layout.place.parent, layout.place.parent.parent])
    found = [(layout.place, ARCHIVE_META["val"][1])] if layout.kind == "tar" else []
    if kit is not None and kit.name in ARCHIVES:
        found.append((kit, ARCHIVE_META["devkit"][1]))
    wrong = []
    for file, expected in found:
        good = _md5(file) == expected
        out.print(f"md5        {file.name}: {'as published' if good else 'NOT as published'}")
        wrong += [] if good else [f"{file.name} is not the published file"]
    return wrong


def _md5(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, partial(hashlib.md5, usedforsecurity=False)).hexdigest()


def _decoded(out: Console, source: Source, workers: int) -> list[str]:
    """Decode every image; returns the problem if some could not be decoded."""
    order = list(source.reading_order)
    failed = []
    with ProcessPoolExecutor(workers, initializer=_Worker.start, initargs=(source,)) as pool:
        reasons = pool.map(_Worker.decode, order, chunksize=64)
        for i, reason in zip(order, tqdm(reasons, "decode", len(order), unit="img"), strict=True):
            if reason:
                failed.append(f"{source.paths[i]}: {reason}")
    list_names(out, "damaged", sorted(failed), "cannot be decoded")
    out.print(f"decoded    {len(order) - len(failed):,} of {len(order):,}")
    return [f"{len(failed):,} images cannot be decoded"] if failed else []


class _Worker:
    """A process that decodes images; it receives the source once, at its start."""

    source: Source

    @classmethod
    def start(cls, source: Source) -> None:
        cls.source = source

    @classmethod
    def decode(cls, i: int) -> str | None:
        """The reason why the image cannot be decoded, None if it can."""
        try:
            open_rgb(cls.source.read(i))
        except UnreadableImage as error:
            return str(error)
        return None


if __name__ == "__main__":
    sys.exit(main())
