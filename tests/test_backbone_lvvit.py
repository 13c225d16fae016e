"""LV-ViT-S: its whole forward, its checkpoints, its cost, and every method on it."""

import argparse
import copy
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from contract import METHODS, check, differing, method
from draws import models, randomise
from PIL import Image
from reference import lvvit_ref
from reference.asap_ref import reference_asap
from reference.random_drop_ref import reference_random_drop
from reference.tome_ref import reference_tome
from reference.vit import forward
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tv

import asap
from asap.backbones.accepted import adapter_of
from asap.backbones.lvvit import RELEASE, LVViT
from asap.backbones.preprocess import preprocessing_of
from asap.backbones.weights.load import file_digest, weights_digest
from asap.core.macs import backbone_macs
from asap.measure.baselines import dense_baselines
from asap.measure.macs_check import fvcore_count, torch_count
from asap.methods import Asap, Dense, Method, RandomDrop, ToMe
from asap.methods.base import Decision, Site, keep_only

ROOT = Path(__file__).resolve().parents[1]
KEYS = ("lvvit-p25", "lvvit-p36", "lvvit-p64")
WIDTH = 48  # of checkpoints whose layout alone is looked at: the 204 tensors are all there
NARROW = {"embed_dim": WIDTH}
DENSE_MACS = 6_551_485_440
State = dict[str, Tensor]


@functools.cache
def lvvit_s() -> nn.Module:
    """The model at its own size: look at it, do not change it."""
    return asap.load_backbone("lvvit_s", "random")


@functools.cache
def released(width: int = WIDTH) -> State:
    """A checkpoint as the authors lay it out, every tensor random, nothing halved."""
    model = asap.load_backbone("lvvit_s", "random", model_args={"embed_dim": width}, seed=3)
    randomise(model, 3)
    return {key: value.clone() for key, value in model.state_dict().items()}


@functools.cache
def small(key: str, dtype: torch.dtype = torch.float64) -> LVViT:
    return models()[key]().to(dtype)


def picture(model: nn.Module, count: int = 1, seed: int = 7) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    size = model.patch_embed.img_size
    dtype = next(model.parameters()).dtype
    return torch.randn((count, 3, *size), generator=generator, dtype=torch.float32).to(dtype)


def difference(ours: Tensor, theirs: Tensor) -> float:
    return float((ours.double() - theirs).abs().max() / theirs.abs().max())


def expected_keys() -> set[str]:
    """The keys of the released checkpoint, as they are documented."""

    def pair(name: str) -> set[str]:
        return {f"{name}.weight", f"{name}.bias"}

    keys = {"cls_token", "pos_embed"} | pair("norm") | pair("head") | pair("aux_head")
    keys |= pair("patch_embed.proj") | {f"patch_embed.conv{i}.weight" for i in (1, 2, 3)}
    for i in (1, 2, 3):
        keys |= pair(f"patch_embed.bn{i}")
        keys |= {f"patch_embed.bn{i}.running_{what}" for what in ("mean", "var")}
        keys.add(f"patch_embed.bn{i}.num_batches_tracked")
    for i in range(16):
        keys.add(f"blocks.{i}.attn.qkv.weight")
        for name in ("norm1", "norm2", "attn.proj", "mlp.fc1", "mlp.fc2"):
            keys |= pair(f"blocks.{i}.{name}")
    return keys


# --- the forward pass -------------------------------------------------------------------------


@torch.no_grad()
def test_the_whole_forward_of_a_loaded_checkpoint(tmp_path: Path) -> None:
    """File, loading, folding, stem, 16 blocks and both heads against plain formulas."""
    path = tmp_path / "lvvit_s.pth.tar"
    torch.save({"state_dict": released(384)}, path)
    model = asap.load_backbone("lvvit_s", str(path)).double()
    image = picture(model)
    expected = lvvit_ref.dense(released(384), image[0], heads=6)
    assert expected.std() > 0.1
    assert difference(model(image)[0], expected) < 1e-10
    assert difference(asap.ReducedViT(model, Dense())(image)[0], expected) < 1e-10


