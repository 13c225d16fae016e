"""The contract of every data set: samples by position, a digest of the content, a description."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Protocol, TypeAlias, runtime_checkable

from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from asap.errors import RequestError

# RGB picture -> Float[Tensor, "3 h w"], or "crops 3 h w" of one that cuts pictures into crops
Transform: TypeAlias = Callable[[Image.Image], Tensor]
PatchGrid: TypeAlias = tuple[int, int]  # rows, columns


@dataclass(frozen=True)
class Sample:
    """One example, or the reason why it could not be read.

    inputs: its images, ready for the backbone: a single image has one view; a picture cut into
    crops has several, and every view of a clip is `frames` consecutive images. target: the correct
    answer, in the form of its task. extras: other values that its task needs, by name; a tensor
    among them belongs to this example alone.
    """

    index: int  # position in the data set
    id: int  # seeds random draws, the same in every subset; not negative
    source: str  # path, relative, or "evaluation/000017" for a scene
    cluster: int  # number of the source that several examples share; the index if none do
    inputs: Float[Tensor, "images 3 h w"] | None
    target: Any = None
    error: str | None = None  # one line
    extras: Mapping[str, Any] = field(default_factory=dict)
    frames: int = 1  # consecutive images that make up one view
    picture: int | None = None  # the id of a picture that several examples share, such as questions

    @property
    def n_images(self) -> int:
        """How many images it has; 0 if it could not be read."""
        return 0 if self.inputs is None else len(self.inputs)

    @property
    def image_ids(self) -> list[int]:
        """What seeds the random draws of its images: the first has the example's own id, or that
        of the picture that it shares, so that draws are alike for all questions about a picture.
        """
        first = self.id if self.picture is None else self.picture
        return [first if k == 0 else hashed_id(f"{first}:{k}") for k in range(self.n_images)]

    @property
    def places(self) -> list[tuple[int, int]]:
        """The view of each image, and its frame in that view."""
        return [divmod(k, self.frames) for k in range(self.n_images)]

    @property
    def image(self) -> Float[Tensor, "3 h w"] | None:
        """The only image, None if it could not be read; ValueError if there are several."""
        if self.inputs is None:
            return None
        (view,) = self.inputs
        return view

    @property
    def whole(self) -> Float[Tensor, "3 h w"]:
        """Its only image, or of a picture cut into crops the whole picture, which is the first.

        ValueError for an example that could not be read.
        """
        if self.inputs is None:
            raise ValueError(f"{self.source} could not be read: {self.error}")
        return self.inputs[0]

    @property
    def label(self) -> int:
        """Of an image with a class: its position in `DataSet.classes`."""
        return self.target

    @property
    def other_labels(self) -> tuple[int, ...]:
        """Classes that are correct too, if a picture shows several objects."""
        return self.extras.get("other_labels", ())

    @property
    def mask(self) -> Bool[Tensor, " n_patches"] | None:
        """Which patches are object patches; None if it is not known."""
        return self.extras.get("mask")


def as_images(transformed: Float[Tensor, "*crops 3 h w"]) -> Float[Tensor, "images 3 h w"]:
    """What a transform makes of a picture, as the images of a sample."""
    return transformed if transformed.ndim == 4 else transformed[None]


def most_crops(transform: Transform) -> int:
    """The most images that a transform makes of a picture, 1 for one that does not cut it."""
    return getattr(transform, "crops", 1)


def hashed_id(name: str) -> int:
    """63 bits of a name's SHA-256, an id for random draws."""
    return int.from_bytes(sha256(name.encode()).digest()[:8], "big") >> 1


def image_sample(
    index: int,
    id: int,
    source: str,
    label: int,
    cluster: int,
    image: Float[Tensor, "*crops 3 h w"] | None = None,
    mask: Bool[Tensor, " n_patches"] | None = None,
    error: str | None = None,
    other_labels: tuple[int, ...] = (),
) -> Sample:
    """The sample of one image with a class, see `Sample`; image: what a transform made of it."""
    extras: dict[str, Any] = {} if mask is None else {"mask": mask}
    if other_labels:
        extras["other_labels"] = other_labels
    inputs = None if image is None else as_images(image)
    return Sample(index, id, source, cluster, inputs, label, error, extras)


