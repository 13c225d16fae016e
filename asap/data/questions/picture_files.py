"""The pictures of questions, as files of a folder."""

import logging
import os
import posixpath
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from asap.data.base import Transform
from asap.data.images.decoding import UnreadableImage, open_rgb
from asap.data.images.source import FileSource, refuse_vanished
from asap.errors import RequestError

log = logging.getLogger("asap")
_SHOWN = 3  # missing pictures in a warning


class PictureFiles:
    """Pictures of a folder as `Pictures`, by relative paths; those that are missing are named.

    RequestError, about the file that lists them, if none of them is there.
    """

    has_masks = False

    def __init__(self, folder: Path, paths: Sequence[str], listed: Path):
        # Not Path.is_file(), which raises for names that no file can have.
        there = [path if os.path.isfile(folder / path) else None for path in paths]  # noqa: PTH113
        missing = [path for path, file in zip(paths, there, strict=True) if file is None]
        some = ", ".join(missing[:_SHOWN]) + (", ..." if len(missing) > _SHOWN else "")
        if len(missing) == len(paths):
            raise RequestError(
                f"none of the {len(paths):,} pictures of {listed} is in {folder} ({some}): give "
                "their folder with data.images=<folder>"
            )
        if missing:
            log.warning(
                "%s: %d of %d pictures are missing in %s: %s",
                listed.name, len(missing), len(paths), folder, some,
            )  # fmt: skip
        self.source = FileSource(folder, there, paths, [0] * len(paths))

    @property
    def paths(self) -> Sequence[str]:
        return self.source.paths

    def hashes(self, positions: Sequence[int], index: Path | None) -> list[bytes]:
        return self.source.hashes(positions, index)

    def open(self, i: int, transform: Transform) -> Image.Image:
        try:
            return open_rgb(self.source.read(i), transform)
        except UnreadableImage:
            refuse_vanished(self.source, i)
            raise

    def mask(self, i: int) -> None:
        return None


def picture_path(image: str, where: str) -> str:
    """The path of a picture as it is compared. RequestError if it leaves the folder of pictures."""
    path = posixpath.normpath(image)
    if path.startswith(("/", "~")) or path.split("/")[0] in ("..", ".") or "\0" in path:
        raise RequestError(
            f"{where} has image={image!r}: give a path below the folder of pictures, which is "
            "that of the file or data.images"
        )
    return path
