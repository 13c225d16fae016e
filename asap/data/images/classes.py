"""Maps class folders to the classes of the model.

The classes are the names of the folders in the order of torchvision's `ImageFolder` (`sorted`); or
a list given by the user (`data.classes`); or, if the folders are named by WordNet ids and the model
has ImageNet's 1,000 classes, those classes.
"""

import logging
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from asap.data.imagenet.names import class_index, synsets
from asap.data.natural_order import natural_key
from asap.errors import RequestError

log = logging.getLogger("asap")
ORDERS = ("sorted", "natural")


@dataclass(frozen=True)
class ClassMap:
    """The model's classes in order, and the position among them of every folder to be read.

    imagenet: True if the folders are some of ImageNet's 1,000 classes. left_out: folders that are
    not read because the list of classes does not contain them.
    """

    names: tuple[str, ...]
    label_of: Mapping[str, int]
    imagenet: bool = False
    left_out: tuple[str, ...] = ()


def by_name(folders: Sequence[str], order: str, outputs: int | None, where: Path) -> ClassMap:
    """Use the folders' names as the classes, in `order`."""
    return _on_outputs(in_order(folders, order, where), outputs)


def by_list(
    folders: Sequence[str], classes: Sequence[str], outputs: int | None, where: Path
) -> ClassMap:
    """Use the given list of the model's classes, in its order.

    Folders outside the list are left out, and classes may have no folder; both are logged. Raises
    RequestError if no class has a folder, if two folders belong to one class, and if the names of a
    class without a folder and of a folder without a class differ only in case, spaces or
    punctuation: they may be meant to be the same.
    """
    listed = {**{_composed(name): name for name in classes}, **{name: name for name in classes}}
    class_of = {name: listed.get(name, listed.get(_composed(name))) for name in folders}
    read = {folder: name for folder, name in class_of.items() if name is not None}
    left_out = tuple(folder for folder in folders if folder not in read)
    counts = Counter(read.values())
    absent = [name for name in classes if name not in counts]
    if not read:
        raise RequestError(
            f"none of the {len(classes):,} classes of data.classes, such as {classes[0]!r}, is a "
            f"folder of {where}, which has {_some(folders)}: list the names of its folders"
        )
    if twice := [name for name, count in counts.items() if count > 1]:
        raise RequestError(
            f"{where} has two folders {twice[0]!r}, whose accents are stored in different ways: "
            "rename one of them"
        )
    _refuse_alike(absent, left_out, where)
    _tell(left_out, absent, where)
    found = _on_outputs(classes, outputs)
    label_of = {folder: found.label_of[name] for folder, name in read.items()}
    return replace(found, label_of=label_of, left_out=left_out)


def _tell(left_out: Sequence[str], absent: Sequence[str], where: Path) -> None:
    if left_out:
        what = "1 folder is" if len(left_out) == 1 else f"{len(left_out):,} folders are"
        log.info("%s: %s left out, not listed in data.classes: %s", where, what, _some(left_out))
    if absent:
        log.info(
            "%s has no folder for %d classes of data.classes: %s", where, len(absent), _some(absent)
        )


def in_order(names: Sequence[str], order: str, where: Path) -> list[str]:
    """Class names sorted by their characters ("sorted") or also by numbers in them ("natural").

    If the two orders differ and "sorted" is used, a warning is logged: weights that were trained in
    the other order would be scored against wrong labels.
    """
    if order not in ORDERS:
        raise RequestError(f"data.class_order={order!r} is not possible: use {' or '.join(ORDERS)}")
    plain, natural = sorted(names), sorted(names, key=natural_key)
    if order == "natural":
        return natural
    if plain != natural:
        first, second = next(
            pair for pair in zip(plain, natural, strict=True) if len(set(pair)) > 1
        )
        log.warning(
            "%s: the classes are in sorted order of the folders' names, as torchvision's "
            "ImageFolder has them: %r comes before %r. In natural order it would be the other way "
            "round. If the weights were trained in another order, give data.class_order=natural or "
            "data.classes=<file of class names>",
            where, first, second,
        )  # fmt: skip
    return plain


def _on_outputs(names: Sequence[str], outputs: int | None) -> ClassMap:
    """Map the names to the model's outputs.

    Usually the names are all of the model's classes, in order. But if the model has 1,000 outputs
    and the names are fewer and all WordNet ids of ImageNet-1k, they are a subset of ImageNet's
    classes.
    """
    if outputs == len(synsets()) != len(names) and all(name in class_index() for name in names):
        return ClassMap(synsets(), {name: class_index()[name] for name in names}, imagenet=True)
    return ClassMap(tuple(names), {name: label for label, name in enumerate(names)})


def _refuse_alike(absent: Sequence[str], left_out: Sequence[str], where: Path) -> None:
    folded = {_plain(name): name for name in left_out}
    for name in absent:
        first = re.split(r"[\s,;:]", name, maxsplit=1)[0]  # "n01440764 tench, Tinca tinca"
        like = folded.get(_plain(name)) or (folded.get(first) if first in class_index() else None)
        if like is not None:
            raise RequestError(
                f"data.classes lists {name!r}, and {where} has the folder {like!r}: write both "
                "in the same way"
            )


def _plain(name: str) -> str:
    """A name in a form for comparison.

    Ignores case, invisible characters, the choice between spaces, dashes and underscores, and
    punctuation around the name.
    """
    folded = unicodedata.normalize("NFKC", name).casefold()
    seen = "".join(c for c in folded if unicodedata.category(c) != "Cf")
    return re.sub(r"(?<=\w)[\s_-]+(?=\w)", " ", seen.strip(" \t\"'`,;:./\\"))


def _composed(name: str) -> str:
    """The name in Unicode's NFC form: file systems and editors encode accents in two ways."""
    return unicodedata.normalize("NFC", name)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:3])
    return f"{shown}, ..." if len(names) > 3 else shown
