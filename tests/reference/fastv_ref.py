"""FastV on one prompt, in float64, on the full length: rows that go are masked, never removed.

Before layer K the visual rows are ranked by what the last row of the prompt attends to in layer
K - 1, the mean of heads; all but the best `rank` are hidden from every row from layer K on. Rows
keep their positions. Generated rows are appended and everything is computed again.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .llama_ref import attend, logits


@dataclass(frozen=True)
class Result:
    kept: list[int]  # of the visual rows
    logits: list[Tensor]  # of every step
    margin: float  # smallest kept score minus largest dropped one


def reference_fastv(
    model, rows: Tensor, prefix: int, visual: int, layer: int, rank: int, tokens: list[int]
) -> Result:
    """rows (n, D) of the prompt; `tokens` are the ids that are generated."""
    n, found = len(rows), []
    kept, margin = list(range(visual)), float("inf")
    for t in range(len(tokens) + 1):
        generated = model.model.embed_tokens.weight.double()[tokens[:t]]
        now = torch.cat([rows, generated])
        hidden: list[int] = []
        shares = torch.empty(0)
        for index, module in enumerate(model.model.layers):
            if index == layer:
                scores = shares[:, n - 1].mean(0)[prefix : prefix + visual].tolist()
                order = sorted(range(visual), key=lambda j: (-scores[j], j))
                kept = sorted(order[:rank])
                margin = scores[order[rank - 1]] - scores[order[rank]] if rank < visual else margin
                hidden = [prefix + j for j in order[rank:]]
            after = attend(model.config, module, now, range(len(now)), hidden)
            now, shares = after.rows, after.shares
        found.append(logits(model, now))
    return Result(kept, found, margin)
