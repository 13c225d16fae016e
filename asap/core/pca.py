"""How far tokens lie from the centre of their principal plane (paper, Appendix G)."""

import torch
from jaxtyping import Float
from torch import Tensor


def radius_in_plane(rows: Float[Tensor, "b patches n"]) -> Float[Tensor, "b patches"]:
    """Distance of each row from the mean row, both projected on the first two principal components.

    Computed in float64, on a CPU image by image, since products of several could have other last
    bits. The signs of the components do not matter. If any row of an image has NaN or infinity,
    there is no plane and all its distances are NaN.
    """
    known = rows.isfinite().flatten(1).all(1)
    finite = torch.where(known[:, None, None], rows.double(), 0.0)
    parts = [finite] if rows.is_cuda else [own.clone() for own in finite]
    found = [_radius(part).view(-1, rows.shape[1]) for part in parts]
    return torch.cat(found).masked_fill(~known[:, None], float("nan"))


def _radius(rows: Float[Tensor, "*b patches n"]) -> Float[Tensor, "*b patches"]:
    """Uses the Gram matrix of the centred rows: an eigenvector times the root of its eigenvalue
    holds the rows' coordinates on that component."""
    centred = rows - rows.mean(-2, keepdim=True)
    values, vectors = torch.linalg.eigh(centred @ centred.mT)
    coordinates = vectors[..., -2:] * values[..., None, -2:].clamp(min=0).sqrt()
    return coordinates.square().sum(-1).sqrt()
