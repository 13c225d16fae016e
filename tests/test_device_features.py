"""The rows that a pass on the device leaves for a language model are the executor's."""

from typing import Any

import pytest
import torch
from clip_vit import clip_vit
from fake_graphs import FakeGraphs
from places import OnDevice
from test_visual_rows import METHODS
from torch import Tensor

from asap.engine.executor import ReducedViT
from asap.engine.kernels import launch
from asap.engine.visual_rows import VisualTower
from asap.methods import build

GIVEN: dict[str, dict[str, Any]] = {
    **METHODS,
    "asap": {"tau": 1.05, "clusters": 3},
    "ats": {"samples": 5, "blocks": (0, 1)},
}
BATCHES = 4


def tower(name: str, backend: OnDevice | None) -> VisualTower:
    torch.manual_seed(3)
    return VisualTower(ReducedViT(clip_vit(depth=3), build(name, GIVEN[name]), backend=backend))


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    size = clip_vit(depth=1).patch_embed.img_size
    return torch.randn(4 * BATCHES, 3, *size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("name", GIVEN)
def test_visual_rows_of_a_pass_on_the_device(
    name: str, pictures: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "DEVICES", set())
    fake = FakeGraphs(strict=False)
    ours, theirs = tower(name, OnDevice(fake)), tower(name, None)
    found = []
    for i in range(BATCHES):
        given = pictures[i::BATCHES], list(range(100 * i, 100 * i + 4))
        found.append((ours(*given), theirs(*given)))
    assert ours.model._passes and fake.replayed >= BATCHES - 1
    for (rows, trace, held), (expected, traced, places) in found:  # nothing is overwritten
        assert rows.lengths == expected.lengths and torch.equal(held, places)
        torch.testing.assert_close(rows.rows, expected.rows, rtol=1e-5, atol=1e-5)
        assert torch.equal(trace.tokens, traced.tokens)
        assert torch.equal(trace.assignment, traced.assignment)
