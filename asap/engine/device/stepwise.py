"""Decisions that a method makes step by step, between two recorded parts of a pass.

The method is asked as the executor asks it on a CPU: about the images that it still watches, those
of equal length together, with their names; it may read the device, and `reduce` is shown the chosen
images alone. Its decisions become one plan, as those that are recorded do.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from asap.core.packed import Segment
from asap.core.ranking import value_norms
from asap.engine import attention
from asap.engine.backend.base import Backend
from asap.engine.device.decisions import refuse_averages
from asap.engine.device.flow import Layout, Planned, Question
from asap.engine.device.query_pruning import shown_shares
from asap.engine.device.sites import Asked, by_head, by_image
from asap.engine.host import to_host
from asap.engine.kernels.class_row import class_row
from asap.engine.kernels.regroup_plan import plan_regroup
from asap.engine.regroup import Answer
from asap.engine.steps import ask
from asap.methods.base import Method, Site


def decide_now(question: Question, asked: Asked, backend: Backend) -> Planned:
    """Ask the method. Its decisions go into the memory's other plan and into the trace."""
    answers, shown = list[tuple[Tensor, Answer]](), _shown(question, asked)
    for images, length in _groups(question.layout, asked):
        site = _site(question, asked, shown, images, length, backend)
        segment = Segment(images, 0, 0, length, True)
        answer = ask(asked.method, site, segment, asked.memory.trace)
        if answer is not None:
            refuse_averages(asked.method, answer.decision)
            answers.append((site.images, answer))
    return _planned(question, asked, answers)


def _groups(layout: Layout, asked: Asked) -> list[tuple[tuple[int, ...], int]]:
    """The watched images by length; read from the device once they may differ in it."""
    memory = asked.memory
    if layout.length is not None:
        return [(tuple(range(len(memory.ones))), layout.length)]
    plan, found = memory.plans[layout.side], dict[int, list[int]]()
    read = to_host(torch.stack([plan.offsets.diff().long(), plan.watched.long()]))
    for image, (length, shown) in enumerate(read.T.tolist()):
        if shown:
            found.setdefault(length, []).append(image)
    return [(tuple(images), length) for length, images in found.items()]


def _site(
    question: Question,
    asked: Asked,
    shown: Tensor | None,
    images: tuple[int, ...],
    n: int,
    backend: Backend,
) -> Site:
    """The site of some images of n tokens each."""
    method, memory, needs = asked.method, asked.memory, asked.method.needs
    held, heads = memory.tokens[question.layout.side], question.seen[0]
    # Not among the numbers that are kept (`on_device`): there are too many such groups.
    index = torch.tensor(images, device=memory.ones.device)
    at = None
    if question.layout.length is None:
        first = memory.plans[question.layout.side].offsets[index].long()
        at = first[:, None] + torch.arange(n, device=index.device)
    count, ids, drawn = len(images), asked.image_ids, asked.drawn
    tokens = by_image(held.rows, at, count, n)
    site = Site(
        anatomy=asked.adapter.anatomy,
        block=question.block,
        tokens=tokens if needs.tokens else tokens[..., :0],
        sizes=by_image(held.sizes, at, count, n),
        images=index,
        image_ids=None if ids is None else [ids[i] for i in images],
        attention=_attention(question, asked, shown, index, at, n, backend),
        keys=by_head(heads.k, at, count, n) if needs.keys and heads else None,
        values=by_head(heads.v, at, count, n) if needs.values and heads else None,
        value_norms=_norms(question, asked, at, count, n) if needs.value_norms else None,
        drawn=None if drawn is None else drawn[index],
        state=asked.state,
    )
    return _lasting(site) if type(method).start is not Method.start else site


def _lasting(site: Site) -> Site:
    """The site in memory of its own, for a state that keeps what it is shown."""
    names = "tokens", "sizes", "attention", "keys", "values"
    shown = {name: getattr(site, name) for name in names}
    return replace(site, **{k: None if x is None else x.clone() for k, x in shown.items()})


def _norms(
    question: Question, asked: Asked, at: Tensor | None, count: int, n: int
) -> Float[Tensor, "b patches"] | None:
    heads = question.seen[0]
    if heads is None:
        return None
    return value_norms(by_image(heads.v, at, count, n)[:, asked.adapter.anatomy.prefix :])


