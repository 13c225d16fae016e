"""Clustering by density peaks (Rodriguez and Laio, Science 2014; DPC-KNN of Du et al., 2016)."""

import torch
from jaxtyping import Float
from torch import Tensor

from asap.core.order import first_argmax


def density_peaks(rows: Float[Tensor, "m dim"], clusters: int) -> Float[Tensor, "clusters dim"]:
    """The means of the rows of each cluster, in the order in which centres are chosen.

    Distances are Euclidean over sqrt(dim). A row's density is exp(-mean of the squares of its k
    smallest distances), k = clusters, that to itself being one of them; its separation the distance
    to the nearest row of higher density, or the largest distance of all if there is none. Centres
    are the rows with the largest product of density and separation; each other row goes to the
    nearest centre. Ties go to the lowest index. m^2 dim MACs.
    """
    distances = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist")
    distances = distances / rows.shape[1] ** 0.5
    density = (-distances.sort(1).values[:, :clusters].square().mean(1)).exp()
    denser = density[None, :] > density[:, None]
    separation = torch.where(denser, distances, distances.max()).amin(1)
    centres = (density * separation).argsort(descending=True, stable=True)[:clusters]
    nearest = first_argmax(-distances[:, centres])
    nearest[centres] = torch.arange(clusters, device=rows.device)  # also beside an equal row
    members = torch.nn.functional.one_hot(nearest, clusters).to(rows)
    return (members.T @ rows) / members.sum(0)[:, None]
