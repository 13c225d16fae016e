"""The one data set of questions: pictures, the questions about each, and what is right."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from PIL import Image
from torch import Tensor

from asap.data.base import (
    DataSet,
    PatchGrid,
    Sample,
    Subset,
    Transform,
    as_images,
    evenly,
    files_left_out,
    hashed_id,
    most_crops,
)
from asap.data.images.decoding import UnreadableImage, mask_to_patches
from asap.data.images.image_files import image_id
from asap.data.questions.benchmark import Benchmark
from asap.data.questions.kinds import KINDS
from asap.errors import RequestError


@dataclass(frozen=True)
class Question:
    """One question. picture: the position of its picture; id: unique among the questions about it.

    kind: one of `KINDS`; answers: right ones, as `Kind.read` gives them; subset: of the category,
    may be empty.
    """

    id: str
    picture: int
    text: str
    kind: str
    answers: tuple[str, ...]
    category: str
    subset: str = ""


@runtime_checkable
class Pictures(Protocol):
    """Pictures in a fixed order."""

    @property
    def paths(self) -> Sequence[str]: ...  # canonical names, each once
    @property
    def has_masks(self) -> bool: ...
    def hashes(self, positions: Sequence[int], index: Path | None) -> Sequence[bytes]:
        """Of each picture's content; `index`: the file that stores hashes of files."""
        ...

    def open(self, i: int, transform: Transform) -> Image.Image: ...  # `UnreadableImage`
    def mask(self, i: int) -> Bool[np.ndarray, "height width"] | None:
        """Which pixels are of objects; None if it is not known."""
        ...


class _Read(NamedTuple):
    """A picture: its images, their object patches, and its (width, height)."""

    images: Float[Tensor, "images 3 h w"]
    mask: Bool[Tensor, " n_patches"] | None
    size: tuple[int, int]


class QuestionSet:
    """Questions about pictures, picture after picture: neighbours share the decoded one.

    A sample's `source` is "<path of the picture>#<id of the question>", which its `id` is hashed
    from; `picture` and the `cluster` are of its picture; the target are the right answers. Its
    extras: "question", "kind", "category", "subset", "max_new_tokens", the picture's "size" (width,
    height), and the "mask" of the object's patches where that is known, of all images that the
    transform makes of a picture. `title`, `index`: as of `ImageFiles`; `benchmark`: whose questions
    these are, if they are of one.
    """

    task = "questions"
    classes = ()
    n_classes = 0
    clustered = True
    scored = None
    index: Path | None = None
    benchmark: Benchmark | None = None

    def __init__(
        self,
        questions: Sequence[Question],
        pictures: Pictures,
        transform: Transform,
        patch_grid: PatchGrid | None,
        *,
        name: str,
        about: str,
    ):
        self.questions = sorted(questions, key=lambda one: one.picture)  # stable
        self.pictures, self.transform, self.patch_grid = pictures, transform, patch_grid
        self.name, self._about = name, about
        self.title: str | None = None
        self._last: tuple[int, _Read] | None = None

    @property
    def has_masks(self) -> bool:
        return self.pictures.has_masks and self.patch_grid is not None

    @property
    def images_per_example(self) -> int:
        """The most images of a picture."""
        return most_crops(self.transform)

    @property
    def description(self) -> str:
        return self._about if self.title is None else f"{self.title}: {self._about}"

    @property
    def files_left_out(self) -> Any:
        return files_left_out(self.pictures)

    @property
    def paths(self) -> list[str]:
        """The names of the questions."""
        return [f"{self.pictures.paths[one.picture]}#{one.id}" for one in self.questions]

    @property
    def clusters(self) -> list[int]:
        """For each question the number of its picture."""
        return [one.picture for one in self.questions]

    @property
    def reading_order(self) -> range:
        return range(len(self))

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the questions' texts, and of the pictures' names and content."""
        return self.digest_of(range(len(self)))

    def digest_of(self, positions: Sequence[int]) -> str:
        """The digest of some questions. Pictures of other questions are not read."""
        chosen = [self.questions[i] for i in positions]
        used = sorted({one.picture for one in chosen})
        content = dict(zip(used, self.pictures.hashes(used, self.index), strict=True))
        sha = sha256()
        for one in chosen:
            for text in (self.pictures.paths[one.picture], one.id, one.text):
                sha.update(text.encode() + b"\0")
            sha.update(content[one.picture])
        return sha.hexdigest()

    @cached_property
    def label_digest(self) -> str:
        """SHA-256 of the right answers, of how they are scored, and of the categories."""
        rule = {name: f"{name} {kind.version}".removesuffix(" 1") for name, kind in KINDS.items()}
        rows = [[rule[one.kind], one.category, one.subset, *one.answers] for one in self.questions]
        scored = repr(rows) if self.benchmark is None else repr((rows, self.benchmark.identity))
        return sha256(scored.encode()).hexdigest()

    def __len__(self) -> int:
        return len(self.questions)

    def __getitem__(self, i: int) -> Sample:
        asked = self.questions[i]
        try:
            return self._sample(i, self._read(asked.picture), None)
        except UnreadableImage as reason:
            return self._sample(i, None, str(reason))

    def first(self, limit: int | None) -> DataSet:
        """At most `limit` questions: all those about evenly spaced pictures, the last one cut.

        Evenly spaced questions would often be of one kind, since the questions about each picture
        come in the same order. RequestError if `limit` is below 1.
        """
        if limit is not None and limit < 1:
            raise RequestError(
                f"limit={limit} leaves no question: give at least 1, or null for all"
            )
        if limit is None or limit >= len(self):
            return cast(DataSet, self)
        by_picture: dict[int, list[int]] = {}
        for i, one in enumerate(self.questions):
            by_picture.setdefault(one.picture, []).append(i)
        groups = list(by_picture.values())
        count, chosen = ceil(limit * len(groups) / len(self)), []
        while len(chosen) < limit:  # as many pictures as are needed, as some have few questions
            chosen = [i for k in evenly(len(groups), count) for i in groups[k]]
            count += 1
        about = f"{self.description}; {limit:,} of them, of evenly spaced pictures"
        return Subset(cast(DataSet, self), chosen[:limit], about)

    def _read(self, picture: int) -> _Read:
        """A picture, kept until another one is read."""
        if self._last is None or self._last[0] != picture:
            opened = self.pictures.open(picture, self.transform)
            pixels = self.pictures.mask(picture)
            mask = None
            if pixels is not None and self.patch_grid is not None:
                mask = mask_to_patches(pixels, self.transform, self.patch_grid)
            images = as_images(self.transform(opened))
            self._last = picture, _Read(images, mask, opened.size)
        return self._last[1]

    def _sample(self, i: int, read: _Read | None, error: str | None) -> Sample:
        asked = self.questions[i]
        path = self.pictures.paths[asked.picture]
        source = f"{path}#{asked.id}"
        limited = KINDS[asked.kind] if self.benchmark is None else self.benchmark
        extras: dict[str, Any] = {
            **{"question": asked.text, "kind": asked.kind, "category": asked.category},
            **{"subset": asked.subset, "max_new_tokens": limited.max_new_tokens},
            **({} if read is None else {"size": read.size}),
            **({} if read is None or read.mask is None else {"mask": read.mask}),
        }
        return Sample(
            index=i, id=hashed_id(source), source=source, cluster=asked.picture,
            inputs=None if read is None else read.images, target=asked.answers, error=error,
            extras=extras, picture=image_id(path),
        )  # fmt: skip
