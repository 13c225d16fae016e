"""Attention of a batch on the device, and what the method sees of it."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from asap.engine import attention
from asap.engine.attention import Heads
from asap.engine.backend.base import Backend
from asap.engine.device.flow import Layout
from asap.engine.device.memory import Memory
from asap.engine.device.sites import watched, whole
from asap.engine.kernels.attention import ragged_attention
from asap.engine.kernels.class_row import class_row
from asap.engine.kernels.equal_attention import equal_attention
from asap.engine.kernels.head_mean_map import head_mean_map
from asap.methods.base import Method, Needs


def attend(
    heads: Heads,
    layout: Layout,
    method: Method,
    needs: Needs,
    memory: Memory,
    backend: Backend,
    step_by_step: bool = False,
) -> tuple[Float[Tensor, "rows width"], Tensor | None]:
    """Attention within every image, and the shares that are needed, of all images.

    step_by_step: of what is needed, the mean maps alone, of images that have lost no tokens:
    `stepwise.py` computes all else when it asks. Images of equal length without sizes go through
    the library's fused kernels, unless the backend is strict.
    """
    wanted = needs.attention
    weighted = method.proportional_attention and layout.merged
    bias = memory.tokens[layout.side].log_sizes[: layout.rows] if weighted else None
    offsets, out, shown = memory.plans[layout.side].offsets, memory.attended[: layout.rows], None
    rows, by = (None, None) if wanted is None else (wanted.rows, wanted.heads)
    maps = rows == "all" and not (step_by_step and by == "each")
    if maps and by == "each":
        return _each_head(heads, layout, bias, backend, len(memory.ones))
    equal = layout.length is not None and bias is None and not backend.strict
    if equal and not maps:
        out = _equal(heads, len(memory.ones))
    else:
        q, k, v, scale = heads.q, heads.k, heads.v, heads.scale
        if equal:
            found, lse = equal_attention(q, k, v, len(memory.ones), scale)
            out = found.flatten(1)
        else:
            where, view = (offsets, layout.longest), out.view(q.shape)
            lse = ragged_attention(q, k, v, *where, scale, bias, None, view, maps)[1]
        if maps:
            n = memory.ones.shape[1] if layout.length is None else layout.length
            room = memory.maps if n == memory.ones.shape[1] else None
            mask = (whole if step_by_step else watched)(memory, layout)
            assert lse is not None
            shown = head_mean_map(q, k, lse, offsets, n, scale, mask, bias, room)
            shown = shown if needs.half else shown.to(memory.ones.dtype)
    if rows == "class" and not step_by_step:
        size = layout.longest, heads.scale
        shown = class_row(heads.q, heads.k, offsets, *size, bias, by == "mean")
    return out, shown


def _equal(heads: Heads, images: int) -> Float[Tensor, "rows width"]:
    """Images of equal length by torch's fused kernel."""
    q, k, v = (x.unflatten(0, (images, -1)).transpose(1, 2) for x in (heads.q, heads.k, heads.v))
    return attention.joined(F.scaled_dot_product_attention(q, k, v, scale=heads.scale))


def _each_head(
    heads: Heads, layout: Layout, bias: Tensor | None, backend: Backend, images: int
) -> tuple[Float[Tensor, "rows width"], Float[Tensor, "b h n n"]]:
    """Explicit softmax attention of images of equal length, with the maps of all heads."""
    q, k, v = (x.unflatten(0, (images, -1)).transpose(1, 2) for x in (heads.q, heads.k, heads.v))
    added = None if bias is None else bias.view(images, 1, 1, -1).to(q.dtype)
    out, _, maps = attention.eager_attention(q, k, v, heads.scale, added, backend, with_heads=True)
    return attention.joined(out), maps
