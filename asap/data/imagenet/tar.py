"""The official archive ILSVRC2012_img_val.tar, read in place."""

import tarfile
from collections.abc import Iterator, Sequence
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from posixpath import dirname, join, normpath
from typing import BinaryIO, NamedTuple

from asap.data.imagenet.arrange import Labels, arrange, by_number
from asap.data.imagenet.names import class_index, number_of, wnid_in
from asap.data.images.content import NOTHING, Advance, Stored, hashes_of, split
from asap.data.images.decoding import UnreadableImage
from asap.data.images.formats import NO_ENDING, ending_of
from asap.data.images.left_out import HIDDEN, ODD, LeftOut, is_rubbish
from asap.data.images.source import missing
from asap.errors import RequestError, one_line

_REMEDY = "give the complete, uncompressed ILSVRC2012_img_val.tar"


class Member(NamedTuple):
    """Position and size of an image in the archive, in bytes, and the WordNet id in its name.

    A dangling link has size -1. `wnid` is None if the name has no WordNet id.
    """

    offset: int
    size: int
    wnid: str | None


class TarSource:
    """Images of an uncompressed archive, in canonical order. Its headers are read once.

    Every read opens the archive. That takes microseconds, and no open file is shared between worker
    processes.
    """

    def __init__(self, archive: Path, labels: Labels):
        self.archive = archive
        headers = _Headers(archive)
        members = by_number([*headers.images(), *headers.linked()], archive)
        if not members:
            raise RequestError(f"{archive} holds no image ILSVRC2012_val_*.JPEG: {_REMEDY}")
        own = {number: m.wnid for number, m in members.items() if m.wnid}
        known = arrange(members, labels, own)
        self.paths, self.labels = known.paths, known.labels
        headers.left_out.tell_second_names(archive)
        self.files_left_out = headers.left_out.summary
        self._members = known.places

    @property
    def reading_order(self) -> Sequence[int]:
        return sorted(
            range(len(self.paths)), key=lambda i: m.offset if (m := self._members[i]) else 0
        )

    def sizes(self) -> list[int]:
        return [-1 if member is None else member.size for member in self._members]

    def hashes(self, positions: Sequence[int], index: Path | None) -> list[bytes]:
        there = {m for m in self._members if m is not None and m.size >= 0}
        members = sorted(there, key=lambda member: member.offset)

        def read(path: str, advance: Advance) -> bytes:
            with Path(path).open("rb") as file:
                return b"".join(_hash(file, member, advance) for member in members)

        places = sha256(str([(m.offset, m.size) for m in members]).encode()).digest()
        (joined,) = hashes_of([Stored(str(self.archive.absolute()), read, places)], index)
        found = dict(zip(members, split(joined), strict=False))
        chosen = (self._members[i] for i in positions)
        return [NOTHING if m is None else found.get(m, NOTHING) for m in chosen]

    def read(self, i: int) -> BytesIO:
        if (member := self._members[i]) is None or member.size < 0:
            raise missing()
        try:
            with self.archive.open("rb") as file:
                file.seek(member.offset)
                return BytesIO(file.read(member.size))
        except OSError as error:
            raise UnreadableImage(f"truncated or damaged ({error.strerror})") from error

    def store(self, i: int) -> Path:
        return self.archive


def _hash(file: BinaryIO, member: Member, advance: Advance) -> bytes:
    """The hash of an image; `NOTHING` if it cannot be read, so that the others still count."""
    try:
        file.seek(member.offset)
        content = file.read(member.size)
    except OSError:
        return NOTHING
    advance(len(content))
    return sha256(content).digest()


class _Headers:
    """The headers of an archive: validation images, links to them, and other members."""

    def __init__(self, archive: Path):
        self.archive = archive
        self.left_out = LeftOut()
        self._links: list[tuple[int, str, str]] = []  # number, name, name of the link's target
        self._images: dict[str, int] = {}  # image number by member name
        self._others: dict[str, Member] = {}  # other files, by name; links may lead to them

    def images(self) -> Iterator[tuple[int, Member]]:
        """(file number, place) of every validation image stored as a file.

        Raises RequestError on a damaged, compressed or incomplete archive.
        """
        try:
            with tarfile.open(self.archive, "r:") as tar:
                for member in tar:
                    vars(tar)["members"] = []  # otherwise tarfile keeps 50,000 headers in memory
                    if (image := self._sorted(member)) is not None:
                        yield image
            _refuse_more(self.archive, tar.offset)
        except (tarfile.TarError, EOFError, OSError) as error:
            said = one_line(error)
            count = len(self._images)
            raise RequestError(
                f"the archive {self.archive} cannot be used after {count:,} images ({said}): "
                f"{_REMEDY}"
            ) from error

    def _sorted(self, member: tarfile.TarInfo) -> tuple[int, Member] | None:
        """The member if it is an image. Links are kept for `linked`, other members counted."""
        name = normpath(member.name)
        number = number_of(name)
        if member.isdir():
            return None
        if any(map(is_rubbish, name.split("/"))):
            self.left_out.add(name, HIDDEN)
        elif number is not None and (member.issym() or member.islnk()):
            near = dirname(name) if member.issym() else ""
            self._links.append((number, name, normpath(join(near, member.linkname))))
        elif number is not None and member.isfile():
            self._images[name] = number
            return number, Member(member.offset_data, member.size, _wnid(name))
        elif member.isfile():
            self._others[name] = Member(member.offset_data, member.size, None)
            self.left_out.add(name, ending_of(name) or NO_ENDING)
        else:
            self.left_out.add(name, ODD)
        return None

    def linked(self) -> Iterator[tuple[int, Member]]:
        """(file number, place) of images that are stored as links to files with other names.

        Each file is used once. A dangling link is listed as an image that cannot be read. Call this
        after `images`, which collects the links.
        """
        leads = {name: target for _, name, target in self._links}
        for number, name, target in sorted(self._links, key=lambda link: link[:2]):
            for _ in range(len(leads)):  # a link to a link
                target = leads.get(target, target)
            if target in self._images:
                self.left_out.add_second(name, target)
                continue
            place = self._others.get(target, Member(0, -1, None))
            if target in self._others:
                self._images[target] = number
                self.left_out.counts[ending_of(target) or NO_ENDING] -= 1
            yield number, place._replace(wnid=_wnid(name))


def _refuse_more(archive: Path, end: int) -> None:
    """OSError unless only the end-of-archive mark follows at byte `end`, where the headers end.

    `tarfile` mistakes a damaged header for the end of the archive, and a file that was cut off
    between two members for a complete one.
    """
    with archive.open("rb") as file:
        file.seek(end)
        rest = file.read(tarfile.BLOCKSIZE)
        if len(rest) < tarfile.BLOCKSIZE:
            raise OSError("it was cut off")
        while rest:
            if rest.strip(b"\0"):
                raise OSError(f"its header at byte {end:,} is damaged, or another archive follows")
            rest = file.read(1 << 20)


def _wnid(name: str) -> str | None:
    """The WordNet id in a member's file name, else in its folder's name, else None."""
    folder = name.rsplit("/", 2)[-2] if "/" in name else ""
    return wnid_in(name) or (folder if folder in class_index() else None)
