"""Files that lie among the pictures and are not evaluated: their kinds, counts and description."""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from asap.data.natural_order import natural_key
from asap.records.files_left_out import counts_in_words

log = logging.getLogger("asap")
SECOND, HIDDEN = "second names", "hidden and system files"
LOOSE, ODD = "pictures beside the class folders", "special files"
NOWHERE, CLOSED = "links to nothing", "files that may not be opened"
_SHOWN = 12  # extensions listed one by one

# Files that systems and tools create, in lower case. Names that begin with a dot are added below.
_RUBBISH = frozenset(
    ("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "lost+found", "__macosx",
     "$recycle.bin", "system volume information", "network trash folder",
     "temporary items", "__pycache__", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db",
     "desktop.ini", "icon\r", "picasa.ini", "zbthumbnail.info", "pspbrwse.jbf")
)  # fmt: skip
# Copies left by editors, ExifTool and downloads: unfinished or outdated.
_COPY = re.compile(
    r".*(~|\.bak|\.tmp|\.part|\.partial|\.crdownload|\.sw[op]|\.\w+_original|zone\.identifier)"
    r"|~\$.*|thumbs\.db:.*", re.DOTALL,
)  # fmt: skip
# Folders with copies of everything on the disk: their files are not even counted.
_SNAPSHOTS = frozenset((".zfs", ".snapshot", ".snapshots", "#snapshot", "@recently-snapshot"))


@dataclass
class LeftOut:
    """The files among the pictures that are not evaluated.

    Every file counts once; a folder that is reached by a second name counts as one. counts: by
    extension, or by one of the kinds above. of_class: the same for each class folder. twice:
    (second name, first name) of files and folders with several names.
    """

    counts: Counter[str] = field(default_factory=Counter)
    of_class: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    twice: list[tuple[str, str]] = field(default_factory=list)

    def add(self, path: str, kind: str, count: int = 1) -> None:
        if count == 0:
            return
        self.counts[kind] += count
        if "/" in path or kind == SECOND:
            self.of_class[path.split("/", 1)[0]][kind] += count

    def add_second(self, path: str, first: str) -> None:
        self.add(path, SECOND)
        self.twice.append((path, first))

    @property
    def summary(self) -> dict[str, int]:
        """The counts for a record: the largest first, rare extensions as one entry."""
        return summed(self.counts)

    def tell_second_names(self, place: Path) -> None:
        """Log a warning with the first three second names and the names that are evaluated."""
        if self.twice:
            first = sorted(self.twice, key=lambda pair: natural_key(pair[0]))[:3]
            pairs = ", ".join(f"{second} (of {name})" for second, name in first)
            more = ", ..." if len(self.twice) > len(first) else ""
            log.warning(
                "%s: %s, not evaluated again: %s%s",
                place, counts_in_words({SECOND: len(self.twice)}), pairs, more,
            )  # fmt: skip


def is_rubbish(name: str, folder: bool = False) -> bool:
    """True if a file or folder is hidden, or was created by a system or a tool."""
    lower = name.lower()
    if name.startswith(".") or lower in _RUBBISH:
        return True
    return not folder and _COPY.fullmatch(lower) is not None


def files_in(entry: os.DirEntry[str]) -> int:
    """The number of files in a hidden or system entry; an unreadable folder counts as one."""
    try:
        if not entry.is_dir(follow_symlinks=False) or entry.name.lower() in _SNAPSHOTS:
            return 1
        with os.scandir(entry.path) as inside:
            return sum(map(files_in, inside))
    except OSError:
        return 1


def summed(counts: Mapping[str, int]) -> dict[str, int]:
    """The counts, largest first; of many extensions, the rarest become one entry."""
    ordered = sorted((p for p in counts.items() if p[1]), key=lambda pair: (-pair[1], pair[0]))
    few = [name for name, _ in ordered if name.startswith(".")][:_SHOWN]
    kept = {name: n for name, n in ordered if name in few or not name.startswith(".")}
    rest = sum(n for name, n in ordered if name not in kept)
    return kept | ({"other endings": rest} if rest else {})
