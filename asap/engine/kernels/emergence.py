"""The test of the column mass in one launch: one program looks at one image's columns."""

from typing import no_type_check

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from asap.engine.kernels.launch import jit, next_power_of_2, runs, tl


@jit(do_not_specialize=["n", "row"])
@no_type_check
def _emergence_kernel(mass, largest, exceeds, margin, n, row, tau, WIDTH: tl.constexpr):
    """Largest mass of one image, its sign against tau, and its distance."""
    image = tl.program_id(0).to(tl.int64)
    place = tl.arange(0, WIDTH)
    values = tl.load(mass + image * row + place, mask=place < n, other=float("-inf"))
    # a NaN is larger than all numbers, as in torch
    broken = tl.sum(((values != values) & (place < n)).to(tl.int32), 0) > 0
    top = tl.where(broken, float("nan"), tl.max(values, 0))
    tl.store(largest + image, top)
    tl.store(exceeds + image, (top > tau).to(exceeds.dtype.element_ty))
    tl.store(margin + image, tl.abs(top - tau))


def emergence(
    mass: Float[Tensor, "b m"], tau: float
) -> tuple[Float32[Tensor, "b"], Bool[Tensor, "b"], Float32[Tensor, "b"]] | None:
    """As `asap.core.emergence.emergence`; None where the kernel does not take the masses."""
    if not runs(mass) or mass.dtype != torch.float32 or mass.stride(1) != 1:
        return None
    b, n = mass.shape
    largest, margin = (torch.empty(b, dtype=torch.float32, device=mass.device) for _ in range(2))
    exceeds = torch.empty(b, dtype=torch.bool, device=mass.device)
    _emergence_kernel[(b,)](
        mass,
        largest,
        exceeds,
        margin,
        n,
        mass.stride(0),
        tau,
        WIDTH=next_power_of_2(n, 16),
        num_warps=1 if n <= 256 else 4,
    )
    return largest, exceeds, margin
