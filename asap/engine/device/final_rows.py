"""The rows that a pass on the device leaves, of which features are made instead of logits."""

from dataclasses import dataclass

from jaxtyping import Int
from torch import Tensor

from asap.core.packed import PackedTokens
from asap.core.ragged import RaggedTokens


@dataclass(frozen=True)
class FinalRows:
    """Tokens behind the last block, in the memory of the pass, and each one's place in the image's
    first sequence (of an average, the lowest of its members).
    """

    tokens: RaggedTokens
    positions: Int[Tensor, "rows"]

    def packed(self, lengths: Int[Tensor, "images"]) -> PackedTokens:
        """A batch with memory of its own, none of it active. lengths: of its images, on the CPU."""
        held, counts = self.tokens, tuple(lengths.tolist())
        rows = slice(sum(counts))
        return PackedTokens(
            rows=held.rows[rows].clone(),
            sizes=held.sizes[rows].clone(),
            positions=self.positions[rows].clone(),
            source=held.source.clone(),
            lengths=counts,
            images=tuple(range(len(counts))),
            active=0,
            merged=held.merged,
        )
