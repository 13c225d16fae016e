"""Contextual tokens (Yang et al., "VisionZip: Longer is Better but Not Necessary in Vision Language
Models", CVPR 2025): what is left of the tokens that were not chosen.

Written from the published description; the constants follow the authors' code.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from asap.core.constants import on_device


def contextual_groups(
    unit: Float[Tensor, "b rest d"], count: int
) -> tuple[Int[Tensor, "b rest"], Float[Tensor, "b rest"]]:
    """The contextual token (0 .. count - 1) that each token goes into, and its weight there.

    `unit`: the tokens' metric, rows of unit length. Every `max(1, rest // count)`-th token, the
    first `count` of these, is a target and stays whole; every other token goes to its most similar
    target (ties: the first), and the mean of those that came is added to the target. `count` is in
    1 .. rest. MACs: (rest - count) count d.
    """
    rest = unit.shape[1]
    step = max(1, rest // count)
    targets = tuple(range(0, step * count, step))
    others = tuple(sorted(set(range(rest)) - set(targets)))
    to, rows = on_device(targets, unit.device), on_device(others, unit.device)
    similarity = unit[:, rows] @ unit[:, to].transpose(1, 2)
    nearest = similarity.max(dim=2).indices  # the first maximum
    members = torch.zeros_like(unit[:, :count, 0])
    members = members.scatter_add(1, nearest, torch.ones_like(unit[:, rows, 0]))
    group, weight = torch.zeros_like(unit[..., 0], dtype=torch.long), torch.ones_like(unit[..., 0])
    group[:, to] = torch.arange(count, device=unit.device)
    group[:, rows] = nearest
    weight[:, rows] = 1 / members.gather(1, nearest)
    return group, weight
