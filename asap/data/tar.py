"""The official archive ILSVRC2012_img_val.tar, read in place."""

import tarfile
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from asap.data.arrange import Labels, arrange, by_number
from asap.data.images import UnreadableImage
from asap.data.names import class_index, number_of, wnid_in
from asap.data.source import missing
from asap.errors import RequestError

_REMEDY = "give the complete, uncompressed ILSVRC2012_img_val.tar"


class Member(NamedTuple):
    """Where an image lies in the archive, in bytes, and the WordNet id in its name if any."""

    offset: int
    size: int
    wnid: str | None


class TarSource:
    """Images of an uncompressed archive, in canonical order; its headers are read once.

    Every read opens the archive, which costs microseconds and needs no care in worker processes.
    """

    def __init__(self, archive: Path, labels: Labels):
        self.archive = archive
        members = by_number(_members(archive), archive)
        if not members:
            raise RequestError(f"{archive} holds no image ILSVRC2012_val_*.JPEG: {_REMEDY}")
        own = {number: m.wnid for number, m in members.items() if m.wnid}
        known = arrange(members, labels, own)
        self.paths, self.labels = known.paths, known.labels
        self._members = known.places

    @property
    def reading_order(self) -> Sequence[int]:
        return sorted(
            range(len(self.paths)), key=lambda i: m.offset if (m := self._members[i]) else 0
        )

    def sizes(self) -> list[int]:
        return [-1 if member is None else member.size for member in self._members]

    def read(self, i: int) -> BytesIO:
        if (member := self._members[i]) is None:
            raise missing()
        try:
            with self.archive.open("rb") as file:
                file.seek(member.offset)
                return BytesIO(file.read(member.size))
        except OSError as error:
            raise UnreadableImage(f"truncated or damaged ({error.strerror})") from error


def _members(archive: Path) -> Iterator[tuple[int, Member]]:
    """(file number, place) of every validation image in the archive.

    Raises RequestError on a damaged, compressed or incomplete archive.
    """
    count = 0
    try:
        with tarfile.open(archive, "r:") as tar:
            for member in tar:
                vars(tar)["members"] = []  # it would keep 50,000 headers
                number = number_of(member.name)
                if number is not None and member.isfile():
                    count += 1
                    yield number, Member(member.offset_data, member.size, _wnid(member.name))
    except (tarfile.TarError, EOFError, OSError) as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise RequestError(
            f"the archive {archive} cannot be used after {count:,} images ({said}): {_REMEDY}"
        ) from error


def _wnid(name: str) -> str | None:
    """The WordNet id in a member's name, or its folder if that is one."""
    folder = name.rsplit("/", 2)[-2] if "/" in name else ""
    return wnid_in(name) or (folder if folder in class_index() else None)
