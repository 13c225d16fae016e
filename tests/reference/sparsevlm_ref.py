"""SparseVLM on one prompt, in float64, with plain loops, computed again for every token.

How open points are read
------------------------
* Text: all rows behind the visual ones. Raters: rows whose share in the softmax over text of
  (visual embedding . text embedding), averaged over visual rows, is above the mean over text; all
  of them if none is.
* Score of a visual row: mean over raters and heads of the attention of the layer that has been run.
* k = min(list, V - 1) rows stay, in their order. Of the n others the int(0.3 n) + 1 best, best
  first, are clustered into int(m / 10) + 1 groups, whose plain means follow the rows that stay.
* Density peaks: distance L2 / sqrt(D); density exp(-mean of the squares of the k smallest
  distances), a row's distance to itself among them, without noise; separation: the smallest
  distance to a row of higher density, the largest distance of all where there is none. Centres by
  falling product, ties to the lowest index; a centre belongs to itself, others to the nearest.
* Positions behind a cut are 0, 1, 2, ... In each layer a generated row follows the rows there.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .llama_ref import attend, logits


@dataclass(frozen=True)
class Result:
    raters: list[int]
    kept: list[list[int]]  # of the visual rows there were, at each cut
    logits: list[Tensor]  # of every step
    lengths: list[int]  # rows that enter each layer
    margin: float  # smallest lead of a kept or recycled row over the next one


def raters_of(visual: Tensor, text: Tensor) -> list[int]:
    mean = [0.0] * len(text)
    for row in visual:
        products = [float(row @ other) for other in text]
        top = max(products)
        terms = [math.exp(product - top) for product in products]
        for j, term in enumerate(terms):
            mean[j] += term / sum(terms) / len(visual)
    average = sum(mean) / len(mean)
    return [j for j, share in enumerate(mean) if share > average] or list(range(len(text)))


def clusters(rows: Tensor, count: int) -> list[list[int]]:
    """Members of each cluster, in the order in which centres are chosen."""
    m = len(rows)
    distance = [
        [math.sqrt(float(((a - b) ** 2).sum())) / math.sqrt(rows.shape[1]) for b in rows]
        for a in rows
    ]
    density = [math.exp(-sum(d * d for d in sorted(row)[:count]) / count) for row in distance]
    largest = max(map(max, distance))
    rank = []
    for i in range(m):
        denser = [distance[i][j] for j in range(m) if density[j] > density[i]]
        rank.append(density[i] * min(denser, default=largest))
    centres = sorted(range(m), key=lambda i: (-rank[i], i))[:count]
    members: list[list[int]] = [[] for _ in centres]
    for i in range(m):
        to = [distance[i][centre] for centre in centres]
        members[centres.index(i) if i in centres else to.index(min(to))].append(i)
    return members


def reference_sparsevlm(
    model, rows: Tensor, prefix: int, visual: int, layers: list[int], lists: list[int],
    tokens: list[int],
) -> Result:  # fmt: skip
    """rows (n, D) of the prompt; `tokens` are the ids that are generated."""
    found, kept, lengths, margin = [], [], [], math.inf
    raters = raters_of(rows[prefix : prefix + visual], rows[prefix + visual :])
    for t in range(len(tokens) + 1):
        kept, lengths, v = [], [], visual
        generated = model.model.embed_tokens.weight.double()[tokens[:t]]
        now = torch.cat([rows, generated])
        for index, module in enumerate(model.model.layers):
            lengths.append(len(now) - t)
            after = attend(model.config, module, now, range(len(now)))
            now = after.rows
            if index not in layers:
                continue
            behind = prefix + v
            at = [behind + rater for rater in raters]
            scores = after.shares[:, at, prefix:behind].mean((0, 1)).tolist()
            order = sorted(range(v), key=lambda j: (-scores[j], j))
            k = min(lists[layers.index(index)], v - 1)
            recycled = order[k : k + int(0.3 * (v - k)) + 1]
            edges = [k] if k + len(recycled) == v else [k, k + len(recycled)]
            margin = min(margin, *(scores[order[e - 1]] - scores[order[e]] for e in edges))
            kept.append(sorted(order[:k]))
            groups = clusters(now[[prefix + j for j in recycled]], int(len(recycled) / 10) + 1)
            means = [now[[prefix + recycled[i] for i in g]].mean(0) for g in groups]
            stay = [*range(prefix), *(prefix + j for j in kept[-1])]
            now = torch.cat([now[stay], torch.stack(means), now[behind:]])
            v = k + len(groups)
        found.append(logits(model, now))
    return Result(raters, kept, found, lengths, margin)
