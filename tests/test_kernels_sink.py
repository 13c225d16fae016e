"""ASAP's reduction in one launch, against what the method decides with the same options."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from packed_heads import DEVICE
from test_kernels_walk import ALPHA, maps_of
from torch import Tensor

from asap.core.anatomy import Anatomy
from asap.core.transition import first_walk, walk_on
from asap.engine.kernels.sink import SinkReduction, SinkRule, sink_reduction
from asap.engine.kernels.split_matrix import SplitMatrix
from asap.methods import Asap
from asap.methods.asap.walk import VectorWalk
from asap.methods.base import Decision, Site

large = pytest.mark.large
VARIANTS = [
    Asap(),
    Asap(pool=False),
    Asap(anchor="mass", binning="rank", clusters=5, background=2),
    Asap(anchor="quiet", weights="normalised", normalise="max", temperature=0.3),
    Asap(anchor="quiet", binning="rank", pool=False, distance_columns="patches"),
    Asap(clusters=2, normalise="max", pool=False),
    Asap(clusters=7, background=6, distance_columns="patches"),
]


def rule_of(options: Asap) -> SinkRule:
    names = SinkRule.__dataclass_fields__
    return SinkRule(**{name: getattr(options, name) for name in names})


def walked(b: int, n: int, dtype: torch.dtype) -> tuple[Tensor, SplitMatrix]:
    """The walk of b images after two blocks."""
    one, two = maps_of(2, b, n, dtype)
    walk = walk_on(first_walk(one.float(), ALPHA), two.float(), ALPHA)
    matrix = SplitMatrix.empty(b, n, one)
    matrix.write(walk)
    return torch.stack([walk.sum(1), walk[:, 0]], dim=1), matrix


def decided(options: Asap, vectors: Tensor, matrix: SplitMatrix, prefix: int) -> Decision:
    """The method's own decision about images with this walk."""
    b, n = len(vectors), matrix.n
    walk = VectorWalk(options.alpha, vectors)
    walk.matrix = lambda images, every_block=False: (matrix.dense()[images], 0)
    tokens = torch.zeros(b, n, 4, device=DEVICE)
    images = torch.arange(b, device=DEVICE)
    anatomy = Anatomy("made up", 4, prefix, n - prefix, True)
    shown = matrix.dense()
    site = Site(anatomy, 1, tokens, torch.ones(b, n, device=DEVICE), images, attention=shown)
    return options.reduce(replace(site, state=walk), None)


