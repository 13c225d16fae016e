"""Labels and canonical order for validation images that are stored without class folders."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

from asap.data.imagenet.devkit import devkit_labels, find_devkit
from asap.data.imagenet.labels_file import find_labels_file, read_labels_file
from asap.data.imagenet.names import N_IMAGES, class_index, file_name, number_of
from asap.data.natural_order import in_order
from asap.errors import RequestError

Place = TypeVar("Place")
_REMEDY = (
    "put ILSVRC2012_devkit_t12.tar.gz or a labels file with lines such as "
    "'ILSVRC2012_val_00000001.JPEG n01751748' beside the images, or give it as data.labels"
)


@dataclass(frozen=True)
class Labels:
    """WordNet ids by file number. `where`: the name of their file, for messages.

    whole: True if these are the labels of the whole validation set, of which any part may be
    stored. False if they list exactly the images that must exist.
    """

    wnids: Mapping[int, str] = field(default_factory=dict)
    where: str = "the devkit and labels file, which are not there"
    whole: bool = True

    @classmethod
    def read(cls, path: Path) -> "Labels":
        """Read the labels of a devkit (a folder or an archive) or of a labels file."""
        if path.is_dir() or path.name.endswith((".tar.gz", ".tgz")):
            return cls(devkit_labels(path), path.name)
        wnids = read_labels_file(path)
        return cls(wnids, path.name, whole=len(wnids) >= N_IMAGES)

    @property
    def listed(self) -> Iterable[int]:
        """File numbers of the images that must exist."""
        return () if self.whole else self.wnids


@dataclass(frozen=True)
class Arranged(Generic[Place]):
    """Images in canonical order. The place of an image that is listed but missing is None."""

    paths: Sequence[str]
    labels: Sequence[int]
    places: Sequence[Place | None]


def find_labels(folders: list[Path], given: str | None) -> Labels:
    """Labels from the path `given`; without one, from a devkit in `folders`, else a labels file.

    Raises RequestError if the given path does not exist.
    """
    if given is None:
        found = find_devkit(folders) or find_labels_file(folders)
        return Labels() if found is None else Labels.read(found)
    if not Path(given).exists():
        raise RequestError(f"data.labels={given!r} is not there: {_REMEDY}")
    return Labels.read(Path(given))


def arrange(places: Mapping[int, Place], labels: Labels, own: Mapping[int, str]) -> Arranged[Place]:
    """Canonical paths, classes and places of images that are identified by file numbers.

    `own`: WordNet ids that are part of the stored file names; they take precedence over `labels`.
    Raises RequestError on an image without a label and on an id outside the 1,000 classes.
    """
    wnids = {**labels.wnids, **own}
    if unlabelled := sorted(places.keys() - wnids.keys()):
        raise RequestError(
            f"{len(unlabelled):,} of {len(places):,} images have no label in {labels.where}, the "
            f"first is {file_name(unlabelled[0])}: {_REMEDY}"
        )
    numbers = sorted(places.keys() | set(labels.listed))
    if unknown := [number for number in numbers if wnids[number] not in class_index()]:
        raise RequestError(
            f"{labels.where} gives {file_name(unknown[0])} the class {wnids[unknown[0]]!r}, which "
            f"is not one of the 1,000 classes: {_REMEDY}"
        )
    paths = [f"{wnids[number]}/{file_name(number)}" for number in numbers]
    order = in_order(paths)
    return Arranged(
        [paths[i] for i in order],
        [class_index()[wnids[numbers[i]]] for i in order],
        [places.get(numbers[i]) for i in order],
    )


def by_number(found: Iterable[tuple[int, Place]], where: Path) -> dict[int, Place]:
    """The places by file number.

    Raises RequestError if a number occurs twice or is not that of a validation image.
    """
    places: dict[int, Place] = {}
    for number, place in found:
        if not 1 <= number <= N_IMAGES:
            raise RequestError(
                f"{where} holds {file_name(number)}, and the validation images are numbered from "
                f"1 to {N_IMAGES:,}: take it away"
            )
        if number in places:
            raise RequestError(f"{where} holds {file_name(number)} twice: leave one of them")
        places[number] = place
    return places


def refuse_twice(paths: Iterable[str], where: Path) -> None:
    """Raise RequestError as `by_number` does. Files with other names have no number to check."""
    by_number(((n, path) for path in paths if (n := number_of(path)) is not None), where)
