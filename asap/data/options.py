"""A data set's own options: a frozen dataclass beside its class, which also opens it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from asap.data.base import DataSet, PatchGrid, Transform
from asap.errors import RequestError
from asap.spec.run_spec import DataSpec


@dataclass(frozen=True)
class Opening:
    """What a run asks a data set for, beside the data set's own options.

    spec: the settings that every data set has, such as its path. outputs: of the model, if known.
    limit: of the number of images. index: the file that stores the hashes of files, see content.py;
    if None, all files are read.
    """

    spec: DataSpec
    transform: Transform
    patch_grid: PatchGrid
    outputs: int | None = None
    limit: int | None = None
    index: Path | None = None


@dataclass(frozen=True)
class DataOptions(ABC):
    """The options of a data set are the fields of a frozen dataclass; each has a default.

    `shown`: those that the title of a run shows, because they say which images are read.
    """

    shown: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def open(self, opening: Opening) -> DataSet:
        """The data set, at most `opening.limit` images of it.

        Raises RequestError if it does not exist, and on a setting that it does not have.
        """


def refuse_files(spec: DataSpec, instead: str) -> None:
    """RequestError for a path or a cache of data that is made here; instead: what to do."""
    if spec.path is not None:
        raise RequestError(f"data.path={spec.path!r} is not for data={spec.name}: {instead}")
    if spec.cache is not None:
        raise RequestError(f"data.cache={spec.cache!r} is not for data={spec.name}: leave it null")
