"""The rows that a vision tower gives a language model: their order, and bits of a batch."""

from typing import Any

import pytest
import torch
from clip_vit import clip_vit
from torch import Tensor

from asap.engine.executor import ReducedViT
from asap.engine.visual_rows import VisualTower
from asap.methods import build

METHODS: dict[str, dict[str, Any]] = {
    "dense": {},
    "random_drop": {"keep": 0.5, "block": 1},
    "tome": {"r": 3},
    "asap": {"tau": 1.05, "clusters": 3, "miss": "force"},
    "evit": {},
    "visionzip": {"dominant": 6, "contextual": 3},
    "vispruner": {"tokens": 7},
    "prunesid": {"tokens": 8},
}


def tower(name: str, order: str = "method") -> VisualTower:
    torch.manual_seed(3)
    return VisualTower(ReducedViT(clip_vit(depth=3), build(name, METHODS[name])), order)


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    size = clip_vit(depth=1).patch_embed.img_size
    return torch.randn(4, 3, *size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("order", ["method", "spatial"])
def test_rows_and_places_of_patches_agree_with_the_trace(name, order, pictures):
    made = tower(name, order)
    rows, trace, held = made(pictures, [4, 5, 6, 7])
    sent = trace.tokens[:, -1] - 1 + made.model.method.class_row_to_llm
    assert list(rows.lengths) == sent.tolist()
    features, batch, _ = made.model.features(pictures, [4, 5, 6, 7])
    for i, start in enumerate(batch.starts().tolist()):
        own = features[start : start + int(trace.tokens[i, -1])]
        skip = 0 if made.model.method.class_row_to_llm else 1
        assert sorted(rows.of(i).tolist()) == sorted(own[skip:].tolist())
        for patch, token in enumerate(batch.source[i].tolist()):
            if token < 0:
                assert held[i, patch] == -1
            else:
                assert torch.equal(rows.of(i)[held[i, patch]], own[token])
        if skip == 0:
            assert torch.equal(rows.of(i)[0], own[0])


@pytest.mark.parametrize("name", METHODS)
def test_rows_come_by_the_lowest_patch_unless_the_methods_order_means_something(name, pictures):
    for order in ("method", "spatial"):
        made = tower(name, order)
        rows, _, held = made(pictures, [4, 5, 6, 7])
        for i in range(len(pictures)):
            lowest = [held[i].eq(k).nonzero() for k in range(rows.lengths[i])]
            lowest = [int(one.min()) if len(one) else -1 for one in lowest]
            if order == "spatial" or not made.model.method.own_order:
                assert lowest == sorted(lowest)
            elif name == "asap" and rows.lengths[i] < held.shape[1]:
                assert lowest[:-1] == sorted(lowest[:-1])
                assert held[i].eq(rows.lengths[i] - 1).sum() > 1, "the pooled token is last"


@pytest.mark.parametrize("name", METHODS)
def test_a_picture_has_the_bits_of_a_run_alone(name, pictures):
    """In any batch, in any order, and where several questions share it."""
    made = tower(name)
    ids = [7, 5, 7, 6, 5]
    batch = pictures[[0, 1, 0, 2, 1]]
    rows, trace, held = made(batch, ids)
    for i in range(len(ids)):
        alone, its, places = made(batch[i : i + 1], ids[i : i + 1])
        assert torch.equal(rows.of(i), alone.of(0))
        assert torch.equal(held[i], places[0])
        taken = trace.take(torch.tensor([i]))
        for column, value in its.values().items():
            assert torch.equal(taken.values()[column].nan_to_num(), value.nan_to_num()), column


def test_equal_pictures_run_once(pictures, monkeypatch):
    made = tower("dense")
    seen = []
    features = made.model.features
    monkeypatch.setattr(
        made.model, "features", lambda images, ids: seen.append(list(ids)) or features(images, ids)
    )
    made(pictures[[0, 1, 0, 0]], [9, 3, 9, 9])
    assert seen == [[9, 3]]


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="order='random' is not possible: use one of method, spat"):
        tower("dense", "random")
