"""The later parts of ASAP on one image: token budget, plug-in, other anchors and distances.

Plain loops over plain numbers. How open points are read
--------------------------------------------------------
* The budget counts tokens made of patches, the pooled one too. Foreground beyond it is dropped.
* Stride sampling sees the foreground clusters only, in the numbering of the bins.
* Plug-in: rounds re-split what is left in index order; positions from 0, so the first is even.
  Equal distances: the lowest index goes first. A token without a partner is dropped as it is.
* PCA centre: patch rows of P over all columns, mean over patches.
* Otsu looks at the patches other than the anchor; equal cuts: the lowest; threshold in the middle
  between the two neighbours; K from k + 1 to 64 by the nearest k/K, equal ones: the smallest.
* Spearman: the anchor is left out, ties share their mean rank.
"""

import math
from fractions import Fraction
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

INF = math.inf


# --- anchors and distances --------------------------------------------------------------------


def distances_from_centre(rows: Float[Tensor, "n N"]) -> list[float]:
    """Of each row to the mean row, both in the plane of the first two principal components."""
    centred = rows - rows.mean(dim=0)
    _, _, components = torch.linalg.svd(centred, full_matrices=False)
    return [
        math.hypot(*(float(row @ component) for component in components[:2])) for row in centred
    ]


def self_aligned(
    matrix: Float[Tensor, "N N"], sink: int, n_prefix: int, columns: str
) -> list[float]:
    """Distances that compare self-mass with self-mass and what the two give each other."""
    p, s = matrix.tolist(), n_prefix + sink
    found = []
    for i in range(n_prefix, len(p)):
        first = n_prefix if columns == "patches" else 0
        squares = [(p[i][j] - p[s][j]) ** 2 for j in range(first, len(p)) if j not in (i, s)]
        squares += [(p[i][i] - p[s][s]) ** 2, (p[i][s] - p[s][i]) ** 2]
        found.append(math.sqrt(sum(squares)))
    return found


# --- how many clusters ------------------------------------------------------------------------


def otsu_threshold(scaled: list[float], sink: int) -> tuple[float, float]:
    """The cut between near and far, and how far the next best was behind (in variance)."""
    values = sorted(d for i, d in enumerate(scaled) if i != sink)
    cuts = []
    for n_near in range(1, len(values)):
        near, far = values[:n_near], values[n_near:]
        if near[-1] == far[0]:
            continue
        gap = sum(near) / len(near) - sum(far) / len(far)
        cuts.append((len(near) * len(far) * gap**2, (near[-1] + far[0]) / 2))
    if not cuts:
        return 0.0, INF
    best = max(cuts, key=lambda cut: cut[0])  # the first of equal ones
    behind = [best[0] - cut[0] for cut in cuts if cut is not best]
    return best[1], min(behind, default=INF)


def clusters_for(threshold: float, background: int) -> tuple[int, float]:
    """K for a threshold, and how far its edge was from losing to another one."""
    gaps = {k: abs(background / k - threshold) for k in range(background + 1, 65)}
    chosen = min(gaps, key=gaps.__getitem__)  # the first of equal ones
    return chosen, min(gap - gaps[chosen] for k, gap in gaps.items() if k != chosen)


# --- token budget -----------------------------------------------------------------------------


def quotas(counts: dict[int, int], budget: int) -> dict[int, int]:
    """Largest remainder: cluster -> tokens it keeps, for fewer tokens than there are."""
    total = sum(counts.values())
    exact = {c: Fraction(budget * n, total) for c, n in counts.items()}
    found = {c: math.floor(share) for c, share in exact.items()}
    by_remainder = sorted(counts, key=lambda c: (exact[c] - found[c], c), reverse=True)
    for c in by_remainder[: budget - sum(found.values())]:
        found[c] += 1
    return found


def strides(size: int, quota: int) -> list[int]:
    return [math.floor((t + Fraction(1, 2)) * size / quota) for t in range(quota)]


