"""The one data set of picture files: a source, timm's transform, and how its labels are scored."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from asap.data.base import (
    PatchGrid,
    Sample,
    Transform,
    files_left_out,
    hashed_id,
    image_sample,
)
from asap.data.imagenet.boxes import Boxes, upright
from asap.data.images.decoding import UnreadableImage, open_rgb
from asap.data.images.geometry import map_of
from asap.data.images.source import Source, digest_of, refuse_vanished


class ImageFiles:
    """Labelled pictures of a source, in its order.

    scored: the classes whose logits are compared, None for all. other_labels: for each picture, the
    classes that are correct besides its label. boxes: where the objects are, for `Sample.mask`.
    differs: reasons why these are not the published pictures. `title`: the user's name for the set.
    `index`: the file that stores the hashes of the files' bytes; if None, `digest` reads all files.
    """

    task = "classification"
    clustered = False
    index: Path | None = None

    def __init__(
        self,
        source: Source,
        transform: Transform,
        patch_grid: PatchGrid | None,
        *,
        name: str,
        classes: Sequence[str],
        about: str,
        scored: tuple[int, ...] | None = None,
        other_labels: Sequence[tuple[int, ...]] | None = None,
        boxes: Boxes | None = None,
        differs: tuple[str, ...] = (),
    ):
        self.source, self.transform, self.patch_grid = source, transform, patch_grid
        self.name, self.classes, self.scored = name, tuple(classes), scored
        self.labels, self.differs = source.labels, differs
        self.title: str | None = None
        if boxes is not None and patch_grid is not None:
            map_of(transform, (256, 256))  # raises now instead of at the first image
        self._about, self._other_labels, self._boxes = about, other_labels, boxes

    @property
    def n_classes(self) -> int:
        return len(self.classes)

    @property
    def files_left_out(self) -> Mapping[str, int]:
        return files_left_out(self.source)

    @property
    def has_masks(self) -> bool:
        return self._boxes is not None and self.patch_grid is not None

    @property
    def description(self) -> str:
        about = self._about if self.title is None else f"{self.title}: {self._about}"
        if self._boxes is None:
            return about
        known = sum(self._boxes.known(path) for path in self.source.paths)
        return f"{about}, object boxes of {known:,}"

    @property
    def reading_order(self) -> Sequence[int]:
        return self.source.reading_order

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical relative paths and the hashes of the files' bytes, in order."""
        return self.digest_of(range(len(self)))

    def digest_of(self, positions: Sequence[int]) -> str:
        """The digest of some pictures. If each has its own file, no other file is read."""
        return digest_of(self.source, positions, self.index)

    @cached_property
    def label_digest(self) -> str:
        """SHA-256 of the labels, and of the scoring rules if they are not one label among all."""
        sha = sha256(" ".join(map(str, self.labels)).encode())
        if self.scored is not None:
            sha.update(f" scored {self.scored}".encode())
        if self._other_labels is not None:
            sha.update(f" other {list(self._other_labels)}".encode())
        if self._boxes is not None:
            sha.update(f" boxes {self._boxes.digest(self.source.paths)}".encode())
        return sha.hexdigest()

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> Sample:
        try:
            picture = self.open(i)
        except UnreadableImage as reason:
            return self.sample(i, error=str(reason))
        turned = self.has_masks and not upright(picture)
        return self.sample(i, self.transform(picture), self.mask(i, picture.size, not turned))

    def open(self, i: int) -> Image.Image:
        """The picture at a position, as RGB.

        Raises `UnreadableImage`; RequestError if the folder or archive has vanished.
        """
        try:
            return open_rgb(self.source.read(i), self.transform)
        except UnreadableImage:
            refuse_vanished(self.source, i)
            raise

    def sample(
        self,
        i: int,
        image: Float[Tensor, "3 h w"] | None = None,
        mask: Bool[Tensor, " n_patches"] | None = None,
        error: str | None = None,
    ) -> Sample:
        """The sample at a position, from its image or the error."""
        path = self.source.paths[i]
        others = self._other_labels[i] if self._other_labels is not None else ()
        return image_sample(
            i, image_id(path), path, self.labels[i], i, image, mask, error, other_labels=others
        )

    def mask(
        self, i: int, size: tuple[int, int], is_upright: bool
    ) -> Bool[Tensor, " n_patches"] | None:
        """Object patches of the picture at a position; `size`: its stored (width, height)."""
        if self._boxes is None or self.patch_grid is None or not is_upright:
            return None
        return self._boxes.mask(self.source.paths[i], size, self.transform, self.patch_grid)


def image_id(path: str) -> int:
    """63 bits of the path's hash, so that an image has the same id in every subset."""
    return hashed_id(path)