@runtime_checkable
class DataSet(Protocol):
    """Labelled images in a fixed order. The content is read at most once to compute digests."""

    @property
    def name(self) -> str: ...
    @property
    def task(self) -> str: ...  # the name of its examples' task, see `asap/tasks`
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def n_classes(self) -> int: ...
    @property
    def digest(self) -> str: ...  # SHA-256 of the content
    @property
    def label_digest(self) -> str: ...  # SHA-256 of the labels and the scoring rules
    @property
    def scored(self) -> tuple[int, ...] | None: ...  # the classes compared; None for all
    @property
    def has_masks(self) -> bool: ...
    @property
    def clustered(self) -> bool: ...  # several images may come from one source
    @property
    def description(self) -> str: ...  # which data, split, how many
    @property
    def reading_order(self) -> Sequence[int]: ...  # all positions, in the fastest order to read
    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> Sample: ...


def files_left_out(data: object) -> Mapping[str, int]:
    """How many files among a data set's, or a source's, are not evaluated, by extension or kind.

    See left_out.py; empty if its examples are not files.
    """
    return getattr(data, "files_left_out", {})


def images_per_example(data: DataSet) -> int:
    """How many images every readable example has, of pictures cut into crops at most: of a clip,
    the frames of all its views."""
    return getattr(data, "images_per_example", 1)


def frames_per_view(data: DataSet) -> int:
    """How many consecutive images make up one view of an example: 1 but for clips."""
    return getattr(data, "frames_per_view", 1)


class Subset:
    """Some images of a data set, renumbered from 0. They keep their ids, and so their draws."""

    def __init__(self, whole: DataSet, positions: Sequence[int], description: str):
        self.whole = whole
        self.positions = tuple(positions)
        self.description = description
        self.name = whole.name
        self.task = whole.task
        self.classes = whole.classes
        self.n_classes = whole.n_classes
        self.scored = whole.scored
        self.has_masks = whole.has_masks
        self.clustered = whole.clustered
        self.images_per_example = images_per_example(whole)
        self.frames_per_view = frames_per_view(whole)
        self.differs: tuple[str, ...] = getattr(whole, "differs", ())
        self.benchmark: Any = getattr(whole, "benchmark", None)  # of questions
        self._digest: str | None = None

    @property
    def files_left_out(self) -> Mapping[str, int]:
        return files_left_out(self.whole)

    @property
    def digest(self) -> str:
        if self._digest is None:
            self._digest = self.digest_of(range(len(self)))
        return self._digest

    def digest_of(self, positions: Sequence[int]) -> str:
        """The digest of some images. If the whole data set can compute it, others are not read."""
        chosen = tuple(self.positions[i] for i in positions)
        tell = getattr(self.whole, "digest_of", None)
        return _derived(self.whole.digest, chosen) if tell is None else tell(chosen)

    @property
    def reading_order(self) -> Sequence[int]:
        """The positions in this subset, in the reading order of the whole data set."""
        own = {position: i for i, position in enumerate(self.positions)}
        return [own[position] for position in self.whole.reading_order if position in own]

    @property
    def label_digest(self) -> str:
        return _derived(self.whole.label_digest, self.positions)

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, i: int) -> Sample:
        sample = self.whole[self.positions[i]]
        return replace(sample, index=i, cluster=sample.cluster if self.clustered else i)


def _derived(digest: str, positions: tuple[int, ...]) -> str:
    return sha256(f"{digest}:{positions}".encode()).hexdigest()


def evenly(n: int, count: int) -> list[int]:
    """The middles of `count` equal parts of range(n), without repeats; all of it if count >= n."""
    return list(dict.fromkeys((2 * i + 1) * n // (2 * count) for i in range(count)))


def take(dataset: DataSet, limit: int | None) -> DataSet:
    """`limit` evenly spaced images; the whole data set if it is not larger or `limit` is None.

    A sorted folder begins with its first classes; evenly spaced images have every class with at
    least `len(dataset) / limit` of them. RequestError if `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise RequestError(f"limit={limit} leaves no image: give at least 1, or null for all")
    n = len(dataset)
    if limit is None or limit >= n:
        return dataset
    return Subset(
        dataset, evenly(n, limit), f"{dataset.description}; {limit:,} of them, evenly spaced"
    )
