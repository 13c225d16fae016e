"""What lies among pictures and is not evaluated: of which kind, how much, and how it is said."""

import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from asap.data.natural_order import natural_key
from asap.records.files_left_out import said

log = logging.getLogger("asap")
SECOND, HIDDEN = "second names", "hidden and system files"
LOOSE, ODD = "pictures beside the class folders", "special files"
NOWHERE, CLOSED = "links to nothing", "files that may not be opened"
_SHOWN = 12  # endings told one by one

# What file systems and tools leave beside files, in lower case. Names with a dot come in addition.
_RUBBISH = frozenset(
    ("@eadir", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "lost+found", "__macosx",
     "$recycle.bin", "system volume information", "network trash folder",
     "temporary items", "__pycache__", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db",
     "desktop.ini", "icon\r", "picasa.ini", "zbthumbnail.info", "pspbrwse.jbf")
)  # fmt: skip
# Copies that editors, ExifTool and downloads leave: not finished, or not valid any more.
_COPY = re.compile(
    r".*(~|\.bak|\.tmp|\.part|\.partial|\.crdownload|\.sw[op]|\.\w+_original|zone\.identifier)"
    r"|~\$.*|thumbs\.db:.*", re.DOTALL,
)  # fmt: skip
# Copies of all else on the disk: not even counted.
_SNAPSHOTS = frozenset((".zfs", ".snapshot", ".snapshots", "#snapshot", "@recently-snapshot"))


@dataclass
class LeftOut:
    """What lies among the pictures and is not evaluated. Every file counts once, a folder that is
    reached by a second name as one.

    counts: by ending, or by one of the kinds above. of_class: the same for each class folder.
    twice: (second name, first name) of what has several.
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
        """The counts for a record: the most frequent first, rare endings in one."""
        return summed(self.counts)

    def tell_second_names(self, place: Path) -> None:
        """Log the first of them, with the names that are evaluated."""
        if self.twice:
            first = sorted(self.twice, key=lambda pair: natural_key(pair[0]))[:3]
            pairs = ", ".join(f"{second} (of {name})" for second, name in first)
            more = ", ..." if len(self.twice) > len(first) else ""
            log.warning(
                "%s: %s, not evaluated again: %s%s",
                place, said({SECOND: len(self.twice)}), pairs, more,
            )  # fmt: skip


def is_rubbish(name: str, folder: bool = False) -> bool:
    """Whether a file or folder is hidden or is none of the user's: left by a system or a tool."""
    lower = name.lower()
    if name.startswith(".") or lower in _RUBBISH:
        return True
    return not folder and _COPY.fullmatch(lower) is not None


def files_in(entry: os.DirEntry[str]) -> int:
    """How many files rubbish is; what may not be read of it counts as one."""
    try:
        if not entry.is_dir(follow_symlinks=False) or entry.name.lower() in _SNAPSHOTS:
            return 1
        with os.scandir(entry.path) as inside:
            return sum(map(files_in, inside))
    except OSError:
        return 1


def summed(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts, the largest first; of many endings, those that do not count most become one."""
    ordered = sorted((p for p in counts.items() if p[1]), key=lambda pair: (-pair[1], pair[0]))
    few = [name for name, _ in ordered if name.startswith(".")][:_SHOWN]
    kept = {name: n for name, n in ordered if name in few or not name.startswith(".")}
    rest = sum(n for name, n in ordered if name not in kept)
    return kept | ({"other endings": rest} if rest else {})
