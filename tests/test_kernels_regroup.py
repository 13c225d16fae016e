"""Moving and averaging rows on the device: the plan and the rows, against the engine's regrouping.

Each test runs twice, on the kernels (under Triton's interpreter where there is no CUDA device) and
on their plain versions.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
from packed_heads import DEVICE
from torch import Tensor
from torch.nn import functional as F

from asap.core.packed import PackedTokens
from asap.engine.backend import CUDA
from asap.engine.kernels.regroup_plan import RegroupPlan, plan_regroup
from asap.engine.kernels.regroup_rows import RegroupedRows, regroup_rows
from asap.engine.regroup import Answer, outcome_of, regroup
from asap.methods.base import Decision

# one unit in the last place; two in bfloat16, which Triton's interpreter rounds towards zero
large = pytest.mark.large
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 3e-2}


def made(lengths: tuple[int, ...], dim: int, dtype: torch.dtype, active: int) -> PackedTokens:
    """A batch with random rows, sizes and positions, each patch held by a random token or none."""
    draw, total = torch.Generator().manual_seed(7), sum(lengths)
    holders = [torch.randint(-1, n, (12,), generator=draw) for n in lengths]
    return PackedTokens(
        rows=torch.randn(total, dim, generator=draw).to(DEVICE, dtype),
        sizes=torch.randint(1, 5, (total,), generator=draw).float().to(DEVICE),
        positions=torch.cat([torch.randperm(n, generator=draw) for n in lengths]).to(DEVICE),
        source=torch.stack(holders).to(DEVICE),
        lengths=lengths,
        images=tuple(range(len(lengths))),
        active=active,
    )


def decision(kind: str, images: int, n: int) -> Decision:
    """A decision about images of n tokens, of one of the kinds that methods make."""
    made = decided(kind, images, n)
    left = made.left if isinstance(made.left, int) else made.left.to(DEVICE)
    weight = None if made.weight is None else made.weight.to(DEVICE)
    return replace(made, target=made.target.to(DEVICE), left=left, weight=weight)


def decided(kind: str, images: int, n: int) -> Decision:
    draw = torch.Generator().manual_seed(len(kind))
    target = torch.arange(n).repeat(images, 1)
    if kind == "prune":  # ascending, some dropped
        kept = torch.rand(images, n, generator=draw) < 0.4
        kept[:, 0] = True
        target = (kept.long().cumsum(1) - 1).masked_fill(~kept, -1)
        return Decision(target, kept.sum(1), final=True)
    if kind == "rank":  # another order
        target[:, 1:] = torch.stack([torch.randperm(n - 1, generator=draw) for _ in target]) + 1
        keep = n // 2
        return Decision(target.masked_fill(target >= keep, -1), keep)
    if kind == "merge":  # every output may have several members
        target[:, n // 2 :] = torch.randint(0, n // 2, (images, n - n // 2), generator=draw)
        return Decision(target, n // 2, torch.rand(images, n, generator=draw))
    pooled = torch.rand(images, n, generator=draw) < 0.7  # one with many members, at the end
    pooled[:, 0], pooled[:, 1] = False, True
    left = (~pooled).sum(1)
    target = torch.where(pooled, left[:, None], (~pooled).long().cumsum(1) - 1)
    shares = torch.rand(images, n, generator=draw) * pooled
    shares = torch.where(pooled, shares / shares.sum(1, keepdim=True), 1.0)
    return Decision(target, left + 1, shares, final=True)


def offsets_of(batch: PackedTokens) -> Tensor:
    return torch.tensor([0, *np.cumsum(batch.lengths)], dtype=torch.int32, device=DEVICE)


KINDS = ("prune", "rank", "merge", "pool")
CASES = [
    *((17, kind, torch.float32) for kind in KINDS),
    *((53, kind, dtype) for kind in KINDS[2:] for dtype in (torch.float16, torch.bfloat16)),
    (64, "prune", torch.bfloat16),
    (197, "pool", torch.float16),
]
LARGE = [
    pytest.param(n, kind, dtype, marks=large)
    for n in (257, 577, 1025)
    for kind in KINDS[1:]
    for dtype in TOLERANCE
] + [pytest.param(2880, "pool", torch.float16, marks=large)]


@pytest.mark.parametrize(("n", "kind", "dtype"), [*CASES, *LARGE])
def test_the_rows_are_those_of_the_engine(kernel_or_plain, kind, n, dtype):
    """Images 0 and 2 are chosen, 1 is not, 3 is no longer watched and shorter."""
    dim, lengths = 48, (n, n, n, n // 3 + 1)
    batch, found = made(lengths, dim, dtype, active=3), decision(kind, 3, n)
    draw = torch.Generator().manual_seed(n)
    shapes = batch.rows.shape, (dim,), (dim,)
    update, *scale = (torch.randn(shape, generator=draw).to(DEVICE, dtype) for shape in shapes)
    norm = (scale[0], scale[1], 1e-6)
    flags = torch.tensor([[1, 0, 1, 0], [1, 1, 1, 0]], device=DEVICE) > 0
    chosen, watched = flags

    def padded(values: Tensor) -> Tensor:  # what stands there for the image that is not watched
        return torch.cat([values, torch.full_like(values[:1], 1)])

    left = found.left if isinstance(found.left, int) else padded(found.left)
    weight = None if found.weight is None else padded(found.weight)
    offsets = offsets_of(batch)
    plan = plan_regroup(
        padded(found.target),
        left,
        offsets,
        batch.source,
        len(batch.rows),
        weight,
        chosen,
        watched,
        found.final,
    )
    packed = (batch.rows, update, batch.sizes, batch.positions)
    after = regroup_rows(plan, offsets, n, *packed, weight, norm)

    whole = batch.with_rows(batch.rows + update)
    answers = [Answer(batch.segments[0], found, chosen[:3])]
    outcome = outcome_of(batch, answers)
    theirs, averaged, _ = regroup(whole, answers, outcome, CUDA())
    counts = [len(theirs.rows), theirs.active, max(theirs.lengths), 2]
    assert plan.counts.tolist() == counts
    assert plan.reduced.tolist() == [True, False, True, False]
    assert plan.watched.tolist() == [not found.final, True, not found.final, False]
    assert torch.equal(plan.averaged, averaged)
    assert torch.equal(plan.source, theirs.source)
    for place, image in enumerate(theirs.images):
        first = sum(theirs.lengths[:place])
        want = slice(first, first + theirs.lengths[place])
        got = slice(int(plan.offsets[image]), int(plan.offsets[image + 1]))
        assert torch.equal(after.sizes[got], theirs.sizes[want])
        assert torch.allclose(after.log_sizes[got], theirs.sizes[want].log(), atol=1e-6)
        assert torch.equal(after.positions[got], theirs.positions[want])
        close = {"rtol": TOLERANCE[dtype], "atol": TOLERANCE[dtype]}
        assert torch.allclose(after.rows[got], theirs.rows[want], **close)
        normed = F.layer_norm(
            after.rows[got].double(), (dim,), norm[0].double(), norm[1].double(), 1e-6
        )
        assert after.hidden is not None
        assert torch.allclose(after.hidden[got].double(), normed, **close)
        if dtype != torch.bfloat16 and (kind in ("prune", "rank") or not plan.reduced[image]):
            assert torch.equal(after.rows[got], theirs.rows[want])  # copied bit for bit


def test_a_copied_row_keeps_its_bits(kernel_or_plain):
    """Also what an addition of zero would change: a negative zero, a NaN, an infinity."""
    values = [[-0.0, 0.0], [float("nan"), float("inf")], [1.5, -2.0]]
    rows, ones = torch.tensor(values, device=DEVICE), torch.ones(3, device=DEVICE)
    offsets = torch.tensor([0, 3], dtype=torch.int32, device=DEVICE)
    target = torch.tensor([[1, 0, -1]], device=DEVICE)
    source = torch.tensor([[0, 1]], device=DEVICE)
    plan = plan_regroup(target, 2, offsets, source, 3, ones[None])
    after = regroup_rows(plan, offsets, 3, rows, None, ones, torch.arange(3, device=DEVICE))
    want = rows[[1, 0]]
    assert torch.equal(after.rows[:2].view(torch.int32), want.view(torch.int32))
    assert plan.averaged.tolist() == [0] and plan.source.tolist() == [[1, 0]]


def test_buffers_are_reused_and_repeat_bit_for_bit(kernel_or_plain):
    """A plan into buffers that hold another one's, whatever is left in them."""
    batch = made((40, 40), 32, torch.float16, active=2)
    offsets, room = offsets_of(batch), RegroupPlan.empty(80, 2, 12, batch.rows.device)
    held = RegroupedRows.empty(batch.rows, batch.sizes, norm=False)
    results = []
    for kind in ("pool", "merge", "pool"):
        found = decision(kind, 2, 40)
        asked = (found.target, found.left, offsets, batch.source, 80, found.weight)
        plan = plan_regroup(*asked, out=room)
        packed = (batch.rows, None, batch.sizes, batch.positions)
        after = regroup_rows(plan, offsets, 40, *packed, found.weight, out=held)
        total = int(plan.counts[0])
        results.append([x[:total].clone() for x in (after.rows, after.sizes, after.positions)])
    assert all(map(torch.equal, results[0], results[2]))
    assert not torch.equal(results[0][0][:8], results[1][0][:8])


def test_an_output_without_members_is_empty_and_does_no_harm(kernel_or_plain):
    """A method's error, which must not read or write another image's rows."""
    offsets = torch.tensor([0, 3, 6], dtype=torch.int32, device=DEVICE)
    target = torch.tensor([[0, 2, 9], [0, 1, 2]], device=DEVICE)
    source, ones = torch.zeros(2, 1, dtype=torch.int64, device=DEVICE), torch.ones(6, device=DEVICE)
    plan = plan_regroup(target, 3, offsets, source, 6)
    places = torch.arange(6, device=DEVICE)
    rows = 1.0 + places[:, None] * torch.ones(1, 16, device=DEVICE)
    after = regroup_rows(plan, offsets, 3, rows, None, ones, places)
    assert after.rows[:, 0].tolist() == [1.0, 0.0, 2.0, 4.0, 5.0, 6.0]
