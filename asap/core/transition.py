"""The lazy random walk of an image's tokens (paper, Section 3.1).

`A_l` is block l's attention averaged over heads, `T_l = alpha A_l + (1 - alpha) I` (Eq. 1) and
`P_l = P_{l-1} T_l` with `P_0 = I` (Eq. 2). `T` is never built: `P T = alpha P A + (1 - alpha) P`.
In this order every row of P evolves alone, so the column mass `1^T P` and the CLS row need vectors
only (Appendix B, Eq. 9).
"""

import torch
from jaxtyping import Float
from torch import Tensor

from asap.core.rows import row_products
from asap.core.square_products import square_product


def start_vectors(images: int, tokens: int, like: Tensor) -> Float[Tensor, "images 2 tokens"]:
    """Column mass (row 0) and CLS row (row 1) of `P_0 = I`."""
    vectors = like.new_zeros(images, 2, tokens)
    vectors[:, 0] = 1
    vectors[:, 1, 0] = 1
    return vectors


def walk_vectors(
    vectors: Float[Tensor, "b r n"], attention: Float[Tensor, "b n n"], alpha: float
) -> Float[Tensor, "b r n"]:
    """Row vectors `v T` after one more block."""
    return row_products(vectors, attention).mul_(alpha).add_(vectors, alpha=1 - alpha)


def first_walk(
    attention: Float[Tensor, "b n n"], alpha: float, out: Float[Tensor, "b n n"] | None = None
) -> Float[Tensor, "b n n"]:
    """`P_1 = T_1`; in the memory of `out`, if given."""
    walk = torch.mul(attention, alpha, out=out)
    walk.diagonal(dim1=1, dim2=2).add_(1 - alpha)
    return walk


def walk_on(
    walk: Float[Tensor, "b n n"],
    attention: Float[Tensor, "b n n"],
    alpha: float,
    out: Float[Tensor, "b n n"] | None = None,
) -> Float[Tensor, "b n n"]:
    """`P T`: the walk's own order (Eq. 2); in the memory of `out`, if given, which may be P's."""
    return _walk_on(walk, walk, attention, alpha, out)


def rollout_on(
    walk: Float[Tensor, "b n n"],
    attention: Float[Tensor, "b n n"],
    alpha: float,
    out: Float[Tensor, "b n n"] | None = None,
) -> Float[Tensor, "b n n"]:
    """`T P`: the order of Attention Rollout; `out` as for `walk_on`."""
    return _walk_on(walk, attention, walk, alpha, out)


def _walk_on(
    walk: Float[Tensor, "b n n"],
    left: Float[Tensor, "b n n"],
    right: Float[Tensor, "b n n"],
    alpha: float,
    out: Float[Tensor, "b n n"] | None,
) -> Float[Tensor, "b n n"]:
    """`(1 - alpha) walk + alpha left right`."""
    product = square_product(walk)
    if product is None:
        after = torch.baddbmm(walk, left, right, beta=1 - alpha, alpha=alpha)
        return after if out is None else out.copy_(after)
    out = torch.empty_like(walk) if out is None else out
    # image by image, so that a product is still in the cache when it is added
    for old, a, b, new in zip(*(x.unbind() for x in (walk, left, right, out)), strict=True):
        torch.lerp(old, product(a, b), alpha, out=new)
    return out