def _shown(question: Question, asked: Asked) -> Tensor | None:
    """The attention that can be had of all images together: class rows, and maps from the recorded
    part."""
    (heads, maps), wanted, layout = question.seen, asked.method.needs.attention, question.layout
    if heads is None or wanted is None or wanted.rows != "class":
        return None if maps is None else maps.to(asked.memory.ones.dtype)
    if asked.method.position == "in_attention":
        return shown_shares(heads, layout, asked.method, asked.memory)
    bias = _log_sizes(question, asked)
    bias = None if bias is None else bias[: layout.rows]
    offsets, size = asked.memory.plans[layout.side].offsets, (layout.longest, heads.scale)
    return class_row(heads.q, heads.k, offsets, *size, bias, wanted.heads == "mean")


def _log_sizes(question: Question, asked: Asked) -> Float[Tensor, "rows"] | None:
    """What proportional attention adds to the scores of every row; None: nothing."""
    if not (asked.method.proportional_attention and question.layout.merged):
        return None
    return asked.memory.tokens[question.layout.side].log_sizes


def _attention(
    question: Question,
    asked: Asked,
    shown: Tensor | None,
    index: Int[Tensor, "b"],
    at: Int[Tensor, "b n"] | None,
    n: int,
    backend: Backend,
) -> Float[Tensor, "b *rows n"] | None:
    """What the method needs of the attention of some images, in at least float32.

    `shown`, but for maps of single heads and of images that have lost tokens: these are explicit.
    """
    heads, wanted, memory = question.seen[0], asked.method.needs.attention, asked.memory
    if wanted is None or heads is None:
        return None
    lost = at is not None and n < memory.ones.shape[1]
    if shown is not None and not (lost and wanted.rows == "all"):
        return shown if at is None else shown[index][..., :n]
    q, k, v = (by_head(x, at, len(index), n) for x in (heads.q, heads.k, heads.v))
    sizes = _log_sizes(question, asked)
    bias = None if sizes is None else by_image(sizes, at, len(index), n)[:, None, None].to(q.dtype)
    mean = wanted.heads == "mean"
    found = attention.eager_attention(q, k, v, heads.scale, bias, backend, mean, not mean)
    return found[1] if mean else found[2]


def _planned(
    question: Question, asked: Asked, answers: Sequence[tuple[Int[Tensor, "images"], Answer]]
) -> Planned:
    """The plan of all answers about some images each; images without one stay as they are."""
    layout, memory = question.layout, asked.memory
    before, after = memory.plans[layout.side], memory.plans[layout.side ^ 1]
    weights = memory.weights(layout)
    target = torch.full(weights.shape, -1, device=weights.device)
    averages = any(answer.decision.weight is not None for _, answer in answers)
    weight = torch.ones_like(weights) if averages else None
    left = before.offsets.diff().long()
    chosen = torch.zeros_like(before.watched)
    done = torch.zeros_like(before.watched)
    for index, answer in answers:
        decision, length = answer.decision, answer.segment.length
        taken = chosen.new_ones(len(index)) if answer.chosen is None else answer.chosen
        target[index, :length] = decision.target.long()
        left[index] = left.new_zeros(len(index)) + decision.left
        chosen[index] = taken
        done[index] = taken & decision.final
        if weight is not None and decision.weight is not None:
            weight[index, :length] = decision.weight.to(weight.dtype)
    plan_regroup(
        *(target, left, before.offsets, memory.source, layout.rows, weight, chosen),
        before.watched,
        out=after,
    )
    after.watched.logical_and_(~done)
    after.counts[1:2] = after.watched.sum(0, keepdim=True)
    memory.trace.macs_method += after.averaged * asked.adapter.anatomy.width
    return Planned(weight, _layout_after(layout, asked, [answer for _, answer in answers]))


def _layout_after(layout: Layout, asked: Asked, answers: Sequence[Answer]) -> Layout | None:
    """The layout after the decisions; None if the host does not know it."""
    if not answers:
        return replace(layout, side=layout.side ^ 1)
    decision, chosen = answers[0].decision, answers[0].chosen
    if layout.length is None or chosen is not None or not isinstance(decision.left, int):
        return None
    left, merged = decision.left, layout.merged or asked.method.position != "in_attention"
    rows = len(asked.memory.ones) * left
    return Layout(rows, left, left, not decision.final, merged, layout.side ^ 1)
