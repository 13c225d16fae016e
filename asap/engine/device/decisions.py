"""The two questions to a method about all images of a batch at once, and the plan of its answer."""

from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from asap.backbones.adapter import BackboneAdapter
from asap.core.constants import on_device
from asap.core.ranking import value_norms
from asap.engine.attention import Heads
from asap.engine.device.flow import Flow, Layout, NotOnDevice, Planned
from asap.engine.device.memory import Memory
from asap.engine.device.noting import note
from asap.engine.kernels.regroup_plan import plan_regroup
from asap.methods.base import Method, Site


def fits(adapter: BackboneAdapter, method: Method, like: Tensor) -> bool:
    """Whether a pass on the device can run the method; else the executor does. `like`: tokens.

    Not if the method draws when it reduces, if attention and tokens differ in width, or if a method
    inside the attention observes or reads more of it than the class row. Nor if images may differ
    in length, because the method observes or has `mixed_lengths`, and it reads keys, values or
    tokens, or has a state that is not in fixed memory.
    """
    if {block.attn.attn_dim for block in adapter.blocks} != {adapter.anatomy.width}:
        return False
    if method.draws and method.draw(adapter.anatomy, [0]) is None:
        return False
    needs, wanted = method.needs, method.needs.attention
    class_row = wanted is None or wanted.rows == "class"
    if method.position == "in_attention" and (observes(method) or not class_row):
        return False
    if not observes(method) and not method.mixed_lengths:
        return True
    if needs.keys or needs.values or needs.tokens:
        return False
    if not observes(method):
        return class_row and type(method).start is Method.start
    each = wanted is not None and wanted.heads == "each"
    if each or needs.value_norms:
        return False
    return method.kept_state(adapter.anatomy, 1, like) is not None


def observes(method: Method) -> bool:
    """Whether the method looks at its images before it reduces them."""
    return type(method).observe is not Method.observe


def watched(memory: Memory, layout: Layout) -> Bool[Tensor, "b"] | None:
    """The mask of the images that are still watched; None: all of them."""
    return None if layout.length is not None else memory.plans[layout.side].watched


def site_at(
    index: int,
    flow: Flow,
    adapter: BackboneAdapter,
    method: Method,
    memory: Memory,
    state: Any,
    drawn: Tensor | None,
) -> Site:
    """All images at a block. Those that are no longer watched are among them, with any content."""
    layout, needs, images = flow.layout, method.needs, len(memory.ones)
    heads, shown = flow.seen
    held, lengths, norms = memory.tokens[layout.side], None, None
    if needs.value_norms and isinstance(heads, Heads):
        norms = value_norms(heads.v)
    if layout.length is None and method.mixed_lengths:
        offsets = memory.plans[layout.side].offsets
        place = torch.arange(layout.longest, device=offsets.device)
        places = (offsets[:-1, None] + place).clamp(max=layout.rows - 1)
        lengths, sizes = offsets.diff(), held.sizes[places]
        tokens = sizes[..., None][..., :0]
        if norms is not None:  # rows behind the last image may hold NaN, and 0 * NaN is NaN
            norms = norms[places].masked_fill(place >= lengths[:, None], 0.0)
    elif layout.length is None:  # watched images have all their tokens
        tokens, sizes = memory.ones[..., None][..., :0], memory.ones
    else:
        width = adapter.anatomy.width if needs.tokens else 0
        tokens = held.rows[: layout.rows].view(images, layout.length, -1)[..., :width]
        sizes = held.sizes[: layout.rows].view(images, layout.length)
        norms = None if norms is None else norms.view(images, layout.length)

    def by_head(wanted: bool, x: Tensor | None) -> Tensor | None:
        return x.unflatten(0, (images, -1)).transpose(1, 2) if wanted and x is not None else None

    return Site(
        anatomy=adapter.anatomy,
        block=index,
        tokens=tokens,
        sizes=sizes,
        images=on_device(tuple(range(images)), sizes.device),
        attention=shown,
        keys=by_head(needs.keys, heads.k if isinstance(heads, Heads) else None),
        values=by_head(needs.values, heads.v if isinstance(heads, Heads) else None),
        value_norms=None if norms is None else norms[:, adapter.anatomy.prefix :],
        drawn=drawn,
        state=state,
        looks=False,
        watched=watched(memory, layout),
        lengths=lengths,
    )


def decide(site: Site, layout: Layout, method: Method, memory: Memory) -> Planned | None:
    """Ask the method. Its decision goes into the memory's other plan and into the trace.

    NotOnDevice if images may differ in length afterwards and still be watched.
    """
    trace, mask, chosen = memory.trace, watched(memory, layout), None
    seen = method.observe(site)
    if seen is not None:
        note(trace, site.block, seen.macs, seen.diagnostics, mask)
        if seen.chosen is None:
            return None
        chosen = seen.chosen if isinstance(seen.chosen, Tensor) else None
    decision = method.reduce(site, chosen)
    if decision is None:
        return None
    inside = method.position == "in_attention"
    if inside and decision.weight is not None:
        raise ValueError("a method cannot average tokens at position 'in_attention'")
    counted = mask if chosen is None else chosen if mask is None else chosen & mask
    plan = plan_regroup(
        decision.target,
        decision.left,
        memory.plans[layout.side].offsets,
        memory.source,
        layout.rows,
        decision.weight,
        chosen,
        mask,
        decision.final,
        out=memory.plans[layout.side ^ 1],
    )
    averaged = plan.averaged, site.anatomy.width
    note(trace, site.block, decision.macs, decision.diagnostics, counted, averaged)
    left = decision.left if counted is None else None
    if isinstance(left, int):
        rows = len(site.images) * left
        merged = layout.merged or not inside
        after = Layout(rows, left, left, not decision.final, merged, layout.side ^ 1)
        return Planned(decision.weight, after)
    if not method.mixed_lengths and not (decision.final and observes(method)):
        raise NotOnDevice("images of different lengths that are still shown to the method")
    return Planned(decision.weight, None)
