"""Products of large square matrices by oneDNN, and the walks that use them."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from asap.core import square_products
from asap.core.square_products import LEAST, square_product
from asap.core.transition import first_walk, rollout_on, start_vectors, walk_on
from asap.measure.macs_check import torch_count
from asap.methods.asap.sharing import GrowingWalk
from asap.methods.asap.walk import MatrixWalk, VectorWalk

ALPHA = 0.3
STEPS = (walk_on, rollout_on)
pytestmark = pytest.mark.skipif(
    square_products.OPERATOR is None, reason="this torch was built without oneDNN"
)


def maps_of(images: int, tokens: int, seed: int = 0) -> Tensor:
    """Random attention maps (images, tokens, tokens), float32."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn((images, tokens, tokens), generator=generator) * 3).softmax(-1)


def test_which_products_go_to_onednn() -> None:
    assert square_product(torch.empty(2, LEAST, LEAST)) is not None
    assert square_product(torch.empty(2, LEAST - 1, LEAST - 1)) is None
    assert square_product(torch.empty(2, LEAST, LEAST, dtype=torch.float64)) is None
    assert square_product(torch.empty(2, LEAST, LEAST, device="meta")) is None


@pytest.mark.parametrize("tokens", [LEAST, 197, 257])
@pytest.mark.parametrize("step", STEPS)
def test_walks_agree_with_float64_and_with_torchs_products(
    step: Callable[..., Tensor], tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps, walk = maps_of(3, tokens), first_walk(maps_of(3, tokens, 1), ALPHA)
    found = step(walk, maps, ALPHA)
    exact = step(walk.double(), maps.double(), ALPHA)
    assert (found - exact).abs().max() < 1e-6 * exact.max()
    assert step(walk, maps, ALPHA, out=walk) is walk
    assert torch.equal(walk, found)
    monkeypatch.setattr(square_products, "OPERATOR", None)
    again = step(first_walk(maps_of(3, tokens, 1), ALPHA), maps, ALPHA)
    assert (again - found).abs().max() < 1e-6 * exact.max()


@pytest.mark.parametrize("tokens", [LEAST, 197, 577])
def test_bits_depend_on_no_other_image_nor_on_memory_nor_on_threads(
    tokens: int, set_threads: Callable[[int], None]
) -> None:
    maps, walk = maps_of(3, tokens), first_walk(maps_of(3, tokens, 1), ALPHA)
    set_threads(1)
    whole = walk_on(walk, maps, ALPHA)
    for threads in (1, 2, 3):
        set_threads(threads)
        assert torch.equal(walk_on(walk, maps, ALPHA), whole)
        assert torch.equal(walk_on(walk[1:2], maps[1:2], ALPHA)[0], whole[1])
        for shift in (1, 5):
            room = torch.empty(maps.numel() + shift)[shift:].view(maps.shape)
            assert torch.equal(walk_on(walk, room.copy_(maps), ALPHA), whole)


@pytest.mark.parametrize("tokens", [17, 197])
def test_every_way_to_keep_p_gives_the_same_bits(tokens: int) -> None:
    """P of images that stop in different blocks, from a batch that shrinks."""
    blocks = [maps_of(4, tokens, seed) for seed in range(3)]
    once, grown, kept = (
        VectorWalk(ALPHA, start_vectors(4, tokens, blocks[0])),
        GrowingWalk(ALPHA, start_vectors(4, tokens, blocks[0])),
        MatrixWalk(ALPHA, "walk", torch.zeros(4, tokens, tokens)),
    )
    images = torch.arange(4)
    for block, maps in enumerate(blocks):
        for walk in (once, grown, kept):
            walk.advance(maps[images], images, block)
        leaving = images[[0, -1]] if block else images[:0]
        if len(leaving):
            expected, macs = once.matrix(leaving)
            assert macs == block * tokens**3
            assert torch.equal(grown.matrix(leaving)[0], expected)
            assert torch.equal(kept.matrix(leaving)[0], expected)
            assert torch.allclose(kept.mass(images), once.mass(images), atol=1e-5)
        images = images[1:-1] if block else images


def test_products_are_counted() -> None:
    class Step(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return walk_on(images[:, 0], images[:, 1], ALPHA)

    assert torch_count(Step(), torch.rand(2, 3, LEAST, LEAST)) == 2 * LEAST**3
