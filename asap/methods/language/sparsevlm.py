"""SparseVLM (Zhang et al., ICML 2025): cuts by what selected text rows attend to."""

from dataclasses import dataclass

from asap.methods.language.base import Pruner


@dataclass(frozen=True)
class SparseVLM(Pruner):
    layers: tuple[int, ...] = (2, 6, 15)
    keep: tuple[int, ...] = (66, 30, 17)
