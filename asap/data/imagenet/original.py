"""Whether pictures in the layout of ImageNet's validation set are those that were published.

Many data sets have its layout and often its file names: ImageNet-C (224 x 224, saved anew), copies
that were resized or encoded again, ImageNet-Sketch, ImageNetV2 sorted into WordNet ids. A number
found on them is not one of ImageNet-1k. Told apart by facts alone:

- The files are called ILSVRC2012_val_<number>.JPEG and are JPEG.
- "ImageNet consists of variable-resolution images" (Krizhevsky et al. 2012, section 2). Copies
  brought to one size or to one shorter side are not.
- The 50,000 files in ILSVRC2012_img_val.tar (6,744,924,160 bytes, as image-net.org serves it).
  Every member takes a header of 512 bytes and is filled up to a multiple of 512, so that the
  contents are between 6.694 and 6.719 GB together.

Labels are not looked at, and a chosen part of the set differs in nothing.
"""

import re
from collections.abc import Sequence
from contextlib import suppress

from asap.data.imagenet.names import N_IMAGES, number_of
from asap.data.imagenet.parquet import ParquetSource
from asap.data.images.decoding import Header, UnreadableImage, header
from asap.data.images.source import Source

SAMPLE = 32  # headers that are read: the same pictures in every layout
ARCHIVE_BYTES = 6_744_924_160
_CONTENT = (ARCHIVE_BYTES - N_IMAGES * 1024 - 10_240, ARCHIVE_BYTES - N_IMAGES * 512 - 1024)
_SPARE = 0.01  # of the bytes: copies with a few repaired files, or without metadata
# Pictures that must agree before their agreement says something: the published ones share common
# sizes, so that a few may agree by chance. Equal squares are rarer.
_SQUARE, _SAME, _SHORTER = 2, 12, 24


def differences(source: Source) -> tuple[str, ...]:
    """What shows that these are not the published validation pictures; empty if nothing does.

    Reads at most `SAMPLE` headers and, of a whole set, the sizes of the files.
    """
    found = _names(_named(source)) + of_headers(sample(source))
    if not found and len(source.paths) == N_IMAGES:
        found += _of_bytes(_total(source))
    return tuple(found)


def sample(source: Source) -> list[Header]:
    """The headers of some pictures, at even distances; unreadable ones are left out."""
    n = len(source.paths)
    count = min(SAMPLE, n)
    chosen = {(2 * i + 1) * n // (2 * count) for i in range(count)}
    found = {}
    for i in source.reading_order:
        if i in chosen:
            with suppress(UnreadableImage):
                found[i] = header(source.read(i))
    return [found[i] for i in sorted(found)]


def of_headers(headers: Sequence[Header]) -> list[str]:
    """What shows in some pictures' headers that the set was resized or saved in another format."""
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
    """What the bytes of all files together say."""
    low, high = _CONTENT
    if (1 - _SPARE) * low <= total <= (1 + _SPARE) * high:
        return []
    published = f"{low / 1e9:.2f} to {high / 1e9:.2f}"
    return [f"files of {total / 1e9:.2f} GB, the published ones have {published} GB"]


def _total(source: Source) -> int:
    if isinstance(source, ParquetSource):
        return source.stored_bytes()  # its sizes() would read all pictures
    return sum(size for size in source.sizes() if size > 0)


def _named(source: Source) -> Sequence[str]:
    """Paths with the files' own names: snapshots may have none."""
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
