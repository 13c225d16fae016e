"""The modelled growth of cost: equal to what an executed forward pass counts, and as documented."""

import model_growth
import pytest
import torch

from asap.backbones.weights.load import load_backbone
from asap.engine.executor import ReducedViT
from asap.methods import Asap


def test_the_model_counts_what_an_executed_pass_counts():
    """The embedded model, every image forced to stop in block 4."""
    backbone = load_backbone("digits_vit", "random")
    method = Asap(tau=1e-9, min_block=4, binning="rank", clusters=4, background=2)
    images = torch.randn(2, 3, 112, 112, generator=torch.Generator().manual_seed(0))
    _, trace = ReducedViT(backbone, method)(images, return_trace=True)
    assert trace.stop_block.tolist() == [4, 4]
    tokens, left = 65, int(trace.tokens[0, -1])
    own = model_growth.asap_gmacs(96, tokens, 4, left)
    assert sum(own.values()) == pytest.approx(trace.macs_method[0].item() / 1e9, rel=1e-12)
    cost = model_growth.cost_of(96, 12, tokens, patch=14, classes=10)
    entering = [tokens] * 4 + [left] * 9
    expected = trace.macs_backbone[0].item() / 1e9
    assert model_growth.backbone_gmacs(cost, entering) == pytest.approx(expected, rel=1e-12)


def test_the_documented_tables_are_those_of_the_script():
    page = model_growth.PAGE.read_text("utf-8")
    assert model_growth.written(page) == page, "run python scripts/model_growth.py --write"


def test_deit_base_has_its_published_cost():
    dense, _, _ = model_growth.reduced(768, 12, 197)
    assert dense == pytest.approx(17.56, abs=0.005)
