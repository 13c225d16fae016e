"""Decides which files are pictures; opens a file only if its extension does not tell."""

import os
import re
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image

# Formats with a signature at the beginning of the file: read with any extension, or without one.
_SIGNED = (
    "JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "JPEG2000", "AVIF", "PPM", "QOI",
)  # fmt: skip
# A file with one of these signatures was meant to be a picture, even if the rest is damaged.
_CERTAIN = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|RIFF....WEBP|\0\0\0\x0cjP  \r\n\x87\n", re.DOTALL
)
# Never decoded: Pillow runs other programs for them (EPS) or has no decoder of its own.
_REFUSED = ("EPS", "WMF", "MPEG", "BUFR", "GRIB", "HDF5", "FITS")
# Other formats are read only with their own extensions: some, such as TGA, have no signature, so
# that any bytes may look like one. The following extensions are used for pictures only.
_USUAL = (".tga", ".dib", ".ico", ".pcx", ".dds", ".psd", ".sgi")
_ALSO_JPEG = (".mpo", ".jif", ".jfi", ".pjpeg", ".pjp")
# Raw camera files look like TIFF but hold sensor values or a thumbnail: never opened.
_RAW = frozenset(
    (".3fr", ".arw", ".cr2", ".crw", ".dcr", ".dng", ".erf", ".fff", ".iiq", ".k25", ".kdc", ".mef",
     ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf",
     ".srw", ".x3f")
)  # fmt: skip
_KNOWN = {b"%!PS": "EPS", b"\xc5\xd0\xd3\xc6": "EPS", b"\xff\x0a": "JPEG XL", b"%PDF": "PDF",
          b"\x00\x00\x00\x0cJXL ": "JPEG XL", b"<svg": "SVG", b"SIMPLE": "FITS",
          b"\x89HDF": "HDF5", b"\xd7\xcd\xc6\x9a": "WMF"}  # fmt: skip
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")  # brands of HEIF files
NO_ENDING = "without ending"


@cache
def _formats() -> dict[str, str]:
    """Pillow's format for every supported extension, in lower case."""
    known = {
        ending: form for ending, form in Image.registered_extensions().items()
        if form in Image.OPEN and form not in _REFUSED
    }  # fmt: skip
    return known | dict.fromkeys(_ALSO_JPEG, "JPEG")


@cache
def formats_of(ending: str) -> tuple[str, ...]:
    """The formats that a file with this extension (in lower case) may have."""
    own = _formats().get(ending)
    return _SIGNED if own is None or own in _SIGNED else (*_SIGNED, own)


def ending_of(name: str) -> str:
    """The extension of a file name with its dot, in lower case; "" without one."""
    return os.path.splitext(name)[1].lower()  # noqa: PTH122


@cache
def _meant(ending: str) -> bool:
    return ending in _USUAL or _formats().get(ending) in _SIGNED


def meant_as_picture(name: str) -> bool:
    """True if the extension is one for pictures. A file with other content is then damaged."""
    return _meant(ending_of(name))


def holds_picture(path: str | Path) -> bool:
    """True if a file's content begins like a picture. Raises OSError if it cannot be opened."""
    ending = ending_of(os.fspath(path))
    if ending in _RAW:
        return False
    with open(path, "rb") as file, warnings.catch_warnings():  # noqa: PTH123
        warnings.simplefilter("ignore")
        beginning = file.read(16)
        if not beginning:
            return False
        if _CERTAIN.match(beginning):
            return True
        try:
            Image.open(file, formats=formats_of(ending))
        except Image.DecompressionBombError:
            return True  # a picture, though too large to be read
        except Exception:  # parsers may fail in any way on bytes that are not a header
            return False
    return True


class FileKind(NamedTuple):
    """Which files a folder is searched for.

    meant: whether a file's extension is one of the kind. holds: whether a file with another one is
    of the kind nevertheless, by its content; raises OSError if it cannot be opened.
    """

    meant: Callable[[str], bool]
    holds: Callable[[str], bool]


PICTURES = FileKind(meant_as_picture, holds_picture)


def unread_format(beginning: bytes) -> str | None:
    """The name of an unsupported format, from the first bytes of a file; None if unknown."""
    if beginning[4:8] == b"ftyp" and beginning[8:12] in _HEIF:
        return "HEIC"
    found = (name for start, name in _KNOWN.items() if beginning.startswith(start))
    return next(found, None)
