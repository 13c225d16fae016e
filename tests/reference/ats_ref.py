"""ATS on one image, in float64, the sampling in plain loops.

Inside the attention of the sampling blocks, between softmax and values: tokens are scored, the
running sum of the scores is sampled at evenly spaced heights, and the queries of tokens that no
sample hits are dropped. All tokens of the block remain keys and values.

How open points are read
------------------------
* Blocks are numbered from 0, as in the authors' code.
* Scores, running sum and sampling are over patches. All prefix tokens stay, in front and in their
  order; only the class token's attention scores. A model without class token is refused.
* The softmax with eps is that of the sampling blocks; others have the ordinary one.
* n in the eps term counts all tokens of the block, the prefix included.
* One sampling point alone is at height 1. If the running sum does not rise (a lone patch), all
  heights are 1.
* Ties: equal scores by index; a point between two equally near entries takes the lower one.
* Margin: how little a score, relative to its neighbour in the order, or a point or entry of the
  running sum would have to move for another set or order of tokens.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from timm.layers import Attention
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from .macs_ref import backbone_macs
from .vit import as_float64, classify, embed

EPSILON = 1e-6


@dataclass(frozen=True)
class Result:
    logits: Tensor  # (classes,) float64
    assignment: list[int]  # per patch: index in the final sequence, -1 = dropped
    tokens: list[int]  # L + 1
    margin: float
    macs_backbone: int
    macs_method: int


@dataclass
class _State:
    x: Float[Tensor, "N D"]
    place: list[int]  # per token of the current sequence: its index in the first one
    margins: list[float] = field(default_factory=list)
    macs: int = 0


@torch.no_grad()
def reference_ats(
    model: VisionTransformer,
    image: Float[Tensor, "c height width"],
    samples: int | None = None,
    blocks: Sequence[int] | None = None,
    epsilon: float = EPSILON,
) -> Result:
    """Run ATS on one image; `samples` and `blocks` are the engine's, `epsilon` the method's."""
    assert model.has_class_token
    model = as_float64(model)
    first = embed(model, image)[0]
    state = _State(first, list(range(len(first))))
    patches = len(first) - model.num_prefix_tokens
    points = patches if samples is None else samples
    acting = range(len(model.blocks) // 4, len(model.blocks)) if blocks is None else blocks
    tokens = [len(first)]
    for index, block in enumerate(model.blocks):
        hidden = block.norm1(state.x)
        prefix = model.num_prefix_tokens if index in acting else None
        out, kept = _attention(block.attn, hidden, prefix, points, state, epsilon)
        state.x = state.x[kept] + block.ls1(out)
        state.x = state.x + block.ls2(block.mlp(block.norm2(state.x)))
        state.place = [state.place[t] for t in kept]
        tokens.append(len(kept))
    new = {old: position for position, old in enumerate(state.place)}
    features = model.norm(state.x[None])[0]
    return Result(
        logits=classify(model, features, torch.ones(len(features), dtype=torch.float64)),
        assignment=[new.get(model.num_prefix_tokens + p, -1) for p in range(patches)],
        tokens=tokens,
        margin=min(state.margins, default=math.inf),
        macs_backbone=ats_macs(model, tokens),
        macs_method=state.macs,
    )


def _attention(
    attn: Attention,
    hidden: Float[Tensor, "N D"],
    prefix: int | None,  # None: this block does not sample
    points: int,
    state: _State,
    epsilon: float,
) -> tuple[Float[Tensor, "M D"], list[int]]:
    """Projected attention output of the tokens that remain, and which they are, in their order."""
    heads, width, n = attn.num_heads, attn.head_dim, len(hidden)
    query, key, value = attn.qkv(hidden).reshape(n, 3, heads, width).permute(1, 2, 0, 3)
    query, key = attn.q_norm(query), attn.k_norm(key)
    maps = []
    for q, k in zip(query, key, strict=True):
        logits = q @ k.T / math.sqrt(width)
        e = torch.exp(logits - logits.max(dim=1, keepdim=True).values)
        eps = 0.0 if prefix is None else epsilon
        maps.append((e + eps / n) / (e.sum(dim=1, keepdim=True) + eps))
    kept = list(range(n))
    if prefix is not None:
        attention = sum(m[0] for m in maps)
        norms = [math.sqrt(sum(float((v[j] ** 2).sum()) for v in value)) for j in range(n)]
        scores = [float(attention[j]) * norms[j] for j in range(prefix, n)]
        ranks, margin = sample([s / sum(scores) for s in scores], points)
        kept = [*range(prefix), *[prefix + j for j in ranks]]
        state.margins.append(margin)
        state.macs += heads * width * len(scores)
    out = torch.cat([m[kept] @ v for m, v in zip(maps, value, strict=True)], dim=1)
    out = attn.norm(out)
    if attn.gate is not None:
        out = out * attn.gate(hidden[kept]).sigmoid()
    return attn.proj(out), kept


def sample(scores: list[float], points: int) -> tuple[list[int], float]:
    """Indices of the scores that are hit, in ascending order of score; and the margin."""
    order = sorted(range(len(scores)), key=lambda j: (scores[j], j))
    total, running = 0.0, []
    for j in order:
        total += scores[j]
        running.append(total)
    low, high = running[0], running[-1]
    heights = [(c - low) / (high - low) if high > low else 1.0 for c in running]
    start = min(c for c in heights if c > 0)
    if points == 1:
        targets = [1.0]
    else:
        targets = [start + (1 - start) * k / (points - 1) for k in range(points)]
    distances = [[abs(y - c) for c in heights] for y in targets]
    picks = [min(range(len(heights)), key=row.__getitem__) for row in distances]
    hit = sorted(set(picks))
    return [order[rank] for rank in hit], _margin(scores, order, distances, set(hit))


def _margin(
    scores: list[float], order: list[int], distances: list[list[float]], hit: set[int]
) -> float:
    """The smallest of: relative gap of neighbours in the order of which one is hit; by how much
    the best point of a hit entry prefers it; by how much every point prefers another to an entry
    that is not hit."""
    found = [
        (scores[order[r + 1]] - scores[order[r]]) / scores[order[r + 1]]
        for r in range(len(order) - 1)
        if r in hit or r + 1 in hit
    ]
    leads = [-math.inf] * len(order)
    for row in distances:
        best, second = [*sorted(row), math.inf][:2]
        for rank, own in enumerate(row):
            leads[rank] = max(leads[rank], (second if own == best else best) - own)
    found += [abs(lead) for lead in leads]  # positive for exactly the ranks that are hit
    return min(found)


def ats_macs(model: VisionTransformer, tokens: list[int]) -> int:
    """Keys, values, queries and their products for all tokens, everything behind for the kept."""
    total = backbone_macs(model, tokens[:-1], tokens[1:])
    for block, n, left in zip(model.blocks, tokens[:-1], tokens[1:], strict=True):
        attn = block.attn
        behind = n * attn.num_heads * attn.head_dim + attn.proj.weight.numel()
        if attn.gate is not None:
            behind += attn.gate.weight.numel()
        total -= (n - left) * behind
    return total
