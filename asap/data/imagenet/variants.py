"""Other test sets for ImageNet classifiers: ImageNetV2, ImageNet-A, -R, -Sketch, and ReaL.

- ImageNetV2 (Recht et al. 2019): the folders 0..999 are class positions in timm's order.
- ImageNet-A and -R (Hendrycks et al. 2021): 200 of the 1,000 classes. Only the logits of these 200
  are compared, as the authors and timm do; predictions keep timm's class numbers.
- ImageNet-Sketch (Wang et al. 2019): 50 or 51 sketches of each class, 50,889 files (its README
  states 50,000; others, such as EasyRobust's documentation, count 50,889).
- ReaL (Beyer et al. 2020): new labels of the validation images: none, one or several for each.
  Images without a label are left out; a prediction is correct if it is one of the image's labels.
"""

import json
import pkgutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from asap.data.imagenet.boxes import Boxes
from asap.data.imagenet.names import N_IMAGES, class_index, number_of, synsets
from asap.data.imagenet.validation import title_of, validation_source
from asap.data.images.file_options import FileOptions
from asap.data.images.folder import SCORED, class_of, folder_source
from asap.data.images.image_files import ImageFiles
from asap.data.images.listing import class_folders
from asap.data.images.source import FileSource, Picked
from asap.data.options import Opening
from asap.errors import RequestError
from asap.spec.check import one_of
from asap.spec.paths import PathText

_N_SKETCHES = 50_889
_SKETCH = ("", "images", "sketch", "imagenet-sketch", "imagenet-sketch/sketch")
_V2 = ("", "imagenetv2-matched-frequency-format-val", "imagenetv2-matched-frequency")


@dataclass(frozen=True)
class ImageNetV2Options(FileOptions):
    """ImageNetV2 has no options of its own.

    The path is the folder of the folders 0..999, or its parent. RequestError on anything else.
    """

    def files(self, opening: Opening) -> ImageFiles:
        hint = "give data.path=/data/imagenetv2-matched-frequency-format-val, with folders 0 to 999"
        folder = _below(opening.spec.path, _V2, "ImageNetV2", hint)
        source, _ = folder_source(folder, [str(i) for i in range(len(synsets()))], hint)
        check_count(source, 10_000, "ImageNetV2", folder, opening.spec.strict)
        return ImageFiles(
            source, opening.transform, opening.patch_grid, name="imagenet_v2", classes=synsets(),
            about=f"ImageNetV2, {part_of_set(len(source.labels), 10_000)} of "
            f"{folder.resolve().name}",
        )  # fmt: skip


@dataclass(frozen=True)
class ImageNetAOptions(FileOptions):
    """ImageNet-A: <path>/<wnid>/*.

    scored: "subset" compares the logits of the set's 200 classes, as its authors do; "all" compares
    all 1,000. Raises RequestError on another value, and if the folders are not exactly the 200 of
    the set.
    """

    scored: str = "subset"
    kind: ClassVar[str] = "a"

    def __post_init__(self) -> None:
        one_of("data.scored", self.scored, SCORED)

    def files(self, opening: Opening) -> ImageFiles:
        name, total = {"a": ("ImageNet-A", 7_500), "r": ("ImageNet-R", 30_000)}[self.kind]
        hint = f"give data.path=/data/imagenet-{self.kind}, with the 200 folders <wnid> of {name}"
        folder = _below(opening.spec.path, ("", f"imagenet-{self.kind}"), name, hint)
        wnids = _shipped(f"imagenet_{self.kind}_synsets.txt").decode().split()
        source, _ = folder_source(folder, wnids, hint)
        if lacking := sorted(set(wnids) - set(class_folders(folder))):
            raise RequestError(
                f"{folder} lacks {len(lacking)} of the 200 classes of {name}, such as "
                f"{lacking[0]}: {hint}"
            )
        labels = [class_index()[class_of(path)] for path in source.paths]
        source = FileSource(folder, source.files, source.paths, labels, source.files_left_out)
        check_count(source, total, name, folder, opening.spec.strict)
        some = self.scored == "subset"
        return ImageFiles(
            source, opening.transform, opening.patch_grid,
            name=f"imagenet_{self.kind}", classes=synsets(),
            about=f"{name}, {part_of_set(len(labels), total)}, scored over "
            f"{'its 200' if some else 'all 1,000'} classes",
            scored=tuple(sorted(class_index()[wnid] for wnid in wnids)) if some else None,
        )  # fmt: skip


@dataclass(frozen=True)
class ImageNetROptions(ImageNetAOptions):
    """ImageNet-R, as ImageNet-A."""

    kind: ClassVar[str] = "r"


