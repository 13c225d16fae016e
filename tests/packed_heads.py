"""Heads of a packed batch as the engine gives them to kernels, and attention in float64."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
# Of an output, in parts of the largest value: in half precision shares and output are rounded.
ERROR = {torch.float32: 1e-6, torch.float16: 7e-4, torch.bfloat16: 5.5e-3}


def largest_error(found: Tensor, expected: Tensor) -> float:
    """In absolute value; `expected` is float64."""
    return (found.double() - expected).abs().max().item()


@dataclass
class PackedHeads:
    """q, k, v are views of one (rows, 3, heads, d) tensor."""

    q: Tensor
    k: Tensor
    v: Tensor
    offsets: Tensor
    bounds: list[int]
    scale: float
    bias: Tensor

    def reference(self, biased: bool) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """By image its output (n, heads, d) and maps (heads, n, n); log-sum-exps (rows, heads)."""
        outs, maps, sums = [], [], []
        for start, end in pairwise(self.bounds):
            q, k, v = (x[start:end].double() for x in (self.q, self.k, self.v))
            scores = torch.einsum("ihd,jhd->hij", q, k) * self.scale
            if biased:
                scores += self.bias[start:end].double()
            maps.append(scores.softmax(-1))
            outs.append(torch.einsum("hij,jhd->ihd", maps[-1], v))
            sums.append(scores.logsumexp(-1).T)
        return outs, maps, torch.cat(sums)


def packed_heads(
    lengths: tuple[int, ...], heads: int, d: int, dtype: torch.dtype, normed: bool = False
) -> PackedHeads:
    """Random heads, the scores as wide as in a trained model; sizes from 1 to 4 as the bias.

    normed: queries and keys in memory of their own, as q/k-norms leave them.
    """
    generator = torch.Generator().manual_seed(sum(lengths) + heads + d)
    bounds = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    qkv = torch.randn(bounds[-1], 3, heads, d, generator=generator)
    qkv[:, :2] *= 1.5
    q, k, v = qkv.to(DEVICE, dtype).unbind(1)
    if normed:
        q, k = q.clone(), k.clone()
    sizes = torch.randint(1, 5, (bounds[-1],), generator=generator)
    offsets = torch.tensor(bounds, dtype=torch.int32, device=DEVICE)
    return PackedHeads(q, k, v, offsets, bounds, d**-0.5, sizes.float().log().to(DEVICE))
