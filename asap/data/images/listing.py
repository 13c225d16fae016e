"""Lists the pictures in a folder, each once, and counts the files that are left out.

Real names come before symlinks: a link to a file or folder that is also reached by another name is
a second name for it. A folder is visited once, however many links lead to it or to a parent of it.
"""

import os
import stat
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from asap.data.images.entries import Key, entries, key_of, of_a_tool
from asap.data.images.formats import NO_ENDING, PICTURES, FileKind, ending_of
from asap.data.images.left_out import (
    CLOSED,
    HIDDEN,
    LOOSE,
    NOWHERE,
    ODD,
    LeftOut,
    files_in,
)
from asap.data.natural_order import natural_key
from asap.errors import RequestError


@dataclass(frozen=True)
class Listing:
    """The files found. files: relative paths with "/", in natural order."""

    files: list[str]
    left_out: LeftOut


def list_pictures(root: Path, only: Collection[str] | None = None) -> Listing:
    """The pictures in the sub-folders of `root`, at any depth.

    only: the class folders to list, None for all. Raises RequestError on a folder that is not
    readable and on a class folder that is a dangling link.
    """
    return _Walk(root, only=only).run()


def list_folder(folder: Path, wanted: Callable[[str], bool]) -> Listing:
    """The pictures directly in a folder whose names are `wanted`. RequestError as above."""
    return _Walk(folder, flat=True).run_flat(wanted)


def list_files(folder: Path, kind: FileKind) -> Listing:
    """The files of a kind in a folder and below it, at any depth. RequestError as above."""
    return _Walk(folder, everywhere=True, kind=kind).run()


def class_folders(root: Path) -> list[str]:
    """Names of the sub-folders of `root` in natural order, without those of file systems and tools
    and without links to other sub-folders or to `root`. RequestError as above.
    """
    return _Walk(root).classes()


