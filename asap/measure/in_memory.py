"""Cache of backbones and data sets: each is made once for all specs of a command that use it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from asap.backbones.llava.checkpoint import Llava
from asap.backbones.weights.load import Loaded
from asap.data.base import DataSet
from asap.spec.run_spec import RunSpec

T = TypeVar("T")
DATA_SETS = 3  # the evaluation's, a calibration's, and those that calibration left out


@dataclass
class Kept(Generic[T]):
    """A cache of the `most` recently used values; keys are compared with `==`."""

    most: int
    _found: list[tuple[Any, T]] = field(default_factory=list, init=False)

    def get(self, key: Any, make: Callable[[], T]) -> T:
        """The value of a key; a missing one is made.

        If the cache is full, the least recently used value is dropped first, since both may not fit
        into memory.
        """
        for i, (other, value) in enumerate(self._found):
            if other == key:
                self._found.append(self._found.pop(i))
                return value
        while len(self._found) >= self.most:
            del self._found[0]
        self._found.append((key, made := make()))
        return made


@dataclass
class Backbone:
    """A loaded backbone, and the digest of its weights.

    llava: the vision-language model whose tower it is; the digest is of all of its parts then.
    """

    loaded: Loaded
    digest: str
    llava: Llava | None = None
    _placed: bool = False

    def on(self, device: torch.device, dtype: torch.dtype) -> nn.Module:
        """The model on the device, in the precision; every call must give the same ones."""
        if not self._placed:
            torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
            (self.llava or self.loaded.model).to(device, dtype)
            self._placed = True
        return self.loaded.model


@dataclass
class Images:
    """A data set, and which of its unreadable images have been tried again."""

    data: DataSet
    tried: dict[int, bool] = field(default_factory=dict)


@dataclass(frozen=True)
class Shared:
    """A record's share of a joint pass: seconds, batch halvings."""

    seconds: float
    halved: int


@dataclass
class InMemory:
    """What the specs of a command share. One backbone at a time is in memory.

    shared: by key of the record, what was evaluated in a pass with other rows. shared_ahead: the
    images, each as a spec without rows, of which later runs' rows were evaluated already.
    """

    backbones: Kept[Backbone] = field(default_factory=lambda: Kept(1))
    images: Kept[Images] = field(default_factory=lambda: Kept(DATA_SETS))
    shared: dict[str, Shared] = field(default_factory=dict)
    shared_ahead: list[RunSpec] = field(default_factory=list)
