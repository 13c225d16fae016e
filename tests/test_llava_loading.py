"""A LLaVA-1.5 checkpoint as loaded: the tower against Hugging Face's, and what is refused."""

import pytest
import torch
from made_llava import hugging_face, made_llava

from asap.backbones.llava.checkpoint import load_llava
from asap.engine.executor import ReducedViT
from asap.engine.visual_rows import VisualTower
from asap.methods import Dense


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return made_llava(tmp_path_factory.mktemp("llava"), image=112)


@pytest.fixture(scope="module")
def pictures():
    return torch.randn(3, 3, 112, 112, generator=torch.Generator().manual_seed(1))


def test_the_tower_is_hugging_faces_bit_for_bit(folder, pictures):
    llava, theirs = load_llava(str(folder)), hugging_face(folder).model.vision_tower
    with torch.no_grad():
        states = theirs(pictures, output_hidden_states=True).hidden_states
    trunk = llava.tower
    with torch.no_grad():
        x = trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(pictures)))
        for block, state in zip([None, *trunk.blocks], states, strict=False):
            x = x if block is None else block(x)
            assert torch.equal(x, state)
    assert len(trunk.blocks) == len(states) - 2
    rows, _, _ = VisualTower(ReducedViT(trunk, Dense()))(pictures)
    assert torch.equal(rows.rows, states[-2][:, 1:].flatten(0, 1))
