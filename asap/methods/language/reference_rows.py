"""References that no method can know of: the rows of objects alone, or all others."""

from dataclasses import dataclass
from typing import ClassVar

from asap.methods.language.base import Pruner


@dataclass(frozen=True)
class ReferenceRows(Pruner):
    needs_objects: ClassVar[bool] = True
    keep: str = "object"
