"""ToMe on one image, in float64, the matching in plain loops.

In every block between attention and MLP: tokens at even positions look for their most similar
token at an odd position (cosine of the keys averaged over heads), the r most similar of them are
merged into theirs, sizes weighting the mean.

How open points are read
------------------------
* Keys are those the attention used, so after k-norm where there is one.
* Prefix tokens (class, distillation, registers) all survive: one at an even position is never a
  source, one at an odd position never a destination. With one or two prefix tokens these are the
  published rules. p = number of prefix tokens in the cap floor((N - p) / 2).
* Output order: prefix, unmerged patches of the even set by position, then the odd set by position.
  With one prefix token that is [unmerged even][all odd], the published order.
* Ties: the first best destination; among equally similar sources the lower position.
* Schedule `(r, f)`: trunc(lo + l * (hi - lo) / (L - 1)), taken exactly, not in floating point.
* Proportional attention starts with sizes of 1, so it changes nothing in the first block.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from .macs_ref import backbone_macs, tome_macs
from .vit import Reduction, View, forward

Schedule = int | tuple[int, float] | Sequence[int]


@dataclass(frozen=True)
class Match:
    """Positions of the current sequence: sources with their destinations, and the new order."""

    merged: dict[int, int]  # source -> destination
    order: list[int]  # positions that stay, in the order of the new sequence


@dataclass(frozen=True)
class Result:
    logits: Tensor  # (classes,) float64
    assignment: list[int]  # per patch: index in the final sequence, prefix counted
    tokens: list[int]  # L + 1
    sizes: list[float]  # per final token
    matches: list[Match]  # per block
    margin: float  # smallest lead of a best destination, or of the last source over the next token
    n_attention: list[int]
    n_mlp: list[int]
    macs_backbone: int
    macs_method: int


def reference_tome(
    model: VisionTransformer,
    image: Float[Tensor, "c height width"],
    r: Schedule,
    proportional_attention: bool = True,
) -> Result:
    """Run ToMe on one image; `r` is an int, (r, inflection) as a tuple, or a list per block."""
    merger = _Merger(schedule(r, len(model.blocks)))
    out = forward(model, image, merger, "after_attention", proportional_attention)
    return Result(
        logits=out.logits,
        assignment=out.assignment.tolist(),
        tokens=out.tokens,
        sizes=out.sizes.tolist(),
        matches=merger.matches,
        margin=min(merger.margins, default=math.nan),
        n_attention=out.n_attention,
        n_mlp=out.n_mlp,
        macs_backbone=backbone_macs(model, out.n_attention, out.n_mlp, out.tokens[-1]),
        macs_method=merger.macs,
    )


def schedule(r: Schedule, n_blocks: int) -> list[int]:
    """How many tokens each block is asked to remove."""
    if isinstance(r, int):
        return [r] * n_blocks
    if isinstance(r, tuple):
        mean, inflection = r
        low = math.trunc(mean * (1 - Fraction(str(inflection))))  # 0.1 means one tenth
        high = 2 * mean - low
        step = Fraction(high - low, n_blocks - 1)
        return [math.trunc(low + block * step) for block in range(n_blocks)]
    return [*r, *[0] * n_blocks][:n_blocks]


@dataclass
class _Merger:
    schedule: list[int]
    matches: list[Match] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)
    macs: int = 0

    def __call__(self, view: View) -> Reduction | None:
        n, p = len(view.sizes), view.n_prefix
        r = min(self.schedule[view.block - 1], (n - p) // 2)
        if r <= 0:
            self.matches.append(Match({}, list(range(n))))
            return None
        metric = view.keys.mean(dim=0)
        match, margin = bipartite_match(metric, r, p)
        self.matches.append(match)
        self.margins.append(margin)
        self.macs += tome_macs((n + 1) // 2, n // 2, metric.shape[1], r, view.tokens.shape[1])[
            "total"
        ]
        return merged(view, match)


def bipartite_match(metric: Float[Tensor, "N d"], r: int, n_prefix: int) -> tuple[Match, float]:
    """The r most similar (even, odd) pairs, and how close the decision was."""
    unit = torch.stack([row / row.norm() for row in metric])
    similarities = (unit @ unit.T).tolist()
    even, odd = range(0, len(unit), 2), range(1, len(unit), 2)
    best: dict[int, tuple[float, int]] = {}  # even position -> (similarity, odd position)
    gaps: dict[int, float] = {}
    for a in even:
        if a < n_prefix:
            continue
        found = (-math.inf, -1)
        second = -math.inf
        for b in odd:
            if b < n_prefix:
                continue
            similarity = similarities[a][b]
            if similarity > found[0]:
                found, second = (similarity, b), found[0]
            else:
                second = max(second, similarity)
        best[a] = found
        gaps[a] = found[0] - second
    ranked = sorted(best, key=lambda a: (-best[a][0], a))
    sources = ranked[:r]
    margin = min(gaps[a] for a in sources)
    if r < len(ranked):
        margin = min(margin, best[ranked[r - 1]][0] - best[ranked[r]][0])
    stay = [a for a in range(len(unit)) if a not in sources]
    order = (
        [t for t in stay if t < n_prefix]
        + [t for t in stay if t >= n_prefix and t % 2 == 0]
        + [t for t in stay if t >= n_prefix and t % 2 == 1]
    )
    return Match({a: best[a][1] for a in sources}, order), margin


def merged(view: View, match: Match) -> Reduction:
    """Each token that stays takes in its sources, sizes weighting the mean."""
    tokens, sizes = [], []
    destination = torch.full((len(view.sizes),), -1)
    for new, t in enumerate(match.order):
        members = [t, *[a for a, b in match.merged.items() if b == t]]
        size = sum(float(view.sizes[m]) for m in members)
        tokens.append(sum(float(view.sizes[m]) * view.tokens[m] for m in members) / size)
        sizes.append(size)
        destination[members] = new
    return Reduction(torch.stack(tokens), torch.tensor(sizes, dtype=torch.float64), destination)
