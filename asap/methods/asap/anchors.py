"""Which patch the distances are measured from."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from asap.core.diffusion import patch_rows
from asap.core.order import first_argmax
from asap.core.pca import radius_in_plane
from asap.methods.asap.options import AsapOptions
from asap.methods.asap.walk import Walk
from asap.methods.base import Anatomy, Site, generator


def find_anchor(
    options: AsapOptions, site: Site, matrix: Float[Tensor, "b n n"]
) -> tuple[Int[Tensor, "b"], Float[Tensor, "b"]]:
    """The anchor patch of a site's images, and its lead over the next patch.

    `matrix` is P, or the block's attention without accumulation. The lead of a random one is NaN.
    """
    if options.anchor == "random":
        assert site.drawn is not None
        return site.drawn, matrix.new_full((len(site.drawn),), float("nan"))
    scores = _scores(options, site, matrix)
    best = scores.topk(2, dim=1).values
    return first_argmax(scores), (best[:, 0] - best[:, 1]).to(matrix.dtype)


def anchor_macs(options: AsapOptions, site: Site) -> int:
    """MACs per image: the PCA centre needs the products of all pairs of patches' rows."""
    patches = site.length - site.prefix
    return patches**2 * site.length if options.anchor == "pca" else 0


def drawn_anchors(
    options: AsapOptions, anatomy: Anatomy, image_ids: Sequence[int]
) -> Int[Tensor, "b"]:
    """A patch of every image, drawn at random."""
    sources = [generator(options.seed, image_id) for image_id in image_ids]
    return torch.cat([torch.randint(anatomy.patches, (1,), generator=one) for one in sources])


def _scores(
    options: AsapOptions, site: Site, matrix: Float[Tensor, "b n n"]
) -> Float[Tensor, "b patches"]:
    """Scores of the patches; the anchor is the one with the largest."""
    walk: Walk = site.state
    if options.anchor == "pca":
        return -radius_in_plane(patch_rows(matrix, site.prefix))
    if options.anchor == "sink":
        row = walk.class_row(site.images) if options.accumulate else matrix[:, 0]
        return row[:, site.prefix :]
    mass = walk.mass(site.images) if options.accumulate else matrix.sum(1)
    return mass[:, site.prefix :] if options.anchor == "mass" else -mass[:, site.prefix :]
