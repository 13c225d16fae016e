"""The emergence of an image's attention sink: its largest column mass against a threshold.

Paper, Section 3.2: column j of P has the mass `sum_i P(i, j)`, which is 1 on average.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from asap.core.accelerated import accelerated


def emergence(
    mass: Float[Tensor, "b m"], tau: float
) -> tuple[Float[Tensor, "b"], Bool[Tensor, "b"], Float[Tensor, "b"]]:
    """Largest mass of every image, whether it exceeds `tau`, and how far it is from it."""
    if (found := accelerated("emergence", mass, mass, tau)) is not None:
        return found
    largest = mass.amax(1)
    return largest, largest > tau, torch.abs(largest - tau)