@torch.no_grad()
@pytest.mark.parametrize("key", KEYS)
def test_dense_is_the_reference(key: str) -> None:
    model = small(key)
    images = picture(model, 3)
    expected = torch.stack([lvvit_ref.dense(model.state_dict(), i, heads=3) for i in images])
    assert difference(model(images), expected) < 1e-10
    assert difference(asap.ReducedViT(model, Dense())(images), expected) < 1e-10
    assert difference(asap.ReducedViT(model, Dense(), eager=True)(images), expected) < 1e-10
    walked = torch.stack([forward(model, i).logits for i in images])
    assert difference(walked, expected) < 1e-10
    single = asap.ReducedViT(small(key, torch.float32), Dense())(images.float())
    assert difference(single, expected) < 1e-4


@torch.no_grad()
@pytest.mark.parametrize(
    "part", ["bn1.running_mean", "bn2.running_var", "bn3.bias", "proj.bias", "aux_head.bias"]
)
def test_what_the_comparison_rests_on_matters(part: str) -> None:
    """Each part that an idle value would hide changes the reference's logits."""
    model = small("lvvit-p25")
    state = {key: value.clone() for key, value in model.state_dict().items()}
    image = picture(model)[0]
    before = lvvit_ref.dense(state, image, heads=3)
    (key,) = (k for k in state if k.endswith(part) and "blocks" not in k)
    state[key] += torch.linspace(0, 1, len(state[key]))
    assert difference(lvvit_ref.dense(state, image, heads=3), before) > 1e-3


def test_features_are_the_backbones_own_bit_for_bit() -> None:
    model = small("lvvit-p64", torch.float32)
    images = picture(model, 2)
    rows, batch, trace = asap.ReducedViT(model, Dense()).features(images)
    assert batch.images == (0, 1)
    with torch.no_grad():
        assert torch.equal(rows.view(2, -1, rows.shape[1]), model.forward_features(images))
    assert trace.assignment.tolist() == [list(range(1, 65))] * 2


def test_the_parts_are_timms_and_as_published() -> None:
    model = lvvit_s()
    anatomy = adapter_of(model).anatomy
    assert (anatomy.depth, anatomy.prefix, anatomy.patches) == (16, 1, 196)
    assert anatomy.class_token and anatomy.name == "lvvit_s"
    norms = [m for m in model.modules() if isinstance(m, nn.LayerNorm)]
    assert len(norms) == 33 and {m.eps for m in norms} == {1e-5}
    block = model.blocks[0]
    assert type(block).__module__.startswith("timm") and block.attn.num_heads == 6
    assert block.attn.qkv.bias is None and block.attn.proj.bias is not None
    assert block.mlp.fc1.weight.shape == (1152, 384) and model.pos_embed.shape == (1, 197, 384)
    assert not model.training and not any(m.training for m in model.modules())


def test_training_mode_and_other_sizes_are_refused() -> None:
    model = models()["lvvit-p25"]()
    with pytest.raises(ValueError, match="img_size=48"):
        asap.ReducedViT(model, Dense())(torch.zeros(1, 3, 48, 48))
    with pytest.raises(ValueError, match="training mode"):
        asap.ReducedViT(model.train(), Dense())(picture(model))


def test_parts_of_other_types_are_refused() -> None:
    model = models()["lvvit-p25"]()
    model.patch_embed = nn.Identity()
    with pytest.raises(ValueError, match="patch embedding of type Identity"):
        asap.ReducedViT(model, Dense())
    with pytest.raises(ValueError, match=r"Linear is not supported .*VisionTransformer.*LVViT"):
        adapter_of(nn.Linear(2, 2))


# --- checkpoints ------------------------------------------------------------------------------


def test_the_layout_is_the_released_one() -> None:
    model = lvvit_s()
    assert set(model.state_dict()) == expected_keys() and len(expected_keys()) == 204
    assert sum(p.numel() for p in model.parameters()) == 26_151_824


def test_residual_branches_are_halved_exactly_and_only_inside() -> None:
    model = asap.load_backbone("lvvit_s", "random", model_args=NARROW)
    model.load_state_dict(released())
    inside = dict(model.named_parameters())
    halved = {k for k in inside if k.endswith(("attn.proj.weight", "attn.proj.bias"))}
    halved |= {k for k in inside if k.endswith(("mlp.fc2.weight", "mlp.fc2.bias"))}
    assert len(halved) == 64
    for key, value in inside.items():
        assert torch.equal(value * (2 if key in halved else 1), released()[key]), key
    for twin in (model, copy.deepcopy(model)):
        state = twin.state_dict()
        assert all(torch.equal(state[key], value) for key, value in released().items())
    again = asap.load_backbone("lvvit_s", "random", model_args=NARROW, seed=1)
    again.load_state_dict(model.state_dict())
    assert weights_digest(again) == weights_digest(model)
    assert all(torch.equal(inside[k], v) for k, v in again.named_parameters())