def compare(found: SinkReduction, expected: Decision, b: int) -> None:
    """For images 0 to b - 1; both round differently, so none of them may be near an edge."""
    seen = expected.diagnostics
    assert seen["margin_bin"][:b].min() > 1e-6 and seen["margin_sink"][:b].min() > 1e-7
    assert torch.equal(found.anchor[:b], seen["sink"][:b])
    assert torch.equal(found.target[:b], expected.target[:b])
    assert found.left.sub(expected.left)[:b].eq(0).all()
    assert torch.allclose(found.lead[:b], seen["margin_sink"][:b], atol=1e-6)
    assert torch.allclose(found.margin[:b], seen["margin_bin"][:b], atol=1e-5)
    assert (found.weight is None) == (expected.weight is None)
    if found.weight is not None and expected.weight is not None:
        assert torch.allclose(found.weight[:b], expected.weight[:b], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("options", VARIANTS, ids=lambda o: f"{o.anchor}-{o.binning}-{o.clusters}")
@pytest.mark.parametrize("n", [17, 53, *(pytest.param(n, marks=large) for n in (257, 577, 1025))])
def test_the_decision_is_the_methods(kernel_or_plain, options, n):
    vectors, matrix = walked(2, n, torch.float16)
    expected = decided(options, vectors, matrix, 1)
    compare(sink_reduction(rule_of(options), vectors, matrix, 1), expected, 2)


@pytest.mark.parametrize(
    ("n", "prefix", "dtype"), [(197, 1, torch.float16), (64, 2, torch.float32)]
)
def test_sizes_prefixes_and_precisions(kernel_or_plain, n, prefix, dtype):
    vectors, matrix = walked(1, n, dtype)
    for options in VARIANTS[:3]:
        expected = decided(options, vectors, matrix, prefix)
        compare(sink_reduction(rule_of(options), vectors, matrix, prefix), expected, 1)


@pytest.mark.parametrize("pool", [True, False])
def test_only_the_chosen_of_some_images_are_written(kernel_or_plain, pool):
    """Images 2 and 0 of three are shown, image 0 is not chosen; buffers are the caller's."""
    vectors, matrix = walked(3, 17, torch.float16)
    options = Asap(pool=pool)
    expected = decided(options, vectors, matrix, 1)
    images, chosen = torch.tensor([2, 0], device=DEVICE), torch.tensor([1, 0], device=DEVICE) > 0
    room = SinkReduction.empty(2, 17, pool, vectors.device)
    found = sink_reduction(rule_of(options), vectors, matrix, 1, images, chosen, room)
    assert found is room
    assert found.anchor[0] == expected.diagnostics["sink"][2]
    assert torch.equal(found.target[0], expected.target[2])
    assert kernel_or_plain == "plain" or found.target[1].eq(0).all()


def test_ties_go_to_the_lowest_index(kernel_or_plain):
    """Patches 1 and 3 reach the largest class row; all rows of P but the first two are equal."""
    vectors = torch.zeros(1, 2, 6, device=DEVICE)
    vectors[0, 1] = torch.tensor([0.0, 0.1, 0.3, 0.1, 0.3, 0.2])
    matrix = SplitMatrix.empty(1, 6, vectors)
    matrix.high[0, :6, :6] = torch.eye(6, device=DEVICE)
    matrix.high[0, 3:6, :6] = torch.tensor([0.5, 0, 0, 0.5, 0, 0], device=DEVICE)
    for background in (1, 2, 3):
        options = Asap(binning="rank", clusters=5, background=background, pool=False)
        found = sink_reduction(rule_of(options), vectors, matrix, 1)
        assert found.anchor.tolist() == [1] and found.lead.tolist() == [0]
        stays = (found.target[0] >= 0).nonzero()[:, 0].tolist()
        assert found.left.tolist() == [len(stays)]
        assert stays == expected_ties(matrix, background)


def expected_ties(matrix: SplitMatrix, background: int) -> list[int]:
    """The tokens that rank bins keep around patch 1, by Python's own stable sort."""
    rows = matrix.dense()[0].double()
    far = [-1.0 if i == 2 else float((rows[i] - rows[2]).norm().float()) for i in range(1, 6)]
    order = sorted(range(5), key=lambda patch: far[patch])
    return [0, *sorted(patch + 1 for patch in order[background:])]


@pytest.mark.parametrize(("pool", "binning"), [*product([True, False], ["width", "rank"])])
def test_equal_distances_and_numbers_that_are_none(kernel_or_plain, pool, binning):
    """All rows of P equal, or NaN: an anchor is found, and positions stay inside the image."""
    options = Asap(pool=pool, binning=binning)
    for value in (1 / 8, float("nan")):
        vectors = torch.full((1, 2, 8), value, device=DEVICE)
        matrix = SplitMatrix.empty(1, 8, vectors)
        matrix.high[0, :8, :8] = value
        found = sink_reduction(rule_of(options), vectors, matrix, 1)
        left = int(found.left)
        assert found.anchor.tolist() == [0] and 1 < left <= 8
        assert found.target.max() == left - 1 and found.target[0, 0] == 0
        if value == 1 / 8:
            expected = decided(options, vectors, matrix, 1)
            assert torch.equal(found.target, expected.target)


def test_the_decision_repeats_bit_for_bit(kernel_or_plain):
    vectors, matrix = walked(2, 53, torch.float16)
    one, two = (sink_reduction(rule_of(Asap()), vectors, matrix, 1) for _ in range(2))
    for name in ("target", "left", "weight", "lead", "margin"):
        assert torch.equal(getattr(one, name), getattr(two, name))