@dataclass(frozen=True)
class ImageNetRealOptions(FileOptions):
    """The validation set, in any layout, with ReaL labels.

    labels: path of a `real.json`, None for the copy in timm. boxes: as for ImageNet. Raises
    RequestError as `ImageNet` does, and on a wrong labels file.
    """

    labels: PathText | None = None
    boxes: PathText | None = None

    def files(self, opening: Opening) -> ImageFiles:
        whole, differs = validation_source(opening.spec.path, None, opening.spec.strict)
        real, numbers = _real_labels(self.labels), [number_of(path) for path in whole.paths]
        if None in numbers:
            raise RequestError(
                f"{whole.paths[numbers.index(None)]} is not called ILSVRC2012_val_<number>.JPEG: "
                "ReaL labels go by these numbers"
            )
        sets = [tuple(real[number - 1]) for number in numbers if number is not None]
        positions = [i for i, labels_of in enumerate(sets) if labels_of]
        if not positions:
            raise RequestError(
                f"none of the {len(sets):,} images has a ReaL label: use data=imagenet"
            )
        source = Picked(whole, positions)
        source.labels = [sets[i][0] for i in positions]
        return ImageFiles(
            source, opening.transform, opening.patch_grid, name="imagenet_real", classes=synsets(),
            about=f"{title_of(len(sets), differs, 'ReaL labels')}, "
            f"{len(positions):,} of them with a label", differs=differs,
            other_labels=[sets[i][1:] for i in positions],
            boxes=None if self.boxes is None else Boxes.read(self.boxes),
        )  # fmt: skip


@dataclass(frozen=True)
class ImageNetSketchOptions(FileOptions):
    """ImageNet-Sketch has no options of its own.

    The path is the folder of the class folders, or its parent. RequestError on anything else.
    """

    def files(self, opening: Opening) -> ImageFiles:
        hint = "give data.path=/data/imagenet-sketch, with the 1,000 folders <wnid> of sketches"
        folder = _below(opening.spec.path, _SKETCH, "ImageNet-Sketch", hint)
        source, _ = folder_source(folder, synsets(), hint)
        check_count(source, _N_SKETCHES, "ImageNet-Sketch", folder, opening.spec.strict)
        if found := next((path for path in source.paths if number_of(path) is not None), None):
            raise RequestError(f"{folder}/{found} is a validation image and no sketch: {hint}")
        return ImageFiles(
            source, opening.transform, opening.patch_grid,
            name="imagenet_sketch", classes=synsets(),
            about=f"ImageNet-Sketch, {part_of_set(len(source.labels), _N_SKETCHES)}",
        )  # fmt: skip


def _real_labels(path: str | None) -> list[list[int]]:
    """The list of classes of each of the 50,000 validation images."""
    try:
        content = _shipped("imagenet_real_labels.json") if path is None else Path(path).read_bytes()
        found: Any = json.loads(content)
    except (OSError, ValueError) as error:
        raise RequestError(
            f"data.labels={path!r} cannot be read ({error}): give real.json"
        ) from None
    if not isinstance(found, list) or len(found) != N_IMAGES or not all(map(_are_classes, found)):
        raise RequestError(
            f"data.labels={path!r} does not hold {N_IMAGES:,} lists of classes: give real.json"
        )
    return found


def _shipped(name: str) -> bytes:
    """The content of a labels file that comes with timm."""
    return pkgutil.get_data("timm.data", f"_info/{name}") or b""


def _are_classes(labels: Any) -> bool:
    """True if the value is a list of classes. JSON's true and 1.0 equal a class but are refused."""
    if not isinstance(labels, list):
        return False
    return all(type(label) is int and 0 <= label < len(synsets()) for label in labels)


def _below(root: str | None, inside: Sequence[str], name: str, hint: str) -> Path:
    """The last folder of `inside` that exists below `root`, else `root`."""
    if root is None or not root:
        raise RequestError(f"no folder is given for {name}: {hint}")
    places = [Path(root) / folder for folder in reversed(inside)]
    return next((place for place in places if place.is_dir()), Path(root))


def part_of_set(count: int, total: int) -> str:
    """How many images there are, and of how many if it is a part."""
    return f"{count:,} images" if count == total else f"{count:,} of {total:,} images"


def check_count(source: FileSource, total: int, name: str, folder: Path, strict: bool) -> None:
    """With `strict`, RequestError unless all images are there."""
    if strict and len(source.labels) != total:
        raise RequestError(
            f"data.strict=true: {folder} holds {len(source.labels):,} of the {total:,} images of "
            f"{name}: complete it or set it false"
        )
