"""How far tokens lie from the centre of their principal plane (paper, Appendix G)."""

import torch
from jaxtyping import Float
from torch import Tensor


def radius_in_plane(rows: Float[Tensor, "b patches n"]) -> Float[Tensor, "b patches"]:
    """Distance of each row from the mean row, both projected on the first two principal components.

    Computed in float64, image by image. The signs of the components do not matter. If any row of an
    image has NaN or infinity, there is no plane and all its distances are NaN.
    """
    known = rows.isfinite().flatten(1).all(1).tolist()
    none = rows.new_full(rows.shape[1:2], float("nan"), dtype=torch.float64)
    pairs = zip(rows, known, strict=True)
    return torch.stack([_radius(own.double().clone()) if there else none for own, there in pairs])


def _radius(rows: Float[Tensor, "patches n"]) -> Float[Tensor, "patches"]:
    """Uses the Gram matrix of the centred rows: an eigenvector times the root of its eigenvalue
    holds the rows' coordinates on that component."""
    centred = rows - rows.mean(0)
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    coordinates = vectors[:, -2:] * values[-2:].clamp(min=0).sqrt()
    return coordinates.square().sum(1).sqrt()
