"""The walk's two vectors and P, block after block, against float64 and against the core's walk."""

import pytest
import torch
from packed_heads import DEVICE
from torch import Tensor

from asap.core.transition import first_walk, start_vectors, walk_on, walk_vectors
from asap.engine.kernels.launch import pitch_of
from asap.engine.kernels.split_matrix import SplitMatrix, step_matrix
from asap.engine.kernels.walk import step_vectors

ALPHA, BLOCKS = 0.4, 3
large = pytest.mark.large
SIZES = [17, 53, 64, 197, 257, *(pytest.param(n, marks=large) for n in (577, 1025))]
BOTH = (torch.float16, torch.float32)


def maps_of(blocks: int, b: int, n: int, dtype: torch.dtype, padded: bool = True) -> list[Tensor]:
    """Maps with rows of sum 1 and some heavy columns, in the buffers that head_mean_map fills."""
    draw, pitch = torch.Generator().manual_seed(n), pitch_of(n) if padded else n
    found = []
    for _ in range(blocks):
        scores = 2 * torch.randn(b, n, n, generator=draw) + 2 * torch.randn(n, generator=draw)
        buffer = torch.zeros(b, pitch, pitch, dtype=dtype, device=DEVICE)
        buffer[:, :n, :n] = scores.softmax(-1).to(DEVICE)
        found.append(buffer[:, :n, :n])
    return found


@pytest.mark.parametrize("dtype", BOTH)
@pytest.mark.parametrize("n", [*SIZES, pytest.param(2880, marks=large)])
def test_vectors_against_float64(kernel_or_plain, n, dtype):
    """Images 3, 0 and 2 of four are shown, and image 0 is no longer watched."""
    images = torch.tensor([3, 0, 2], device=DEVICE)
    watched = torch.tensor([1, 0, 1], device=DEVICE) > 0
    vectors = torch.full((4, 2, n), 7.0, device=DEVICE)
    expected = start_vectors(4, n, torch.zeros(1, dtype=torch.float64, device=DEVICE))
    for block, maps in enumerate(maps_of(BLOCKS, 3, n, dtype)):
        step_vectors(vectors, maps, ALPHA, images, watched, first=block == 0)
        expected[images] = walk_vectors(expected[images], maps.double(), ALPHA)
    assert (vectors[[3, 2]] - expected[[3, 2]]).abs().max() < 2e-6 * expected.max()
    assert vectors[[0, 1]].eq(7).all()


@pytest.mark.parametrize(
    ("n", "dtype"),
    [*((n, torch.float16) for n in (17, 53, 64, 197, 257)), (64, torch.float32)]
    + [pytest.param(n, dtype, marks=large) for n in (577, 1025) for dtype in BOTH],
)
def test_the_matrix_against_float64(kernel_or_plain, n, dtype):
    """P has 22 bits beside maps in float16: as near as beside maps in float32."""
    images = torch.tensor([1, 2], device=DEVICE)
    watched = torch.tensor([1, 0], device=DEVICE) > 0
    steps = maps_of(2 if n > 64 else BLOCKS, 2, n, dtype)
    matrix = SplitMatrix.empty(3, n, steps[0])
    expected = first_walk(steps[0].double(), ALPHA)
    for block, maps in enumerate(steps):
        step_matrix(matrix, maps, ALPHA, images, watched, first=block == 0)
        expected = expected if block == 0 else walk_on(expected, maps.double(), ALPHA)
    found = matrix.dense(images)
    assert (found[0] - expected[0]).abs().max() < 1e-6 * expected[0].max()
    assert found[1].eq(0).all() and matrix.dense()[0].eq(0).all()  # nothing was done there
    assert matrix.high[:, n:].eq(0).all() and matrix.high[:, :, n:].eq(0).all()


def test_maps_without_padding_and_all_images(kernel_or_plain):
    """A map whose rows follow each other without a gap, and no list of images."""
    (maps,) = maps_of(1, 2, 23, torch.float16, padded=False)
    vectors, matrix = torch.zeros(2, 2, 23, device=DEVICE), SplitMatrix.empty(2, 23, maps)
    for first in (True, False):
        step_vectors(vectors, maps, ALPHA, first=first)
        step_matrix(matrix, maps, ALPHA, first=first)
    expected = walk_on(first_walk(maps.double(), ALPHA), maps.double(), ALPHA)
    assert torch.allclose(matrix.dense().double(), expected, atol=1e-6)
    assert torch.allclose(vectors[:, 0].double(), expected.sum(1), atol=1e-5)
    assert torch.allclose(vectors[:, 1].double(), expected[:, 0], atol=1e-6)


@pytest.mark.parametrize("n", [64, pytest.param(577, marks=large)])
def test_steps_repeat_bit_for_bit(kernel_or_plain, n):
    steps = maps_of(2, 2, n, torch.float16)

    def walked() -> list[Tensor]:
        vectors, matrix = torch.zeros(2, 2, n, device=DEVICE), SplitMatrix.empty(2, n, steps[0])
        for block, maps in enumerate(steps):
            step_vectors(vectors, maps, ALPHA, first=block == 0)
            step_matrix(matrix, maps, ALPHA, first=block == 0)
        return [vectors, matrix.high, matrix.low if matrix.low is not None else vectors]

    assert all(map(torch.equal, walked(), walked()))
