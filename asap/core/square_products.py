"""Products of large square matrices on a CPU, by oneDNN.

torch multiplies float32 matrices by MKL, whose kernels for AMD processors stop at AVX2. oneDNN's
use AVX-512 there, and take 0.6 of the time at 197 tokens, 0.5 at 577 (one thread of an EPYC). Their
bits depend neither on the number of threads nor on where a matrix lies in memory.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

LEAST = 128  # rows: below, one call for each matrix takes longer than a call for all


def square_product(
    like: Float[Tensor, "*batch n"],
) -> Callable[[Float[Tensor, "n n"], Float[Tensor, "n n"]], Float[Tensor, "n n"]] | None:
    """`left @ right` for matrices of n rows of this type and device; None: torch's own is as good.

    It needs a torch that was built with oneDNN, as those for x86 are, and it has no gradient.
    """
    fits = like.device.type == "cpu" and like.dtype == torch.float32 and like.shape[-1] >= LEAST
    return _product if fits and OPERATOR is not None else None


def _operator() -> Callable[..., Tensor] | None:
    """torch's operator for compiled linear layers; no public one reaches oneDNN without copies."""
    if not torch.backends.mkldnn.is_available():
        return None
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None)


OPERATOR = _operator()


def _product(left: Float[Tensor, "n n"], right: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    assert OPERATOR is not None
    return OPERATOR(left, right.t(), None, "none", [], "")
