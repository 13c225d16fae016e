"""Groups of patches by principal component, from a randomised PCA with a given projection.

The range finder is Algorithm 4.4 of Halko, Martinsson and Tropp, "Finding structure with
randomness", 2011, with two power iterations, as in `torch.pca_lowrank`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

ITERATIONS = 2


def principal_groups(
    values: Float[Tensor, "b channels patches"], projection: Float[Tensor, "b least q"]
) -> Int[Tensor, "b patches"]:
    """The component on which each patch has the largest loading, 0 .. q - 1 (ties: the first).

    Patches are the variables and channels the samples, centred over the channels. `projection`: of
    standard normal numbers, `least` being the smaller of channels and patches; components are in
    the order of their singular values. Computed in float64; what is not finite counts as 0.
    """
    values = values.double().nan_to_num(posinf=0, neginf=0)
    centred = values - values.mean(1, keepdim=True)
    tall = centred.shape[1] >= centred.shape[2]
    matrix = centred if tall else centred.transpose(1, 2)
    basis = torch.linalg.qr(matrix @ projection.double()).Q
    for _ in range(ITERATIONS):
        basis = torch.linalg.qr(matrix.transpose(1, 2) @ basis).Q
        basis = torch.linalg.qr(matrix @ basis).Q
    left, _, right = torch.linalg.svd(basis.transpose(1, 2) @ matrix, full_matrices=False)
    loadings = right.transpose(1, 2) if tall else basis @ left
    return loadings.abs().max(dim=2).indices


def principal_macs(channels: int, patches: int, q: int) -> int:
    """MACs of the products; the decompositions are not counted."""
    products = (2 + 2 * ITERATIONS) * channels * patches * q
    return products if channels >= patches else products + patches * q**2
