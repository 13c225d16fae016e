"""Pictures that are in the file of their questions, as base64."""

import binascii
from base64 import b64decode
from collections.abc import Mapping, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path

from PIL import Image

from asap.data.base import Transform
from asap.data.images.decoding import UnreadableImage, open_rgb
from asap.errors import RequestError

_NAME = 16  # letters of a picture's name
_REFERENCE = 64  # a shorter text is no picture, but the index of the row that has it


class EncodedPictures:
    """Pictures by names that are made from their content, as `Pictures`."""

    has_masks = False

    def __init__(
        self, encoded: Mapping[str, str], names: Mapping[str, str], paths: Sequence[str] = ()
    ):
        self._encoded, self._names, self.paths = encoded, names, list(paths)

    @classmethod
    def of(cls, rows: Sequence[Mapping[str, str | None]], file: Path) -> "EncodedPictures":
        """The pictures of rows with index and image.

        An image may be the index of another row, whose picture it is. RequestError if that row has
        none, or a row has no image.
        """
        given = {str(row["index"]): row["image"] for row in rows}
        encoded: dict[str, str] = {}
        names: dict[str, str] = {}
        for index, image in given.items():
            if image is not None and len(image) <= _REFERENCE and image.isdecimal():
                image = given.get(image)
            if image is None or len(image) <= _REFERENCE:
                raise RequestError(f"question {index} of {file} has no picture: download it again")
            name = sha256(image.encode()).hexdigest()[:_NAME]
            names[index], encoded[name] = name, image
        return cls(encoded, names)

    def path_of(self, index: str) -> str:
        """The name of the picture of a row."""
        return self._names[index]

    def at(self, paths: Sequence[str]) -> "EncodedPictures":
        """These pictures, in this order."""
        return EncodedPictures(self._encoded, self._names, paths)

    def hashes(self, positions: Sequence[int], index: Path | None) -> list[bytes]:
        return [sha256(self._encoded[self.paths[i]].encode()).digest() for i in positions]

    def open(self, i: int, transform: Transform) -> Image.Image:
        try:
            content = b64decode(self._encoded[self.paths[i]], validate=False)
        except (binascii.Error, ValueError):
            raise UnreadableImage("not a picture in base64") from None
        return open_rgb(BytesIO(content), transform)

    def mask(self, i: int) -> None:
        return None