class _Walk:
    """One pass over a folder: first without links, then through those that lead to new folders.

    flat: only files directly in the folder count. everywhere: these too; else only files in its
    sub-folders, the classes.
    """

    def __init__(
        self,
        root: Path,
        flat: bool = False,
        everywhere: bool = False,
        only: Collection[str] | None = None,
        kind: FileKind = PICTURES,
    ):
        self.root, self.only, self.kind = str(root), only, kind
        self.flat, self.everywhere = flat, everywhere
        self.left = LeftOut()
        self.others: dict[str, str] = {}  # class folders not in `only`, by real path
        self.folders: dict[Key, str] = {}  # folders visited or claimed by a link, with their names
        self.links: list[str] = []  # not yet followed
        self.file_links: list[tuple[str, os.stat_result]] = []
        self.found: list[str] = []  # pictures
        self.first: dict[Key, str] = {}  # the first name of every picture

    def classes(self) -> list[str]:
        self._claim("", os.stat(self.root))  # noqa: PTH116
        inside = [entry for entry in entries(self.root) if not of_a_tool(entry)]
        links = [e.name for e in inside if e.is_symlink() and os.path.isdir(e.path)]  # noqa: PTH112
        names = [
            e.name for e in inside
            if not e.is_symlink() and e.is_dir() and self._claim(e.name, e.stat())
        ]  # fmt: skip
        links.sort(key=self._precedence)
        names += [n for n in links if self._leads_on(n, os.stat(self._at(n)))]  # noqa: PTH116
        return sorted(names, key=natural_key)

    def run(self) -> Listing:
        self._claim("", os.stat(self.root))  # noqa: PTH116
        self._visit("")
        in_order = len(self.found)
        while self.links:
            self._follow()
        self._take_links()
        if len(self.found) > in_order:
            self.found.sort(key=natural_key)
        return Listing(self.found, self.left)

    def run_flat(self, wanted: Callable[[str], bool]) -> Listing:
        real: list[tuple[str, os.DirEntry[str]]] = []
        for entry in entries(self.root):
            if of_a_tool(entry):
                self.left.add(entry.name, HIDDEN, int(not entry.is_dir(follow_symlinks=False)))
            elif not wanted(entry.name):
                continue  # labels, archives and class folders may lie beside the pictures
            elif entry.is_symlink():
                self._sort_out_link(entry.name, [])
            elif not entry.is_dir():
                real.append((entry.name, entry))
        self._take(real)
        self._take_links()
        return Listing(sorted(self.found, key=natural_key), self.left)

    def _visit(self, inside: str) -> None:
        """Go through the real files and folders at a relative path; links are kept for later."""
        real: list[tuple[str, os.DirEntry[str]]] = []
        todo = [inside]
        while todo:
            inside = todo.pop()
            for entry in entries(self._at(inside)):
                path = f"{inside}/{entry.name}" if inside else entry.name
                if of_a_tool(entry):
                    self.left.add(path, HIDDEN, files_in(entry))
                elif not inside and self._is_other_class(entry):
                    self.others[os.path.realpath(entry.path)] = path
                elif entry.is_symlink():
                    self.links.append(path)
                elif entry.is_dir():
                    if self._claim(path, entry.stat()):
                        todo.append(path)
                elif inside or self.everywhere:
                    real.append((path, entry))
                elif self.kind.meant(entry.name):
                    self.left.add(path, LOOSE)
        self._take(real)

    def _is_other_class(self, entry: os.DirEntry[str]) -> bool:
        return self.only is not None and entry.name not in self.only and entry.is_dir()

    def _claim(self, path: str, found: os.stat_result) -> bool:
        """True if a folder is to be visited under this name; else it is noted as a second name."""
        key = key_of(self._at(path), found, folder=True)
        if (first := self.folders.setdefault(key, path)) == path:
            return True
        self.left.add_second(path, first or ".")
        return False

    def _follow(self) -> None:
        """Visit the targets of links. All are claimed before any is visited, so that a link to a
        folder and another link to a folder inside it each keep their target.
        """
        links, self.links = sorted(self.links, key=self._precedence), []
        folders: list[str] = []
        for path in links:
            self._sort_out_link(path, folders)
        for path in folders:
            self._visit(path)

    def _precedence(self, path: str) -> tuple[bool, int, int, tuple[list[int | str], str]]:
        """Sort key: class folders first; links to real files before links to links."""
        depth = path.count("/")
        return depth > 0, self._hops(path), depth, natural_key(path)

    def _sort_out_link(self, path: str, folders: list[str]) -> None:
        loose = "/" not in path and not self.flat and not self.everywhere
        if other := self._in_other_class(path):
            self.left.add_second(path, other)
            return
        try:
            found = os.stat(self._at(path))  # noqa: PTH116
        except OSError:
            found = None
        if found is not None and stat.S_ISDIR(found.st_mode):
            if not self.flat and self._leads_on(path, found):
                folders.append(path)
        elif loose and self.kind.meant(path):
            self.left.add(path, LOOSE)
        elif found is None:
            self._take_dangling(path)
        elif not loose:
            self.file_links.append((path, found))

    def _in_other_class(self, path: str) -> str | None:
        """The class folder outside `only` that a link leads into, if any."""
        if not self.others:
            return None
        target = Path(os.path.realpath(self._at(path)))
        found = (self.others.get(str(place)) for place in (target, *target.parents))
        return next((name for name in found if name is not None), None)

    def _leads_on(self, path: str, found: os.stat_result) -> bool:
        """True if a link leads to a folder that has no other name here."""
        if key_of(self._at(path), found, folder=True) not in self.folders and (
            above := self._back_above(path)
        ):
            self.left.add_second(path, above)
            return False
        return self._claim(path, found)

    def _take_dangling(self, path: str) -> None:
        """List a dangling link as an unreadable picture if its extension is that of a picture."""
        if self.kind.meant(path):
            self.found.append(path)
        elif "/" not in path and ending_of(path) == "":
            target = os.readlink(self._at(path))  # noqa: PTH115
            raise RequestError(
                f"{self._at(path)} is a link to {target}, which is not there: bring it back, or "
                "remove the link if it is not a class"
            )
        elif "/" in path:
            self.left.add(path, NOWHERE)

    def _back_above(self, path: str) -> str | None:
        """The target of a link, if the data set or the link itself lies inside it."""
        target = Path(os.path.realpath(self._at(path)))
        here = Path(os.path.realpath(self._at(path.rpartition("/")[0])))
        root = Path(os.path.realpath(self.root))
        return str(target) if any(f.is_relative_to(target) for f in (here, root)) else None

    def _take(self, real: list[tuple[str, os.DirEntry[str]]]) -> None:
        """Take the pictures among real files; of several hard links, the first name."""
        for path, entry in sorted(real, key=lambda pair: natural_key(pair[0])):
            try:
                found = entry.stat(follow_symlinks=False)
            except OSError:
                found = None
            self._take_one(path, found)

    def _take_links(self) -> None:
        """Take the pictures among links to files that have no other name here."""
        order = {path: (self._hops(path), natural_key(path)) for path, _ in self.file_links}
        for path, found in sorted(self.file_links, key=lambda link: order[link[0]]):
            self._take_one(path, found)

    def _take_one(self, path: str, found: os.stat_result | None) -> None:
        """Sort in one file: a picture, a second name of one, or neither."""
        if found is not None and not stat.S_ISREG(found.st_mode):
            self.left.add(path, ODD)
            return
        key = path if found is None else key_of(self._at(path), found)
        if first := self.first.get(key):
            self.left.add_second(path, first)
        elif kind := self._no_picture(path):
            self.left.add(path, kind)
        else:
            self.first[key] = path
            self.found.append(path)

    def _no_picture(self, path: str) -> str | None:
        """The kind under which a file is left out; None for a picture."""
        if self.kind.meant(path):
            return None
        try:
            return None if self.kind.holds(self._at(path)) else _printable(ending_of(path))
        except OSError:
            return CLOSED

    def _hops(self, path: str) -> int:
        """The number of links to follow from a name to a real file."""
        at, count = self._at(path), 0
        while os.path.islink(at) and count < 40:  # noqa: PTH114  (Linux's limit)
            at = os.path.join(os.path.dirname(at), os.readlink(at))  # noqa: PTH115, PTH118, PTH120
            count += 1
        return count

    def _at(self, path: str) -> str:
        return os.path.join(self.root, path) if path else self.root  # noqa: PTH118


def _printable(ending: str) -> str:
    return os.fsencode(ending).decode("utf-8", "backslashreplace") if ending else NO_ENDING
