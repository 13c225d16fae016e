"""PruneSID on one image, in float64, with plain loops; the projection of its PCA is given.

After one block: patches are grouped by principal component, thinned by similarity within each
group, and every group keeps a share of the budget.

How open points are read
------------------------
* T counts the class token: T - 1 patches stay. There are max(1, T // 4) groups, but at most as
  many as channels or patches.
* Groups: the sigmoids of the tokens as a matrix channels x patches, centred over channels; its
  right singular vectors within the range that two power iterations give from the projection. A
  patch belongs to the component on which its loading is largest in size.
* Score of patch j: sum over heads of A[class, j]; ties by index.
* In a group, by falling score: a patch is put off if its cosine to one that was taken exceeds
  T / 32 times the mean cosine of all pairs of patches.
* Quotas: see `quotas`; shares, their running sums and the products are float32 numbers (added up
  in float64, as torch does it on a CPU); halves are rounded to even.
* Of each group its taken patches by score, then those put off by score, as many as its quota. The
  prefix, then group after group. If all patches would stay, nothing happens.
* Counted: the cosines of all pairs, and the products of the PCA.
"""

import math
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from .tower_result import Result, result_of
from .visionzip_ref import class_scores, cosine
from .vit import Reduction, View, forward


def reference_prunesid(
    model: VisionTransformer,
    image: Float[Tensor, "c height width"],
    tokens: int,
    block: int,
    projection: Float[Tensor, "least groups"],
) -> Result:
    """Run PruneSID on one image, after block `block` (from 1)."""
    step = _Step(tokens, block, projection.double().numpy())
    return result_of(model, step, forward(model, image, step, "after_block"))


def loadings(
    values: Float[np.ndarray, "channels patches"], projection: Float[np.ndarray, "least q"]
) -> tuple[Float[np.ndarray, "patches q"], Float[np.ndarray, "q"]]:
    """Loadings of each patch, and the singular values. Bases come from SVDs, not from QR."""

    def basis(columns: np.ndarray) -> np.ndarray:
        return np.linalg.svd(columns, full_matrices=False)[0]

    centred = values - values.mean(axis=0, keepdims=True)
    wide = centred.shape[0] < centred.shape[1]
    matrix = centred.T if wide else centred
    spanned = basis(matrix @ projection)
    for _ in range(2):
        spanned = basis(matrix @ basis(matrix.T @ spanned))
    small = spanned.T @ matrix
    squares, rotation = np.linalg.eigh(small @ small.T)
    order = np.argsort(-squares)
    sizes, rotation = np.sqrt(np.maximum(squares[order], 0)), rotation[:, order]
    found = spanned @ rotation if wide else small.T @ rotation / sizes
    return found, sizes


def quotas(sizes: list[int], taken: list[int], tokens: int) -> list[int]:
    """How many patches each group keeps, T - 1 in all.

    At least one each; the others in proportion to the number taken. At most 5 for every 64 tokens
    begun, and the number taken; while the limits add up to less than T, all grow by one, up to the
    group's size. What is missing then goes to the groups with the most taken, first come first.
    """
    groups = range(len(sizes))
    limit = [min(5 * -(-tokens // 64), sizes[g], taken[g]) for g in groups]
    while sum(limit) < tokens and limit != sizes:
        limit = [min(limit[g] + 1, sizes[g]) for g in groups]
    first = [1 if sizes[g] else 0 for g in groups]
    others = max(0, tokens - sum(first) - 1)
    shares, before, running = [], 0, 0.0
    for g in groups:
        running += float(np.float32(taken[g]) / np.float32(sum(taken)))
        now = int(np.rint(np.float32(running) * np.float32(others)))
        shares.append(now - before)
        before = now
    kept = [min(first[g] + shares[g], limit[g]) for g in groups]
    for g in sorted(groups, key=lambda g: (-taken[g], g)):
        while kept[g] < limit[g] and sum(kept) < others + sum(first):
            kept[g] += 1
    return kept


@dataclass
class _Step:
    tokens: int
    block: int
    projection: Float[np.ndarray, "least groups"]
    margins: list[float] = field(default_factory=list)
    macs: int = 0

    def __call__(self, view: View) -> Reduction | None:
        p, patches = view.n_prefix, len(view.sizes) - view.n_prefix
        if view.block != self.block or self.tokens - 1 >= patches:
            return None
        rows = view.tokens[p:]
        group = self._groups(rows)
        similar = [[cosine(a, b) for b in rows] for a in rows]
        self.macs += patches * patches * rows.shape[1]
        pairs = [similar[i][j] for i in range(patches) for j in range(i + 1, patches)]
        limit = self.tokens / 32 * sum(pairs) / len(pairs)
        scores = class_scores(view)
        ranked = sorted(range(patches), key=lambda j: (-scores[j], j))
        self.margins += [1 - scores[b] / scores[a] for a, b in pairwise(ranked)]
        taken, put_off = [], []
        for g in range(self.projection.shape[1]):
            members = [j for j in ranked if group[j] == g]
            taken.append([])
            for j in members:
                near = [similar[j][k] for k in taken[g]]
                self.margins += [abs(s - limit) for s in near]
                if not any(s > limit for s in near):
                    taken[g].append(j)
            put_off.append([j for j in members if j not in taken[g]])
        sizes = [len(a) + len(b) for a, b in zip(taken, put_off, strict=True)]
        share = quotas(sizes, [len(a) for a in taken], self.tokens)
        kept = [(a + b)[:n] for a, b, n in zip(taken, put_off, share, strict=True)]
        stay = [*range(p), *(p + j for one in kept for j in one)]
        destination = torch.full((len(view.sizes),), -1)
        destination[stay] = torch.arange(len(stay))
        return Reduction(view.tokens[stay], view.sizes[stay], destination)

    def _groups(self, rows: Float[Tensor, "patches width"]) -> list[int]:
        values = 1 / (1 + np.exp(-rows.numpy().T))
        found, singular = loadings(values, self.projection)
        (channels, patches), count = values.shape, self.projection.shape[1]
        self.macs += 6 * channels * patches * count  # onto the projection, and five times back
        self.macs += patches * count * count if channels < patches else 0
        gaps = [(a - b) / a for a, b in pairwise(singular)]
        size = np.sort(np.abs(found), axis=1)
        lead = (size[:, -1] - size[:, -2]).min() / size.max() if count > 1 else math.inf
        self.margins.append(float(lead * min(gaps, default=1.0)))
        return np.abs(found).argmax(axis=1).tolist()
