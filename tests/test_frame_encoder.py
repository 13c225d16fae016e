"""Features of frames: what they are of each patch's final token, and where they may be computed."""

import itertools

import pytest
import torch
from clip_vit import clip_vit
from fake_graphs import FakeGraphs
from test_device_pass import OnDevice
from torch import nn

from asap.backbones.frame_encoder import QuadrantMeans, feature_width, frame_encoder
from asap.backbones.lvvit import LVViT
from asap.backbones.weights.load import weights_digest
from asap.engine.executor import ReducedViT
from asap.engine.kernels import launch
from asap.errors import RequestError
from asap.methods import Asap, Dense, EViT, RandomDrop, ToMe

METHODS = {
    "dense": Dense(),
    "random drop": RandomDrop(keep=0.4, block=1),
    "few": RandomDrop(keep=0.05, block=1),  # quadrants are left without a patch
    "tome": ToMe(4),
    "evit": EViT(0.6, blocks=[0, 1]),
    "asap": Asap(tau=0.1, clusters=3),
    "pruning": Asap(tau=0.1, clusters=3, pool=False),
}
IDS = list(range(7))


def frames(count: int = 7) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(3))


def by_hand(tokens, assignment, grid, prefix=1):
    """Quadrant by quadrant and patch by patch, in float64; the tokens are those of one image."""
    rows, columns = grid
    means = []
    for down, across in itertools.product((False, True), repeat=2):
        chosen = []
        for patch, place in enumerate(assignment.tolist()):
            row, column = divmod(patch, columns)
            if (row >= rows // 2, column >= columns // 2) == (down, across) and place >= 0:
                chosen.append(tokens[place].double())
        means.append(
            torch.stack(chosen).mean(0) if chosen else torch.zeros(tokens.shape[1]).double()
        )
    return torch.cat(means)


@pytest.mark.parametrize("patch", [8, 4, 6])  # 4 x 4, 8 x 8 and 5 x 5 patches
@pytest.mark.parametrize("name", METHODS)
def test_quadrants_count_the_token_that_each_patch_ended_in(name: str, patch: int) -> None:
    model = ReducedViT(frame_encoder(clip_vit(patch=patch), "tokens"), METHODS[name])
    found, trace = model(frames(), IDS, return_trace=True)
    tokens, batch, _ = model.features(frames(), IDS)
    starts, grid = batch.starts().tolist(), model.adapter.grid
    empty = 0
    for image, start in enumerate(starts):
        expected = by_hand(tokens[start:], trace.assignment[image], grid)
        torch.testing.assert_close(found[image].double(), expected, rtol=1e-5, atol=1e-6)
        empty += int((expected.view(4, -1) == 0).all(1).sum())
    assert found.shape == (7, 4 * 32)
    assert name == "dense" or (trace.tokens[:, -1] < trace.tokens[:, 0]).any()
    if name == "few":
        assert empty, "no quadrant lost all of its patches"


@pytest.mark.parametrize("reads", ["class", "tokens"])
@pytest.mark.parametrize("name", METHODS)
def test_features_of_a_frame_do_not_depend_on_its_batch(name: str, reads: str) -> None:
    model = ReducedViT(frame_encoder(clip_vit(), reads), METHODS[name])
    together = model(frames(), IDS)
    for image in IDS:
        alone = model(frames()[image, None], [image])
        assert torch.equal(alone[0], together[image])
    some = [4, 1, 6]
    assert torch.equal(model(frames()[some], some), together[some])


@pytest.mark.parametrize("name", METHODS)
def test_the_pass_on_the_device_gives_the_same_quadrants(name: str, monkeypatch) -> None:
    """With the kernels' plain versions, on CPU tensors."""
    monkeypatch.setattr(launch, "DEVICES", set())
    model = frame_encoder(clip_vit(), "tokens")
    ours = ReducedViT(model, METHODS[name], backend=OnDevice(FakeGraphs(strict=False)))
    expected = ReducedViT(model, METHODS[name])(frames(), IDS)
    for _ in range(3):  # computed, recorded, replayed
        torch.testing.assert_close(ours(frames(), IDS), expected, rtol=1e-5, atol=1e-5)
    assert ours.path == "graphs" and ours.unrecorded is None


def test_the_class_token_comes_after_the_norm_and_before_the_projection() -> None:
    backbone = clip_vit()
    encoder = frame_encoder(backbone, "class")
    expected = backbone.forward_features(frames())[:, 0]
    torch.testing.assert_close(ReducedViT(encoder, Dense())(frames()), expected)
    assert torch.equal(encoder(frames()), expected)
    assert feature_width(encoder) == 32


def test_timms_own_forward_gives_the_quadrants_too() -> None:
    backbone = clip_vit()
    encoder = frame_encoder(backbone, "tokens")
    dense = ReducedViT(encoder, Dense())(frames())
    torch.testing.assert_close(encoder(frames()), dense, rtol=1e-5, atol=1e-6)
    patches = backbone.forward_features(frames())[:, 1:].view(7, 4, 4, 32)
    corner = patches[:, :2, 2:].mean((1, 2))
    torch.testing.assert_close(dense[:, 32:64], corner, rtol=1e-5, atol=1e-6)
    assert feature_width(encoder) == 128


def test_average_pooled_backbones_have_quadrants_but_no_class_token() -> None:
    backbone = clip_vit(global_pool="avg", class_token=False)
    encoder = frame_encoder(backbone, "tokens")
    dense = ReducedViT(encoder, Dense())(frames())
    torch.testing.assert_close(encoder(frames()), dense, rtol=1e-5, atol=1e-6)
    with pytest.raises(
        RequestError, match=r"pools by 'avg', so no class token .* set head.reads=tokens"
    ):
        frame_encoder(backbone, "class")


@pytest.mark.parametrize("reads", ["class", "tokens"])
def test_the_backbone_stays_as_it_is_and_shares_its_tensors(reads: str) -> None:
    backbone = clip_vit()
    digest = weights_digest(backbone)
    encoder = frame_encoder(backbone, reads)
    assert weights_digest(backbone) == digest and isinstance(backbone.head, nn.Linear)
    assert encoder.blocks[0].mlp.fc1.weight is backbone.blocks[0].mlp.fc1.weight
    backbone.to(torch.bfloat16)
    assert encoder.blocks[0].mlp.fc1.weight.dtype == torch.bfloat16


def test_half_precision_sums_in_float32() -> None:
    head = QuadrantMeans((32, 32), 0)
    tokens = torch.full((1, 1024, 1), 1.0 + 2**-7, dtype=torch.bfloat16)
    assert torch.equal(head(tokens), tokens[:, :4, 0])


def test_another_family_is_refused_by_its_name() -> None:
    model = LVViT(img_size=32, patch_size=8, embed_dim=32, depth=1, num_heads=2, stem_width=8)
    with pytest.raises(RequestError, match="a backbone of type LVViT encodes no frames"):
        frame_encoder(model, "tokens")