def stride_sample(
    distances: list[float], bins: list[int], foreground: list[int], budget: int
) -> tuple[list[int], float]:
    """Foreground patches that stay, and the smallest gap in an order that mattered."""
    if len(foreground) <= budget:
        return foreground, INF
    clusters: dict[int, list[int]] = {}
    for i in foreground:
        clusters.setdefault(bins[i], []).append(i)
    quota = quotas({c: len(members) for c, members in clusters.items()}, budget)
    kept: list[int] = []
    margin = INF
    for c, members in clusters.items():
        members.sort(key=lambda i: (distances[i], i))
        taken = strides(len(members), quota[c])
        kept += [members[position] for position in taken]
        for position in range(1, len(members)):
            if (position in taken) != (position - 1 in taken):
                gap = distances[members[position]] - distances[members[position - 1]]
                margin = min(margin, gap)
    return sorted(kept), margin


# --- plug-in ----------------------------------------------------------------------------------


def euclidean(a: Tensor, b: Tensor) -> float:
    return math.sqrt(float(((a - b) ** 2).sum()))


def cosine(a: Tensor, b: Tensor) -> float:
    return 1 - float((a @ b) / torch.sqrt((a @ a) * (b @ b)))


def thin(
    metric: list[Tensor],
    measure,
    scores: list[float],
    foreground: list[int],
    budget: int,
    best: int,
    per_round: int = 8,
    listed: bool = False,
) -> tuple[list[int], int, float]:
    """Foreground patches that stay; distances computed; the smallest gap that decided.

    `metric`, `scores`: one entry per patch. `listed`: the others from the highest score on, and
    after a round the even ones that are left, the nearest first, then the odd ones; else by index.
    """
    if len(foreground) <= budget:
        return foreground, 0, INF
    by_score = sorted(foreground, key=lambda i: (-scores[i], i))
    top, others = by_score[:best], by_score[best:]
    margin = scores[top[-1]] - scores[by_score[best]] if top else INF
    if listed:
        margin = min([margin, *(scores[a] - scores[b] for a, b in pairwise(others))])
    else:
        others = sorted(others)
    pairs = 0
    while len(top) + len(others) > budget:
        even, odd = others[0::2], others[1::2]
        pairs += len(even) * len(odd)
        nearest = {e: min((measure(metric[e], metric[o]) for o in odd), default=INF) for e in even}
        order = sorted(even, key=lambda e: (nearest[e], e))
        n_dropped = min(per_round, len(top) + len(others) - budget, len(even))
        if 0 < n_dropped < len(order):
            margin = min(margin, nearest[order[n_dropped]] - nearest[order[n_dropped - 1]])
        if listed:
            margin = min([margin, *(nearest[b] - nearest[a] for a, b in pairwise(order))])
            others = order[n_dropped:] + odd
        else:
            others = [i for i in others if i not in order[:n_dropped]]
    return sorted(top + others), pairs, margin


# --- Appendix A -------------------------------------------------------------------------------


def mean_ranks(values: list[float]) -> list[float]:
    order = sorted(values)
    places: dict[float, list[int]] = {}
    for rank, value in enumerate(order, start=1):
        places.setdefault(value, []).append(rank)
    return [sum(places[v]) / len(places[v]) for v in values]


def spearman(x: list[float], y: list[float]) -> float:
    a, b = mean_ranks(x), mean_ranks(y)
    mean = (len(x) + 1) / 2
    products = sum((i - mean) * (j - mean) for i, j in zip(a, b, strict=True))
    spread = sum((i - mean) ** 2 for i in a) * sum((j - mean) ** 2 for j in b)
    return products / math.sqrt(spread) if spread else math.nan


def weighted_distances(matrix: Float[Tensor, "N N"], sink: int, n_prefix: int) -> list[float]:
    """sum_j (P_ij - P_sj)^2 / pi_j, pi the column mean of P."""
    p = matrix.tolist()
    n = len(p)
    share = [sum(p[i][j] for i in range(n)) / n for j in range(n)]
    s = n_prefix + sink
    return [
        sum((p[i][j] - p[s][j]) ** 2 / share[j] for j in range(n) if share[j] > 0)
        for i in range(n_prefix, n)
    ]
