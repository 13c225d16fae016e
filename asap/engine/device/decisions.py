"""Which methods a pass on the device asks, and the decision about all images of a batch at once."""

import logging

from torch import Tensor

from asap.backbones.adapter import BackboneAdapter
from asap.engine.checks import observed, reduced
from asap.engine.device.flow import Layout, Planned
from asap.engine.device.memory import Memory
from asap.engine.device.noting import note
from asap.engine.device.sites import watched
from asap.engine.graphs import Unrecordable
from asap.engine.kernels.regroup_plan import plan_regroup
from asap.engine.watched import Watched
from asap.methods.base import Decision, Method, Site

log = logging.getLogger(__name__)
# By method: why its decisions turned out in this process not to be recordable.
_unrecordable: dict[str, str] = {}


def fits(adapter: BackboneAdapter, method: Method) -> bool:
    """Whether a pass on the device can run the method; else the executor does.

    Not if attention and tokens differ in width, if a method inside the attention observes or reads
    more of it than the class row, or if it is watched by another, which keeps what it sees.
    """
    if {block.attn.attn_dim for block in adapter.blocks} != {adapter.anatomy.width}:
        return False
    if isinstance(method, Watched):
        return False
    wanted = method.needs.attention
    inside = method.position == "in_attention"
    return not (inside and (observes(method) or (wanted is not None and wanted.rows == "all")))


def why_step_by_step(adapter: BackboneAdapter, method: Method, like: Tensor) -> str | None:
    """Why the method decides step by step, between recorded parts; None: it is recorded with them.

    like: gives dtype and device of the tokens.
    """
    if not method.decides_on_device:
        return "its decisions need the host"
    if method.draws and method.draw(adapter.anatomy, [0]) is None:
        return "it draws when it decides"
    own_state = type(method).start is not Method.start
    ragged, wanted = observes(method) or method.mixed_lengths, method.needs.attention
    each = wanted is not None and (wanted.rows, wanted.heads) == ("all", "each")
    if ragged and each:
        return "it reads the maps of single heads of images that come to differ in length"
    if method.mixed_lengths and not observes(method) and wanted and wanted.rows == "all":
        return "it reads maps of images of different lengths"
    if ragged and own_state and not _state_stays(adapter, method, like):
        return "its state is not in fixed memory"
    return _unrecordable.get(named(method))


def _state_stays(adapter: BackboneAdapter, method: Method, like: Tensor) -> bool:
    return observes(method) and method.kept_state(adapter.anatomy, 1, like) is not None


def note_unrecordable(method: Method, why: str) -> None:
    """From now on the method decides step by step; says so the first time."""
    if named(method) not in _unrecordable:
        name = type(method).__name__
        log.warning("%s decides step by step, all else in a pass is recorded: %s", name, why)
    _unrecordable[named(method)] = why


def named(method: Method) -> str:
    """Its class and options, of which a user's may be such that they cannot be hashed."""
    return f"{type(method).__module__} {method!r}"


def reads_heads(method: Method) -> bool:
    """Whether what the method sees is made from queries, keys or values."""
    needs = method.needs
    return bool(needs.attention or needs.keys or needs.values or needs.value_norms)


def observes(method: Method) -> bool:
    """Whether the method looks at its images before it reduces them."""
    return type(method).observe is not Method.observe


def decide(site: Site, layout: Layout, method: Method, memory: Memory) -> Planned | None:
    """Ask the method. Its decision goes into the memory's other plan and into the trace.

    Unrecordable if images may differ in length afterwards and still be watched.
    """
    trace, mask, chosen = memory.trace, watched(memory, layout), None
    seen = observed(method, site)
    if seen is not None:
        note(trace, site.block, seen.macs, seen.diagnostics, mask)
        if seen.chosen is None:
            return None
        chosen = seen.chosen if isinstance(seen.chosen, Tensor) else None
    decision = reduced(method, site, chosen)
    if decision is None:
        return None
    inside = method.position == "in_attention"
    refuse_averages(method, decision)
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
        raise Unrecordable("its images come to differ in length and it is asked about them again")
    return Planned(decision.weight, None)


def refuse_averages(method: Method, decision: Decision) -> None:
    """ValueError for a decision that averages inside the attention."""
    if method.position == "in_attention" and decision.weight is not None:
        raise ValueError("a method cannot average tokens at position 'in_attention'")