def _bare(state: State) -> object:
    return state


def _parallel(state: State) -> object:
    return {"module." + key: value for key, value in state.items()}


def _full(state: State) -> object:
    """As training scripts write it, with an average of the weights that is not to be used."""
    average = {key: torch.zeros_like(value) for key, value in state.items()}
    extra = {"epoch": 300, "arch": "lvvit_s", "args": argparse.Namespace(lr=1e-3), "metric": 83.3}
    return {"state_dict": _parallel(state), "state_dict_ema": average, **extra}


@pytest.mark.parametrize("wrap", [_bare, _parallel, _full])
@pytest.mark.parametrize("name", ["w.pth.tar", "w.pth", "w.safetensors"])
def test_every_wrapping_loads_the_same(
    wrap: Callable[[State], object], name: str, tmp_path: Path
) -> None:
    path, content = tmp_path / name, wrap(released())
    if path.suffix != ".safetensors":
        torch.save(content, path)
    elif wrap is _full:
        return
    else:
        safetensors.torch.save_file(content, path)
    model = asap.load_backbone("lvvit_s", str(path), file_digest(path), NARROW)
    state = model.state_dict()
    assert all(torch.equal(state[key], value) for key, value in released().items())


def _without(name: str) -> Callable[[State], object]:
    return lambda state: {k: v for k, v in state.items() if k != name}


def _with(name: str, *shape: int) -> Callable[[State], object]:
    return lambda state: state | {name: torch.zeros(shape)}


def _mixed(state: State) -> object:
    return state | {"module.norm.bias": torch.zeros(WIDTH)}


def _nan(state: State) -> object:
    return state | {"norm.bias": torch.full((WIDTH,), float("nan"))}


def _plain_vit(_: State) -> object:
    return asap.load_backbone("deit_tiny_patch16_224", "random", model_args=NARROW).state_dict()


# What loading without strictness would let pass, and what the message names.
UNFIT: dict[str, tuple[Callable[[State], object], str]] = {
    "missing": (_without("norm.bias"), "1 missing, first norm.bias"),
    "missing halved": (
        _without("blocks.7.mlp.fc2.bias"),
        "1 missing, first blocks.7.mlp.fc2.bias",
    ),
    "missing head": (_without("aux_head.weight"), "1 missing, first aux_head.weight"),
    "missing statistics": (
        _without("patch_embed.bn2.running_var"),
        "1 missing, first patch_embed.bn2.running_var",
    ),
    "missing counter": (
        _without("patch_embed.bn3.num_batches_tracked"),
        "1 missing, first patch_embed.bn3.num_batches_tracked",
    ),
    "extra bias": (
        _with("blocks.0.attn.qkv.bias", 3 * WIDTH),
        "1 unexpected, first blocks.0.attn.qkv.bias",
    ),
    "extra block": (
        _with("blocks.16.norm1.bias", WIDTH),
        "1 unexpected, first blocks.16.norm1.bias",
    ),
    "other resolution": (_with("pos_embed", 1, 577, WIDTH), "pos_embed is (1, 577, 48), not"),
    "other patches": (
        _with("patch_embed.proj.weight", WIDTH, 64, 4, 4),
        "patch_embed.proj.weight is (48, 64, 4, 4), not",
    ),
    "other classes": (_with("aux_head.bias", 999), "aux_head.bias is (999,), not (1000,)"),
    "both prefixes": (_mixed, "both with and without `module.`"),
    "not finite": (_nan, "NaN or infinity in norm.bias"),
    "another model": (_plain_vit, "missing, first aux_head.bias"),
    "no tensors": (lambda _: {"state_dict": {"epoch": 3}}, "no state dict of tensors"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_weights_that_do_not_fit_are_refused(case: str, tmp_path: Path) -> None:
    change, said = UNFIT[case]
    path = tmp_path / "w.pth.tar"
    torch.save(change(released()), path)
    with pytest.raises(asap.RequestError) as caught:
        asap.load_backbone("lvvit_s", str(path), model_args=NARROW)
    assert said in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_another_digest_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth.tar"
    torch.save(released(), path)
    with pytest.raises(asap.RequestError, match="sha256"):
        asap.load_backbone("lvvit_s", str(path), "00", NARROW)


@pytest.mark.parametrize("weights", ["hub", "bundled"])
def test_the_address_of_the_release_is_named(weights: str) -> None:
    with pytest.raises(asap.RequestError) as caught:
        asap.load_backbone("lvvit_s", weights)
    assert RELEASE in str(caught.value) and "backbone.weights=" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"img_size": 230}, "img_size=230"),
        ({"patch_size": 7}, "patch_size=7"),
        ({"dephth": 2}, "dephth"),
        ({"embed_dim": 385}, "385"),
    ],
)
def test_bad_model_args_are_refused(arguments: dict, said: str) -> None:
    with pytest.raises(asap.RequestError, match=said):
        asap.load_backbone("lvvit_s", "random", model_args=arguments)


