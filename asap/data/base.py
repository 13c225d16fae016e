"""The contract of every data set: samples by position, a digest of the content, a description."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Protocol, TypeAlias, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from asap.errors import RequestError

Transform: TypeAlias = Callable[[Image.Image], Tensor]  # RGB picture -> Float[Tensor, "3 h w"]
PatchGrid: TypeAlias = tuple[int, int]  # rows, columns


@dataclass(frozen=True)
class Sample:
    """One labelled image, or the reason why it could not be read."""

    index: int  # position in the data set
    id: int  # seeds random draws, the same in every subset; not negative
    path: str  # relative, or "evaluation/000017" for a scene
    label: int  # position in `DataSet.classes`
    cluster: int  # number of the source that several images share; the index if none do
    image: Float[Tensor, "3 h w"] | None
    mask: Bool[Tensor, " n_patches"] | None = None  # which patches are object patches
    error: str | None = None  # one line
    other_labels: tuple[int, ...] = ()  # also correct, if a picture shows several objects


@runtime_checkable
class DataSet(Protocol):
    """Labelled images in a fixed order. The content is read at most once to compute digests."""

    @property
    def name(self) -> str: ...
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
    """The number of files among a data set's pictures that are not evaluated.

    By extension or kind (see left_out.py); empty if the pictures are not files. `data` may also be
    the source of a data set.
    """
    return getattr(data, "files_left_out", {})


class Subset:
    """Some images of a data set, renumbered from 0. They keep their ids, and so their draws."""

    def __init__(self, whole: DataSet, positions: Sequence[int], description: str):
        self.whole = whole
        self.positions = tuple(positions)
        self.description = description
        self.name = whole.name
        self.classes = whole.classes
        self.n_classes = whole.n_classes
        self.scored = whole.scored
        self.has_masks = whole.has_masks
        self.clustered = whole.clustered
        self.differs: tuple[str, ...] = getattr(whole, "differs", ())
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

    A sorted folder begins with its first classes, so its first images do not represent the whole.
    Evenly spaced ones contain every class with at least `len(dataset) / limit` images. RequestError
    if `limit` is below 1.
    """
    if limit is not None and limit < 1:
        raise RequestError(f"limit={limit} leaves no image: give at least 1, or null for all")
    n = len(dataset)
    if limit is None or limit >= n:
        return dataset
    return Subset(
        dataset, evenly(n, limit), f"{dataset.description}; {limit:,} of them, evenly spaced"
    )


def loader(
    dataset: DataSet, indices: Sequence[int], batch_size: int, workers: int
) -> Iterator[list[Sample]]:
    """The samples at `indices`, in that order, in lists of `batch_size` (the last may be shorter).

    `workers` processes read ahead; with 0 the caller reads.
    """
    batches = (list(indices[i : i + batch_size]) for i in range(0, len(indices), batch_size))
    # Fork: with the start method that a launcher may have set, workers would lose its state.
    fork = workers > 0 and sys.platform == "linux"
    packed = DataLoader(
        cast(Dataset, dataset),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_pack,
        multiprocessing_context="fork" if fork else None,
    )
    with plainly():
        for batch in packed:
            yield _unpack(*batch)


@contextmanager
def plainly() -> Iterator[None]:
    """Strip the worker's traceback that DataLoader puts in front of a RequestError's message."""
    try:
        yield
    except RequestError as error:
        said = str(error).strip().splitlines()[-1]
        raise RequestError(said.removeprefix("asap.errors.RequestError: ")) from error


Packed: TypeAlias = tuple[list[Sample], list[bool], Tensor | None, Tensor | None]


def _pack(samples: list[Sample]) -> Packed:
    """Samples without their tensors, which of them have a mask, and the tensors stacked.

    Each tensor sent by a worker holds an open file until it is freed, so a batch sends one tensor
    and not one per image.
    """
    bare = [replace(sample, image=None, mask=None) for sample in samples]
    masked = [sample.mask is not None for sample in samples]
    return bare, masked, _stack([s.image for s in samples]), _stack([s.mask for s in samples])


def _stack(parts: list[Tensor | None]) -> Tensor | None:
    """The tensors that are not None, stacked; None if there are none."""
    present = [part for part in parts if part is not None]
    return torch.stack(present) if present else None


def _unpack(
    bare: list[Sample], masked: list[bool], images: Tensor | None, masks: Tensor | None
) -> list[Sample]:
    """Undo `_pack`: readable samples take the stacked tensors in turn."""
    image_of = iter(images if images is not None else ())
    mask_of = iter(masks if masks is not None else ())
    return [
        replace(
            sample,
            image=None if sample.error else next(image_of),
            mask=next(mask_of) if has_mask else None,
        )
        for sample, has_mask in zip(bare, masked, strict=True)
    ]
