"""ImageNet-1k: the validation set in any of its four layouts, and training images.

Other pictures in the same layout (see original.py) are evaluated, but under another title.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asap.data.base import PatchGrid, Transform
from asap.data.imagenet.boxes import Boxes
from asap.data.imagenet.layouts import LAYOUTS, open_layout, recognise
from asap.data.imagenet.names import N_IMAGES, file_name, number_of, synsets
from asap.data.imagenet.original import differences
from asap.data.images.file_options import FileOptions
from asap.data.images.folder import class_of, folder_source
from asap.data.images.image_files import ImageFiles
from asap.data.images.source import Source
from asap.data.options import Opening
from asap.errors import RequestError
from asap.spec.check import one_of
from asap.spec.paths import PathText

log = logging.getLogger("asap")
IMAGES_PER_CLASS = 50
_FEW = 0.01  # of the whole set; if fewer images are absent, that is an accident and not a subset


@dataclass(frozen=True)
class ImageNetOptions(FileOptions):
    """Validation images with `labels` and `boxes`, see `ImageNet`; or, as split, training images,
    which have neither. Raises RequestError on another split.
    """

    split: str = "evaluation"
    labels: PathText | None = None
    boxes: PathText | None = None

    def __post_init__(self) -> None:
        one_of("data.split", self.split, ("evaluation", "train"))
        for name, path in (("labels", self.labels), ("boxes", self.boxes)):
            if path is not None and self.split == "train":
                raise RequestError(
                    f"data.{name}={path!r} is not for data.split=train: leave it null"
                )

    def files(self, opening: Opening) -> ImageFiles:
        path, transform = opening.spec.path, opening.transform
        if self.split == "train":
            return _training(path, transform)
        return ImageNet(
            path, transform, opening.patch_grid,
            labels=self.labels, boxes=self.boxes, strict=opening.spec.strict,
        )  # fmt: skip


class ImageNet(ImageFiles):
    """The validation set or a part of it, in timm's class order; the description says which part.

    labels: path of a devkit or labels file. boxes: path of localisation boxes, see `Boxes`. strict:
    refuse a part of the set, listed files that do not exist, and pictures that are not the
    published ones. Raises `RequestError`, which names the variable IMAGENET and the layouts it may
    point to.
    """

    def __init__(
        self,
        root: str | Path | None,
        transform: Transform,
        patch_grid: PatchGrid | None = None,
        *,
        labels: str | None = None,
        boxes: str | None = None,
        strict: bool = False,
    ):
        source, differs = validation_source(root, labels, strict)
        super().__init__(
            source, transform, patch_grid, name="imagenet", classes=synsets(),
            about=title_of(len(source.labels), differs), differs=differs,
            boxes=None if boxes is None else Boxes.read(boxes),
        )  # fmt: skip


def _training(root: str | None, transform: Transform) -> ImageFiles:
    """Training images for calibration: <root>/train/<wnid>/*.JPEG, or the train folder itself.

    Raises `RequestError` if the folder holds validation images.
    """
    hint = "expected train/<wnid>/*.JPEG"
    if root is None or not root:
        raise RequestError(f"no folder is given for ImageNet's training images: {hint}")
    folder = Path(root)
    folder = folder / "train" if (folder / "train").is_dir() else folder
    source, classes = folder_source(folder, synsets(), hint)
    if found := next((path for path in source.paths if "ILSVRC2012_val_" in path), None):
        raise RequestError(f"{folder}/{found} is a validation image: give training images")
    about = f"ImageNet-1k training, {len(source.labels):,} images"
    return ImageFiles(source, transform, None, name="imagenet", classes=classes, about=about)


def title_of(count: int, differs: Sequence[str], labels: str = "") -> str:
    """The title of a set of `count` images in the layout of the validation set.

    differs: reasons why they are not the published images. labels: the name of other labels than
    ImageNet's own.
    """
    part = f" of {N_IMAGES:,}" if count < N_IMAGES else ""
    if differs:
        all_labels = f"{labels}, " if labels else ""
        return (
            f"{all_labels}{count:,}{part} images in the layout of ImageNet-1k validation "
            f"({'; '.join(differs)})"
        )
    return ", ".join(filter(None, ["ImageNet-1k validation", labels, f"{count:,}{part} images"]))


def validation_source(
    root: str | Path | None, labels: str | None, strict: bool
) -> tuple[Source, tuple[str, ...]]:
    """The validation images at `root`, and the reasons why they are not the published ones.

    Raises RequestError in the same cases as `ImageNet`.
    """
    layout = recognise(root)
    source = open_layout(layout, Path(str(root)), labels)
    _check_counts(source, layout.place)
    differs = differences(source)
    if differs:
        problem = f"{layout.place}: {'; '.join(differs)}"
        if strict:
            raise RequestError(f"data.strict=true: {problem}: give ImageNet's own, or set it false")
        log.warning(
            "%s. They are not called ImageNet-1k validation, and the baseline gate does not apply. "
            "ImageNet-C, -Sketch and -V2 are data=imagenet_c, imagenet_sketch and imagenet_v2; "
            "data.title=<text> names any other set", problem,
        )  # fmt: skip
    count, first = absent_files(source)
    if strict:
        gone = [p for p, size in zip(source.paths, source.sizes(), strict=True) if size < 0]
        if count + len(gone):
            problem = _absent_text(count + len(gone), [*gone[:3], *first][:3], layout.place)
            raise RequestError(f"data.strict=true: {problem}: complete it or set it false")
    elif 0 < count < _FEW * N_IMAGES:
        log.warning("%s", _absent_text(count, first, layout.place))
    return source, differs


def absent_files(source: Source) -> tuple[int, list[str]]:
    """The number of validation images that are absent, and the first three names if known."""
    numbers = {number_of(path) for path in source.paths}
    if None in numbers:  # some files have other names
        return max(0, N_IMAGES - len(source.paths)), []
    absent = [i for i in range(1, N_IMAGES + 1) if i not in numbers]
    return len(absent), [file_name(i) for i in absent[:3]]


def _absent_text(count: int, first: Sequence[str], place: Path) -> str:
    """A sentence: how many images are absent, and the first names."""
    names = f" ({', '.join(first)}{', ...' if count > len(first) else ''})" if first else ""
    return f"{count:,} of {N_IMAGES:,} validation images are not in {place}{names}"


def _check_counts(source: Source, place: Path) -> None:
    """RequestError if a class has more images than the validation set has.

    Training images and other data sets must not be reported as the validation set.
    """
    wnid, count = Counter(class_of(path) for path in source.paths).most_common(1)[0]
    if count <= IMAGES_PER_CLASS:
        return
    problem = f"{place}/{wnid} holds {count:,} images and a validation class has {IMAGES_PER_CLASS}"
    if all(path.rsplit("/", 1)[-1].startswith("sketch_") for path in source.paths):
        raise RequestError(f"{problem}: ImageNet-Sketch is data=imagenet_sketch data.path={place}")
    raise RequestError(
        f"{problem}: evaluate some of ImageNet's classes with images of their own, such as "
        f"Imagenette, with data=folder data.path={place}; or {LAYOUTS}"
    )
