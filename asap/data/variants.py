"""Test sets beside ImageNet's own: ImageNetV2, ImageNet-A, ImageNet-R, and the ReaL labels.

- ImageNetV2 (Recht et al. 2019): folders 0..999 are class positions, as timm counts them.
- ImageNet-A and -R (Hendrycks et al. 2021): 200 of the 1,000 classes. The logits of these 200 are
  compared and the others left out, as the authors and timm do; predictions keep timm's numbers.
- ReaL (Beyer et al. 2020): new labels of the validation images, none, one or several each. Images
  without one are left out; a prediction is right if it is one of them.
"""

import json
import pkgutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from asap.data.base import PatchGrid, Transform
from asap.data.boxes import Boxes
from asap.data.folder import class_of, folder_source
from asap.data.imagenet import validation_source
from asap.data.listing import class_folders
from asap.data.names import N_IMAGES, class_index, number_of, synsets
from asap.data.pictures import Pictures
from asap.data.source import FileSource, Picked
from asap.errors import RequestError

_V2 = ("", "imagenetv2-matched-frequency-format-val", "imagenetv2-matched-frequency")


class ImageNetV2(Pictures):
    """<root>/<0..999>/*.jpeg, or the folder that has this one. RequestError on anything else."""

    def __init__(
        self, root: str | None, transform: Transform, grid: PatchGrid | None, strict: bool
    ):
        hint = "give data.path=/data/imagenetv2-matched-frequency-format-val, with folders 0 to 999"
        folder = _below(root, _V2, "ImageNetV2", hint)
        source, _ = folder_source(folder, [str(i) for i in range(len(synsets()))], hint)
        _check_count(source, 10_000, "ImageNetV2", folder, strict)
        about = f"ImageNetV2, {_part(len(source.labels), 10_000)} of {folder.resolve().name}"
        super().__init__(
            source, transform, grid, name="imagenet_v2", classes=synsets(), about=about
        )


class ImageNet200(Pictures):
    """ImageNet-A (`kind` "a") or -R ("r"): <root>/<wnid>/*, scored over their 200 classes.

    Raises `RequestError` if the folders are not exactly the 200 of the set.
    """

    def __init__(
        self,
        kind: str,
        root: str | None,
        transform: Transform,
        grid: PatchGrid | None,
        strict: bool,
    ):
        name, total = {"a": ("ImageNet-A", 7_500), "r": ("ImageNet-R", 30_000)}[kind]
        hint = f"give data.path=/data/imagenet-{kind}, with the 200 folders <wnid> of {name}"
        folder = _below(root, ("", f"imagenet-{kind}"), name, hint)
        wnids = _shipped(f"imagenet_{kind}_synsets.txt").decode().split()
        source, _ = folder_source(folder, wnids, hint)
        if lacking := sorted(set(wnids) - set(class_folders(folder))):
            raise RequestError(
                f"{folder} lacks {len(lacking)} of the 200 classes of {name}, such as "
                f"{lacking[0]}: {hint}"
            )
        labels = [class_index()[class_of(path)] for path in source.paths]
        source = FileSource(folder, source.files, source.paths, labels, source.files_left_out)
        _check_count(source, total, name, folder, strict)
        super().__init__(
            source, transform, grid, name=f"imagenet_{kind}", classes=synsets(),
            about=f"{name}, {_part(len(labels), total)}, scored over its 200 classes",
            scored=tuple(sorted(class_index()[wnid] for wnid in wnids)),
        )  # fmt: skip


class ImageNetReal(Pictures):
    """The validation set, in any layout, with ReaL labels: from timm, or a `real.json` as `labels`.

    Raises `RequestError` as `ImageNet` does, and on a wrong labels file.
    """

    def __init__(
        self,
        root: str | None,
        transform: Transform,
        grid: PatchGrid | None,
        *,
        labels: str | None = None,
        boxes: str | None = None,
        strict: bool = False,
    ):
        whole, real = validation_source(root, None, strict), _real_labels(labels)
        numbers = [number_of(path) for path in whole.paths]
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
        super().__init__(
            source, transform, grid, name="imagenet_real", classes=synsets(),
            about=f"ImageNet-1k validation, ReaL labels, {_part(len(sets), N_IMAGES)}, "
            f"{len(positions):,} of them with a label",
            other_labels=[sets[i][1:] for i in positions],
            boxes=None if boxes is None else Boxes.read(boxes),
        )  # fmt: skip


def _real_labels(path: str | None) -> list[list[int]]:
    """For each of the 50,000 validation images its list of classes."""
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
    """A file of labels that comes with timm."""
    return pkgutil.get_data("timm.data", f"_info/{name}") or b""


def _are_classes(labels: Any) -> bool:
    """Whether it is a list of classes. Of JSON's values, true and 1.0 are equal to a class too."""
    if not isinstance(labels, list):
        return False
    return all(type(label) is int and 0 <= label < len(synsets()) for label in labels)


def _below(root: str | None, inside: Sequence[str], name: str, hint: str) -> Path:
    """The first of the folders `inside` that is there with class folders; else the root."""
    if root is None or not root:
        raise RequestError(f"no folder is given for {name}: {hint}")
    places = [Path(root) / folder for folder in reversed(inside)]
    return next((place for place in places if place.is_dir()), Path(root))


def _part(count: int, total: int) -> str:
    return f"{count:,} images" if count == total else f"{count:,} of {total:,} images"


def _check_count(source: FileSource, total: int, name: str, folder: Path, strict: bool) -> None:
    """With `strict`, RequestError unless all images are there."""
    if strict and len(source.labels) != total:
        raise RequestError(
            f"data.strict=true: {folder} holds {len(source.labels):,} of the {total:,} images of "
            f"{name}: complete it or set it false"
        )