def test_the_config_names_what_the_code_does() -> None:
    path = ROOT / "configs" / "backbone" / "lvvit_s.yaml"
    config = yaml.safe_load(path.read_text("utf-8"))
    assert (config["name"], config["top1"]) == ("lvvit_s", 83.3)
    assert config["weights"] == "${oc.env:LVVIT_S,hub}"  # the variable that the make targets take
    assert RELEASE in path.read_text("utf-8")


def test_preprocessing_is_that_of_the_authors() -> None:
    found = preprocessing_of(lvvit_s())
    assert found.patch_grid == (14, 14)
    assert found.identity == {
        "crop_mode": "center", "crop_pct": 0.9, "input_size": [3, 224, 224],
        "interpolation": "bicubic", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
    }  # fmt: skip
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    cut = tv.center_crop(tv.resize(image, 248, InterpolationMode.BICUBIC), 224)
    expected = tv.normalize(tv.to_tensor(cut), [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    assert torch.allclose(found.transform(image), expected, atol=1e-6)


# --- cost -------------------------------------------------------------------------------------


def test_dense_macs_are_those_of_every_counter() -> None:
    model = lvvit_s()
    cost = adapter_of(model).cost
    assert cost.embed == 1_351_139_328 and cost.patch_head == 384_000
    tokens = np.full((1, 17), 197)
    for position in ("after_attention", "after_block"):
        assert backbone_macs(cost, tokens, position).tolist() == [DENSE_MACS]
    image = torch.zeros(1, 3, 224, 224)
    assert torch_count(model, image) == DENSE_MACS
    assert torch_count(asap.ReducedViT(model, Dense()), image) == DENSE_MACS
    by_operator = fvcore_count(model, image)
    counted = sum(by_operator.values()) - by_operator["layer_norm"] - by_operator["batch_norm"]
    assert counted == DENSE_MACS


def test_both_dense_baselines_are_the_model() -> None:
    model = models()["lvvit-p36"]()
    images = picture(model, 2)
    with torch.no_grad():
        expected = model(images)
        for twin in dense_baselines(model).values():
            assert difference(twin(images), expected.double()) < 1e-5
            assert weights_digest(twin) == weights_digest(model)


# --- methods ----------------------------------------------------------------------------------

ASAP_OPTIONS: dict[str, dict] = {
    "pooling": {},
    "pruning": {"pool": False, "clusters": 3},
    "mass": {"anchor": "mass"},
    "random": {"anchor": "random"},
    "rollout": {"order": "rollout", "binning": "rank"},
    "after_block": {"position": "after_block"},
    "last_block": {"position": "after_block", "max_block": 8, "min_block": 8, "miss": "force"},
    "proportional": {"proportional_attention": True},
    "no_accumulation": {"accumulate": False},
}


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", ASAP_OPTIONS)
def test_asap_equals_the_reference(name: str, key: str) -> None:
    model, options = small(key), {"tau": 3.0, **ASAP_OPTIONS[name]}
    for image_id, image in enumerate(picture(model, 4)):
        reduced = asap.ReducedViT(model, Asap(**options))
        logits, trace = reduced(image[None], [image_id], return_trace=True)
        drawn = {"random_anchor": max(int(trace.sink), 0)} if name == "random" else {}
        expected = reference_asap(model, image, **drawn, **options)
        assert int(trace.stop_block) == expected.stop_block
        assert trace.assignment[0].tolist() == expected.assignment
        assert trace.tokens[0].tolist() == expected.tokens
        assert difference(logits[0], expected.logits) < 1e-6
        assert int(trace.macs_backbone) == expected.macs_backbone
        assert int(trace.macs_method) == expected.macs_method["total"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("r", [0, 3, 8, 25, (4, -1.0)])
def test_tome_equals_the_reference(r: object, key: str) -> None:
    model = small(key)
    for image in picture(model, 3):
        logits, trace = asap.ReducedViT(model, ToMe(r))(image[None], return_trace=True)
        expected = reference_tome(model, image, r)
        assert trace.tokens[0].tolist() == expected.tokens
        assert trace.assignment[0].tolist() == expected.assignment
        assert difference(logits[0], expected.logits) < 1e-6
        assert int(trace.macs_backbone) == expected.macs_backbone


@pytest.mark.parametrize("key", KEYS)
def test_random_drop_equals_the_reference(key: str) -> None:
    model, drop = small(key), RandomDrop(keep=0.3, block=2)
    image = picture(model)[0]
    logits, trace = asap.ReducedViT(model, drop)(image[None], [5], return_trace=True)
    kept = (trace.assignment[0] >= 0).nonzero()[:, 0].tolist()
    expected = reference_random_drop(model, image, kept, block=2)
    assert trace.tokens[0].tolist() == expected.tokens
    assert difference(logits[0], expected.logits) < 1e-10


@dataclass(frozen=True)
class KeepFirst(Method):
    """Keeps the first patches after the last block."""

    count: int = 0
    position: ClassVar[str] = "after_block"  # type: ignore[misc]

    def acts_in(self, block: int, depth: int) -> bool:
        return block == depth - 1

    def reduce(self, site: Site, chosen: torch.Tensor | None) -> Decision:
        kept = torch.zeros(len(site.images), site.length, dtype=torch.bool)
        kept[:, : site.prefix + self.count] = True
        return Decision(keep_only(kept), site.prefix + min(self.count, site.length - site.prefix))


@torch.no_grad()
@pytest.mark.parametrize("count", [0, 1, 2, 30])
def test_the_second_head_sees_the_patches_that_are_left(count: int) -> None:
    model = small("lvvit-p36")
    images = picture(model, 3)
    logits, trace = asap.ReducedViT(model, KeepFirst(count))(images, return_trace=True)
    features = model.forward_features(images)
    expected = model.head(features[:, 0])
    if count:
        expected = expected + model.aux_head(features[:, 1 : 1 + count]).amax(1) / 2
    assert difference(logits, expected) < 1e-10
    dense = asap.ReducedViT(model, Dense())(images, return_trace=True)[1]
    saved = (dense.macs_backbone - trace.macs_backbone).tolist()
    assert saved == [(36 - count) * model.aux_head.weight.numel()] * 3


# --- an image's bits do not depend on its batch -------------------------------------------------


BFLOAT = pytest.param(torch.bfloat16, marks=pytest.mark.slow)


@pytest.mark.parametrize("dtype", [torch.float32, BFLOAT])
@pytest.mark.parametrize("name", METHODS)
def test_results_do_not_depend_on_the_batch(name: str, dtype: torch.dtype) -> None:
    check(name, "lvvit-p36" if dtype == torch.float32 else "lvvit-p25", dtype, 9)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, BFLOAT])
@pytest.mark.parametrize("key", KEYS)
def test_one_image_has_the_bits_it_has_among_seven(
    key: str, dtype: torch.dtype, threads: int, set_threads: Callable[[int], None]
) -> None:
    """The stem: on CPU a convolution of one small image goes to another kernel."""
    set_threads(threads)
    model = small(key, dtype)
    images = picture(model, 7)
    for chosen in (Dense(), ToMe(3), method("pooling", key, torch.float32, 7)):
        reduced = asap.ReducedViT(model, chosen)
        whole = reduced(images, return_trace=True)
        for picked in ([0], [6], [3, 1], [5, 4, 0]):
            part = reduced(images[picked], return_trace=True)
            assert not differing(whole, part, picked), (chosen, picked)


@pytest.mark.parametrize("threads", [1, 2])
def test_nor_at_full_size(threads: int, set_threads: Callable[[int], None]) -> None:
    set_threads(threads)
    model = asap.load_backbone("lvvit_s", "random", model_args={"depth": 3})
    randomise(model, 2)
    images = picture(model, 7)
    reduced = asap.ReducedViT(model, ToMe(60))
    whole = reduced(images, return_trace=True)
    for picked in ([0], [6, 2]):
        assert not differing(whole, reduced(images[picked], return_trace=True), picked)
