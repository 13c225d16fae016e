"""ImageNet-1k validation as a folder: <root>/val/<wnid>/*.JPEG, or the val folder itself."""

from collections import Counter
from functools import cache
from pathlib import Path

from timm.data.imagenet_info import ImageNetInfo

from asap.data.base import PatchGrid, Transform
from asap.data.folder import ImageFolder, class_of
from asap.errors import RequestError

N_IMAGES = 50_000
IMAGES_PER_CLASS = 50
_LAYOUT = "set IMAGENET to a folder with val/<wnid>/*.JPEG, such as val/n01440764/*.JPEG"


@cache
def synsets() -> tuple[str, ...]:
    """The 1,000 WordNet ids in the order of the classes of timm's weights."""
    return tuple(ImageNetInfo("imagenet-1k").label_names())


class ImageNet(ImageFolder):
    """The validation set or a part of it, with timm's class order; the description says which part.

    Raises `RequestError` naming the variable IMAGENET and the layout it should point to.
    """

    _hint = _LAYOUT

    def __init__(
        self,
        root: str | Path | None,
        transform: Transform,
        patch_grid: PatchGrid | None = None,
    ):
        folder = _validation_folder(root)
        super().__init__(folder, transform, patch_grid, classes=synsets(), name="imagenet")
        _check_counts(Counter(class_of(file) for file in self._files), self.root)

    @property
    def description(self) -> str:
        part = "" if len(self) == N_IMAGES else f" of {N_IMAGES:,}"
        return f"ImageNet-1k validation, {len(self):,}{part} images"


class ImageNetTraining(ImageFolder):
    """Training images, for calibration: <root>/train/<wnid>/*.JPEG, or the train folder itself.

    Raises `RequestError` where the validation images are instead.
    """

    _hint = "expected train/<wnid>/*.JPEG"

    def __init__(self, root: str | Path | None, transform: Transform):
        if root is None or not str(root):
            raise RequestError(f"no folder is given for ImageNet's training images: {self._hint}")
        folder = Path(root)
        folder = folder / "train" if (folder / "train").is_dir() else folder
        super().__init__(folder, transform, classes=synsets(), name="imagenet")
        if found := next((file for file in self._files if "ILSVRC2012_val_" in file), None):
            raise RequestError(f"{folder}/{found} is a validation image: give training images")

    @property
    def description(self) -> str:
        return f"ImageNet-1k training, {len(self):,} images"


def _validation_folder(root: str | Path | None) -> Path:
    """`<root>/val` where there is one, else `root`, which may be that folder itself."""
    if root is None or not str(root):
        raise RequestError(f"no folder is given for ImageNet: {_LAYOUT}")
    root = Path(root)
    return root / "val" if (root / "val").is_dir() else root


def _check_counts(images_of: Counter[str], folder: Path) -> None:
    """Training images must not be reported as the validation set."""
    wnid, count = images_of.most_common(1)[0]
    if count > IMAGES_PER_CLASS:
        raise RequestError(
            f"{folder}/{wnid} holds {count:,} images and a validation class has "
            f"{IMAGES_PER_CLASS}: {_LAYOUT}"
        )
