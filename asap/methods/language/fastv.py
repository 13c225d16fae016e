"""FastV (Chen et al., ECCV 2024): one cut by what the last row attends to."""

from dataclasses import dataclass

from asap.methods.language.base import Pruner


@dataclass(frozen=True)
class FastV(Pruner):
    layer: int = 2
    rank: int | None = None
    ratio: float | None = None
