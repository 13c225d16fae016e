"""The names of Kinetics' clips and classes, in whatever way a copy spells them."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache

from asap.data.images.formats import ending_of
from asap.errors import RequestError

# Clips annotated in a split (Kay et al. 2017, as CVDF's annotations list them).
N_CLIPS = {"validation": 19_907, "train": 246_535}
ENDINGS = frozenset(
    (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".flv", ".3gp", ".wmv",
     ".ogv", ".ts")
)  # fmt: skip
# A YouTube id has 11 characters; the times are those of the annotations, in seconds.
_CLIP = re.compile(r"([\w-]{11})_(\d{1,6})_(\d{1,6})", re.ASCII)
_HEAD = re.compile(
    r"(?:(?:id|index|label)[,;\t](?:name|class)|(?:name|class)[,;\t](?:id|index|label))\b.*",
    re.IGNORECASE,
)
_NUMBERED = (
    re.compile(r"(?P<number>\d{1,9})[\s,;:]+(?P<name>[^;]+)(?:;.*)?", re.ASCII),
    re.compile(r"(?P<name>.+?)[\s,;:]+(?P<number>\d{1,9})", re.ASCII),
)


@cache
def kinetics_400() -> tuple[str, ...]:
    """The 400 class names in sorted order, which is the order of published weights."""
    from torchvision.models.video import R3D_18_Weights  # importable after asap

    return tuple(R3D_18_Weights.KINETICS400_V1.meta["categories"])


def is_clip(name: str) -> bool:
    """True if the extension is that of a video."""
    return ending_of(name) in ENDINGS


def clip_of(file: str) -> str:
    """A clip's canonical name: `<YouTube id>_<000123>_<000133>`, else the file name as it is.

    Without folders and extensions; downloaders leave two of them, such as `.mp4.mkv`.
    """
    name = file.rsplit("/", 1)[-1]
    while (ending := ending_of(name)) in ENDINGS:
        name = name[: -len(ending)]
    found = _CLIP.fullmatch(name)
    return clip_name(found[1], int(found[2]), int(found[3])) if found else name


def clip_name(video: str, start: int, end: int) -> str:
    """The canonical name of the part of a YouTube video from `start` to `end`, in seconds."""
    return f"{video}_{start:06d}_{end:06d}"


def video_of(clip: str) -> str:
    """The YouTube id in a canonical name; the name itself if it has no times."""
    found = _CLIP.fullmatch(clip)
    return found[1] if found else clip


def is_clip_name(clip: str) -> bool:
    """True if a name has a whole YouTube id, with times or alone."""
    return re.fullmatch(r"[\w-]{11}", video_of(clip), re.ASCII) is not None


def cleaned(clip: str) -> str:
    """A name as detox leaves it, which mmaction2's guide has run over its folders.

    Dashes and underscores at the beginning go, and of several together one stays, a dash if there
    is one.
    """
    name = clip.lstrip("-_")
    return re.sub(r"[-_]{2,}", lambda run: "-" if "-" in run[0] else "_", name)


@lru_cache(maxsize=4096)  # the folders of many clips
def plain(name: str) -> str:
    """A class name for comparison: "massaging_persons_head" is "massaging person's head".

    Case, quotes, apostrophes, parentheses and the choice between spaces, dashes and underscores do
    not count, also where one stands for an apostrophe, as in "massaging_person-s_head".
    """
    folded = unicodedata.normalize("NFKC", name).casefold()
    words = re.sub(r"['\u2018\u2019`\u00b4]", "", folded)
    return re.sub(r" s\b", "s", " ".join(re.findall(r"[^\W_]+", words)))


def _unnumbered(lines: Sequence[str]) -> Sequence[str]:
    """The names in lines such as `0,abseiling` or `abseiling 0`, by number; else the lines.

    Text after a second semicolon is left out. Names that are equal without their numbers keep them,
    and so do names such as "Boeing 737", whose numbers do not count the lines.
    """
    rows = lines[1:] if lines and _HEAD.fullmatch(lines[0]) else lines
    for form in _NUMBERED:
        found = [one for row in rows if (one := form.fullmatch(row))]
        name_of = {int(one["number"]): one["name"].strip() for one in found}
        count = len({plain(name) for name in name_of.values()})
        if not len(rows) == len(found) == count > 1:
            continue
        if set(name_of) == set(range(1, count + 1)):
            raise RequestError(
                f"data.classes numbers {name_of[1]!r} 1: number the classes from 0, as labels are"
            )
        if set(name_of) == set(range(count)):
            return [name_of[number] for number in range(count)]
    return lines


def _refuse_spellings(names: Sequence[str]) -> None:
    """RequestError if two names are spellings of one class."""
    first: dict[str, str] = {}
    for name in names:
        if plain(name) in first or not plain(name):
            raise RequestError(
                f"data.classes lists {first.get(plain(name), name)!r} and {name!r}, which are one "
                "class: leave one"
            )
        first[plain(name)] = name


@dataclass(frozen=True)
class Classes:
    """The classes in order; a class is found by any spelling of its name.

    given: True if the user listed them with `data.classes`. own: True if that list is another one
    than Kinetics-400's. RequestError if two names are spellings of one class.
    """

    names: Sequence[str]
    own: bool = False
    given: bool = False

    def __post_init__(self) -> None:
        _refuse_spellings(self.names)

    @cached_property
    def _label_of(self) -> dict[str, int]:
        return {plain(name): label for label, name in enumerate(self.names)}

    def label(self, name: str) -> int | None:
        """The position of a class, None if it is none."""
        return self._label_of.get(plain(name))

    def folder_label(self, file: str) -> int | None:
        """The class of the nearest folder in a relative path that is named like one, if any."""
        folders = reversed(file.split("/")[:-1])
        return next((label for one in folders if (label := self.label(one)) is not None), None)

    def of(self, names: Sequence[str]) -> "Classes":
        """The classes that a user lists: known ones as they are spelled here, in the user's order.

        A header and numbers that count the lines from 0, as in `0,abseiling`, are left out.
        RequestError if they count from 1, or known classes otherwise.
        """
        rows = _unnumbered(names)
        _refuse_spellings(rows)
        numbered = {
            found["name"]: row for row in rows if self.label(row) is None
            for form in _NUMBERED
            if (found := form.fullmatch(row)) and self.label(found["name"]) is not None
        }  # fmt: skip
        if 2 * len(numbered) > len(rows) > 1:
            raise RequestError(
                f"data.classes has lines such as {next(iter(numbered.values()))!r}, whose numbers "
                "do not count all lines from 0 without a gap: number all of them so, or leave the "
                "numbers out, and a header other than id,name"
            )
        own = [name if (at := self.label(name)) is None else self.names[at] for name in rows]
        return Classes(own, own != list(self.names), given=True)

    @property
    def which(self) -> str:
        """The set of classes, for messages: "the 400 classes of Kinetics-400"."""
        of = "data.classes" if self.own else "Kinetics-400"
        return f"the {len(self.names):,} classes of {of}"
