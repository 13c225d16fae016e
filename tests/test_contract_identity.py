"""Dense is timm's own result, so is every method switched off; other models are refused by name."""

import functools
from collections.abc import Callable

import pytest
import timm
import torch
from contract import same
from draws import DEVICE, randomise
from peers import predictor_file
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import (
    DiffParallelScalingBlock,
    ParallelScalingBlock,
    ParallelThingsBlock,
    ResPostBlock,
    VisionTransformer,
)
from torch import Tensor, nn

import asap
from asap.methods import (
    ATS,
    PPT,
    Asap,
    Dense,
    DynamicViT,
    EViT,
    Method,
    PruneSID,
    RandomDrop,
    ToMe,
    VisionZip,
    VisPruner,
    ZeroTPrune,
)
from asap.methods.schedule import stage_blocks

# Real architectures with fewer blocks, every parameter random (also LayerScale, norms and heads,
# whose initial values would hide a part that is left out).
ARCHITECTURES: dict[str, tuple[str, dict]] = {
    "deit_tiny": ("deit_tiny_patch16_224", {"depth": 4}),
    "deit_distilled": ("deit_tiny_distilled_patch16_224", {"depth": 3}),
    "deit3": ("deit3_small_patch16_224", {"depth": 2}),
    "qk_norm": ("vit_tiny_patch16_224", {"depth": 3, "qk_norm": True}),
    "attention_norm": ("vit_tiny_patch16_224", {"depth": 2, "scale_attn_norm": True}),
    "dinov2_registers": ("vit_small_patch14_reg4_dinov2", {"depth": 3, "img_size": 126}),
    "clip": ("vit_base_patch32_clip_quickgelu_224", {"depth": 2}),
    "global_pool": ("vit_little_patch16_reg4_gap_256", {"depth": 3, "img_size": 128}),
    "global_pool_class": ("vit_tiny_patch16_224", {"depth": 2, "global_pool": "avg"}),
    "augreg": ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", {"depth": 3}),
}
SMALL = {"img_size": 32, "patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}


@functools.cache
def backbone(key: str) -> nn.Module:
    name, changes = ARCHITECTURES[key]
    model = timm.create_model(name, pretrained=False, **changes)
    randomise(model, seed=1)
    return model.eval().requires_grad_(False).to(DEVICE)


@functools.cache
def pictures(key: str) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    size = backbone(key).patch_embed.img_size
    return torch.randn((2, 3, *size), generator=generator).to(DEVICE)


def difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def switched_off(model: nn.Module) -> list[Method]:
    class_token, depth = model.has_class_token, len(model.blocks)
    anchor = "sink" if class_token else "mass"
    patches = model.patch_embed.num_patches
    all_of_it = (VisionZip(patches + 1, 0), VisPruner(patches), PruneSID(patches + 1))
    trained = predictor_file(model.embed_dim, len(stage_blocks(None, depth)))
    return [
        Asap(tau=1e9, anchor=anchor),
        Asap(tau=1e9, anchor=anchor, order="rollout", position="after_block"),
        Asap(tau=1e9, anchor=anchor, pool=False, proportional_attention=True),
        Asap(tau=1e9, anchor="quiet", distance="self_aligned", clusters="auto", max_tokens=9),
        Asap(overhead=True, anchor=anchor),
        ToMe(0),
        RandomDrop(keep=1.0, block=1),
        DynamicViT(1.0, trained),
        ZeroTPrune((1, depth), keep=1.0, similar=0, iterations=1),
        *([PPT(0), EViT(1.0), ATS(blocks=()), *all_of_it] if class_token else []),
    ]


@pytest.mark.parametrize("key", ARCHITECTURES)
def test_dense_is_timm_bit_for_bit(key: str) -> None:
    model, images = backbone(key), pictures(key)
    reduced = asap.ReducedViT(model, Dense())
    rows, batch, trace = reduced.features(images)
    assert batch.images == (0, 1)
    assert same(rows.view(2, -1, rows.shape[1]), model.forward_features(images))
    assert difference(reduced(images), model(images)) < 1e-6
    assert trace.assignment.tolist() == [list(range(model.num_prefix_tokens, batch.lengths[0]))] * 2


@pytest.mark.parametrize("key", ARCHITECTURES)
def test_switched_off_is_timm(key: str) -> None:
    model, images = backbone(key), pictures(key)
    expected = model(images)
    for method in switched_off(model):
        logits, trace = asap.ReducedViT(model, method)(images, [3, 4], return_trace=True)
        assert difference(logits, expected) < 1e-5, method
        assert trace.stop_block.tolist() == [0, 0], method


@pytest.mark.parametrize("key", ["deit_tiny", "deit_distilled", "dinov2_registers"])
def test_eager_attention_is_close(key: str) -> None:
    model, images = backbone(key), pictures(key)
    assert difference(asap.ReducedViT(model, Dense(), eager=True)(images), model(images)) < 1e-5


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (lambda: VisionTransformer(**SMALL, block_fn=ParallelScalingBlock), "ParallelScalingBlock"),
        (lambda: VisionTransformer(**SMALL, block_fn=ResPostBlock), "ResPostBlock"),
        (lambda: VisionTransformer(**SMALL, block_fn=ParallelThingsBlock), "ParallelThingsBlock"),
        (
            lambda: VisionTransformer(**SMALL, block_fn=DiffParallelScalingBlock),
            "DiffParallelScalingBlock",
        ),
        (lambda: VisionTransformer(**SMALL, attn_layer="diff"), "DiffAttention"),
        (lambda: VisionTransformer(**SMALL, global_pool="map"), "map"),
        (lambda: VisionTransformer(**SMALL, global_pool="prr"), r"prr|pool_include_prefix"),
        (lambda: VisionTransformer(**SMALL, global_pool="max"), "max"),
        (lambda: VisionTransformer(**SMALL, global_pool="avgmax"), "avgmax"),
        (lambda: Eva(**SMALL), "Eva"),
        (
            lambda: SwinTransformer(
                img_size=32, embed_dim=24, depths=(1, 1), num_heads=(1, 2), window_size=4
            ),
            "SwinTransformer",
        ),
        (lambda: timm.create_model("resnet10t", pretrained=False), "ResNet"),
        (lambda: timm.create_model("vit_tiny_r_s16_p8_224", depth=1), "HybridEmbed"),
        (lambda: nn.Linear(3, 4), "Linear"),
    ],
)
def test_other_models_are_refused_by_name(build: Callable[[], nn.Module], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        asap.ReducedViT(build().eval(), Dense())


def test_pooling_over_prefix_tokens_is_refused() -> None:
    model = VisionTransformer(**SMALL, global_pool="avg", pool_include_prefix=True)
    with pytest.raises(ValueError, match="pool_include_prefix"):
        asap.ReducedViT(model.eval(), Dense())


def test_a_sink_and_a_plugin_need_a_class_token() -> None:
    with pytest.raises(ValueError, match="anchor='mass'"):
        asap.ReducedViT(backbone("global_pool"), Asap())
    with pytest.raises(ValueError, match="plugin='keys' needs a class token"):
        asap.ReducedViT(backbone("global_pool"), Asap(anchor="mass", max_tokens=8, plugin="keys"))
    asap.ReducedViT(backbone("global_pool"), Asap(anchor="mass"))


@pytest.mark.parametrize(
    "dynamic",
    [
        False,
        True,
    ],
)
def test_another_image_size_is_refused(dynamic: bool) -> None:
    model = VisionTransformer(**SMALL, dynamic_img_size=dynamic).eval()
    with pytest.raises(ValueError, match="img_size"):
        asap.ReducedViT(model, Dense())(torch.zeros(1, 3, 40, 40))
