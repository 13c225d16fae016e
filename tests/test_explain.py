"""What pictures show of an image is what the run itself saw: walk, class row, anchor, clusters."""

from typing import Any

import pytest
import torch
from draws import models

import asap
from asap.engine import backend
from asap.methods import Asap, ToMe
from asap.publish.pictures.explain import explain, walk_at_stop, walk_per_block


@pytest.fixture(scope="module")
def model() -> Any:
    return models()["plain-p25"]().eval()


@pytest.fixture(scope="module")
def image(model: Any) -> torch.Tensor:
    size = model.patch_embed.img_size
    return torch.randn(3, *size, generator=torch.Generator().manual_seed(5))


@pytest.fixture(params=["cpu", "cuda"], autouse=True)
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA's way too, on CPU tensors: no free looks, so a method is asked about all images."""
    monkeypatch.setitem(backend.BACKENDS, "cpu", backend.BACKENDS[request.param])


@pytest.mark.parametrize("order", ["walk", "rollout"])
def test_the_walk_without_a_stop_has_the_masses_of_a_run(model, image, order: str):
    """Also in the last block, which a method with a stop does not look at."""
    method, prefix = Asap(tau=50.0, order=order), model.num_prefix_tokens
    walk = walk_per_block(model, method, image)
    assert len(walk) == len(model.blocks)
    _, trace = asap.ReducedViT(model, method)(image[None], [0], return_trace=True)
    masses = walk.sum(1)[:, prefix:].amax(1)
    torch.testing.assert_close(masses[:-1], trace.mass[0, :-1], rtol=1e-5, atol=1e-6)
    assert trace.mass[0, -1].isnan() and walk_at_stop(model, method, image) is None


def test_an_explanation_is_of_the_block_where_the_image_stops(model, image):
    walks = walk_per_block(model, Asap(), image)
    tau = float(walks.sum(1)[:, model.num_prefix_tokens :].amax(1)[2]) - 1e-3
    method, prefix = Asap(tau=tau, clusters=3), model.num_prefix_tokens
    seen = explain(model, method, image)
    stop, sink = int(seen.trace.stop_block[0]), int(seen.trace.sink[0])
    assert stop > 0
    torch.testing.assert_close(seen.class_row, walks[stop - 1, 0, prefix:])
    assert int(seen.class_row.argmax()) == sink and seen.distance[sink] == 0
    assert seen.cluster[sink] == 0 and set(seen.cluster.tolist()) <= {0, 1, 2}
    at_stop = walk_at_stop(model, method, image)
    assert at_stop is not None and int(at_stop[1]) == sink
    torch.testing.assert_close(at_stop[0][0], walks[stop - 1])


def test_the_walk_goes_on_where_distances_are_of_the_stop_block_alone(model, image):
    walks = walk_per_block(model, Asap(), image)
    torch.testing.assert_close(walk_per_block(model, Asap(accumulate=False), image), walks)
    tau = float(walks.sum(1)[:, model.num_prefix_tokens :].amax(1)[2]) - 1e-3
    method = Asap(tau=tau, accumulate=False)
    stop = int(explain(model, method, image).trace.stop_block[0])
    at_stop = walk_at_stop(model, method, image)
    assert stop > 0 and at_stop is not None
    torch.testing.assert_close(at_stop[0][0], walks[stop - 1])


def test_an_image_that_never_stops_has_nothing_to_explain(model, image):
    seen = explain(model, Asap(tau=50.0), image)
    assert seen.class_row.isnan().all() and (seen.cluster == -1).all() and seen.kept.all()


def test_a_method_that_does_not_explain_itself_is_refused(model, image):
    with pytest.raises(ValueError, match="ToMe does not explain itself"):
        explain(model, ToMe(), image)
