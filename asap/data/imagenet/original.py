"""Checks whether pictures in the layout of ImageNet's validation set are the published ones.

Many data sets have this layout and often its file names: ImageNet-C (224 x 224, encoded again),
copies that were resized or encoded again, ImageNet-Sketch, ImageNetV2 sorted by WordNet ids. An
accuracy on them is not an accuracy on ImageNet-1k. The published set is recognised by three facts:

- Its files are called ILSVRC2012_val_<number>.JPEG and are JPEG.
- "ImageNet consists of variable-resolution images" (Krizhevsky et al. 2012, section 2). Copies that
  were resized to one size, or to one length of the shorter side, do not.
- ILSVRC2012_img_val.tar, as image-net.org serves it, has 6,744,924,160 bytes for 50,000 files.
  Every member takes a header of 512 bytes and is padded to a multiple of 512 bytes, so the files
  together have between 6.694 and 6.719 GB.

Labels are not checked, and a chosen part of the published set passes.
"""

import re
from collections.abc import Sequence
from contextlib import suppress

from asap.data.base import evenly
from asap.data.imagenet.names import N_IMAGES, number_of
from asap.data.imagenet.parquet import ParquetSource
from asap.data.images.decoding import Header, UnreadableImage, header
from asap.data.images.source import Source

SAMPLE = 32  # headers to read, of the same pictures in every layout
ARCHIVE_BYTES = 6_744_924_160
_CONTENT = (ARCHIVE_BYTES - N_IMAGES * 1024 - 10_240, ARCHIVE_BYTES - N_IMAGES * 512 - 1024)
_SPARE = 0.01  # tolerance of the total size, for copies with repaired files or without metadata
# Number of pictures that must agree before it counts as evidence: the published ones have common
# sizes, so a few may agree by chance. Equal squares are rarer.
_SQUARE, _SAME, _SHORTER = 2, 12, 24


def differences(source: Source) -> tuple[str, ...]:
    """Reasons why these are not the published validation pictures; empty if there are none.

    Reads at most `SAMPLE` headers and, for a whole set, the sizes of the files.
    """
    found = _names(_named(source)) + of_headers(sample(source))
    if not found and len(source.paths) == N_IMAGES:
        found += _of_bytes(_total(source))
    return tuple(found)


def sample(source: Source) -> list[Header]:
    """The headers of evenly spaced pictures; unreadable ones are left out."""
    n, found = len(source.paths), {}
    chosen = set(evenly(n, min(SAMPLE, n)))
    for i in source.reading_order:
        if i in chosen:
            with suppress(UnreadableImage):
                found[i] = header(source.read(i))
    return [found[i] for i in sorted(found)]


def of_headers(headers: Sequence[Header]) -> list[str]:
    """Signs in some pictures' headers that the set was resized or saved in another format."""
    found = []
    sizes = {one.size for one in headers}
    shorter = {min(one.size) for one in headers}
    if len(sizes) == 1:
        ((width, height),) = sizes
        if len(headers) >= (_SQUARE if width == height else _SAME):
            found.append(f"all {width} x {height}: not the original pictures")
    elif len(shorter) == 1 and len(headers) >= _SHORTER:
        found.append(f"shorter side always {min(shorter)}: not the original pictures")
    formats = sorted({one.format for one in headers})
    if len(headers) >= _SQUARE and "JPEG" not in formats:
        found.append(f"{' and '.join(formats)} files: not the original ones")
    return found


def _of_bytes(total: int) -> list[str]:
    """A reason if the total size of the files is not that of the published ones."""
    low, high = _CONTENT
    if (1 - _SPARE) * low <= total <= (1 + _SPARE) * high:
        return []
    published = f"{low / 1e9:.2f} to {high / 1e9:.2f}"
    return [f"files of {total / 1e9:.2f} GB, the published ones have {published} GB"]


def _total(source: Source) -> int:
    if isinstance(source, ParquetSource):
        return source.stored_bytes()  # `sizes` would read all pictures
    return sum(size for size in source.sizes() if size > 0)


def _named(source: Source) -> Sequence[str]:
    """The paths whose file names were stored. A snapshot without names has made-up ones."""
    if not isinstance(source, ParquetSource):
        return source.paths
    stems = "|".join(re.escape(file.stem) for file in source.files)
    made = re.compile(rf"(?:{stems})-\d{{6}}")
    return [path for path in source.paths if not made.fullmatch(path.rsplit("/", 1)[-1])]


def _names(paths: Sequence[str]) -> list[str]:
    other = [path for path in paths if number_of(path) is None]
    if not other:
        return []
    name = other[0].rsplit("/", 1)[-1]
    if len(other) == len(paths):
        return [f"files called like {name}, not ILSVRC2012_val_<number>.JPEG"]
    are = "is" if len(other) == 1 else "are"
    return [f"{len(other):,} {are} not called ILSVRC2012_val_<number>.JPEG, such as {name}"]
