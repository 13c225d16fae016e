"""Preprocessing, classes and arguments are what timm's config.json beside the weights says."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from composed_once import composed_once
from draws import randomise
from huggingface_hub import constants
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file
from samples import data_spec
from test_gate import config as gate_config
from test_gate import record as gate_record
from timm.data import create_transform, resolve_model_data_config
from timm.models import save_for_hf
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import asap
from asap.backbones.digits_vit import ARCHITECTURE as DIGITS
from asap.backbones.digits_vit import PREPROCESSING as DIGITS_PICTURES
from asap.backbones.preprocess import CROP_MODES, INTERPOLATIONS, preprocessing_of
from asap.backbones.weights.load import BUNDLED_FOLDER, load
from asap.cli.show import class_names
from asap.errors import RequestError
from asap.experiment.pipeline import run
from asap.measure.session import Session
from asap.records.key import key_of
from asap.report.gate import baseline_gate
from asap.report.provenance import facts
from asap.report.result import Result
from asap.report.result_table import build_table
from asap.spec.configs import config_dir, read_method
from asap.spec.read import read_spec
from asap.spec.run_spec import BackboneSpec, MethodSpec, RunSpec

NAME = "vit_tiny_patch16_224"
ARGS = {"embed_dim": 32, "depth": 2, "num_heads": 2}
ODD = {"img_size": (32, 48), "num_classes": 3, "global_pool": "avg", "qk_norm": True, **ARGS}
PICTURES = {
    "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "crop_pct": 0.7, "crop_mode": "squash",
    "interpolation": "bilinear",
}  # fmt: skip


def saved(
    folder: Path, pictures: dict[str, Any] = PICTURES, safe: bool = True, **args: Any
) -> nn.Module:
    """A small ViT, every parameter random, as timm's save_for_hf leaves it in a folder."""
    model = timm.create_model(NAME, **(args or ODD)).eval()
    randomise(model, seed=5)
    save_for_hf(model, str(folder), safe_serialization=safe, data_config=pictures)
    return model


def edited(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def spec_of(backbone: BackboneSpec, results: Path, images: int = 4) -> RunSpec:
    rows = (MethodSpec.of("dense", {}, "Dense"),)
    return RunSpec("x", backbone, data_spec("digits", images=images), rows, results=results)


@torch.no_grad()
def assert_as_timm(model: nn.Module, folder: Path) -> None:
    """The model and its transform are those of timm's own `local-dir:`."""
    theirs = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    config = resolve_model_data_config(theirs)
    transform: Any = create_transform(**config, is_training=False)
    draw = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (70, 90, 3), dtype=torch.uint8, generator=draw)
    picture = Image.fromarray(pixels.numpy())
    image = transform(picture)
    assert torch.equal(preprocessing_of(model).transform(picture), image)
    assert torch.equal(model(image[None]), theirs(image[None]))
    ours: dict[str, Any] = resolve_model_data_config(model)  # what a user of the library asks
    assert {k: list(v) if isinstance(v, tuple) else v for k, v in ours.items()} == {
        k: list(v) if isinstance(v, tuple) else v for k, v in config.items()
    }


# ---- config.json


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize("way", ["folder", "file", "tagged", "local-dir", "our args"])
def test_a_folder_of_timms_gives_what_timm_gives(way, safe, tmp_path):
    saved(tmp_path, safe=safe)
    file = tmp_path / ("model.safetensors" if safe else "pytorch_model.bin")
    name, weights, args = {
        "folder": (NAME, str(tmp_path), {}),
        "file": (NAME, str(file), {}),
        "tagged": (f"{NAME}.augreg_in21k", str(tmp_path), {}),
        "local-dir": (f"local-dir:{tmp_path}", "hub", {}),
        "our args": (NAME, str(tmp_path), {"img_size": [32, 48], "depth": 2}),
    }[way]
    model = asap.load_backbone(name, weights, model_args=args)
    assert model.num_classes == 3
    assert_as_timm(model, tmp_path)


@pytest.mark.parametrize("weights", ["model", "pytorch_model"])
def test_weights_of_which_timm_takes_the_first_are_taken_so(weights, tmp_path):
    saved(tmp_path, safe=False)
    other = {k: v + 1 for k, v in torch.load(tmp_path / "pytorch_model.bin").items()}
    torch.save(other, tmp_path / f"{weights}.pth")
    assert_as_timm(asap.load_backbone(f"local-dir:{tmp_path}"), tmp_path)


def test_an_old_config_of_timms_is_read_as_timm_reads_it(tmp_path):
    saved(tmp_path, num_classes=3)
    old = {
        "architecture": NAME, "num_features": 192, "num_classes": 3, "input_size": [3, 224, 224],
        "crop_pct": 0.8, "interpolation": "nearest", "mean": [0.2] * 3, "std": [0.3] * 3,
        "fixed_input_size": True, "first_conv": "patch_embed.proj", "classifier": "head",
        "pool_size": None,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(old))
    model = asap.load_backbone(NAME, str(tmp_path))
    assert preprocessing_of(model).identity["interpolation"] == "nearest"
    assert_as_timm(model, tmp_path)


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["ViTForImageClassification"], "model_type": "vit", "image_size": 32},
        {"architecture": "MyNet", "mean": [9, 9, 9], "hidden_size": 3},
        {"architecture": NAME, "num_classes": 3},
        ["no", "settings"],
    ],
)
def test_a_config_of_another_library_says_nothing(config, tmp_path, caplog):
    saved(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = load(NAME, str(tmp_path), model_args=ODD)
    assert preprocessing_of(loaded.model).identity["mean"] == [0.5, 0.5, 0.5]  # the name's own
    assert "of another library than timm" in caplog.text
    with pytest.raises(RequestError, match=r"has no config\.json of timm,"):
        load(f"local-dir:{tmp_path}")


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"pretrained_cfg": {"mean": [0.5, 0.4]}}, ["mean=[0.5, 0.4]", "three numbers"]),
        ({"pretrained_cfg": {"crop_pct": 0}}, ["crop_pct=0", "at most 1"]),
        ({"pretrained_cfg": {"interpolation": "cubic"}}, ["'cubic'", "bicubic"]),
        ({"pretrained_cfg": {"padding": 4}}, ["unknown field 'padding'"]),
        ({"pretrained_cfg": {"input_size": "big"}}, ["image size"]),
        ({"pretrained_cfg": {"input_size": [64]}}, ["is not an image size"]),
        ({"model_args": {"img_size": [64]}}, ["is not an image size"]),
        ({"model_args": {"img_size": []}}, ["is not an image size"]),
        ({"model_args": {"img_size": {}}}, ["is not an image size"]),
        ({"pretrained_cfg": {"crop_pct": 10**400}}, ["crop_pct=1000", "at most 1"]),
        ({"pretrained_cfg": {"mean": 10**400}}, ["mean=[1000", "three numbers"]),
        ({"model_args": [1]}, ["not as timm writes it"]),
        ({"model_args": {"checkpoint_path": "/x"}}, ["checkpoint_path", "backbone.weights"]),
        ({"architecture": 3}, ["config.json"]),
    ],
)
def test_a_broken_config_is_named(change, parts, tmp_path):
    saved(tmp_path)
    edited(tmp_path, **change)
    with pytest.raises(RequestError) as refusal:
        load(f"local-dir:{tmp_path}")
    said = str(refusal.value)
    assert all(part in said for part in (*parts, str(tmp_path))) and "\n" not in said, said


def test_an_architecture_with_a_tag_is_that_architecture(tmp_path):
    saved(tmp_path)
    edited(tmp_path, architecture=f"{NAME}.augreg_in21k")
    for name, weights in ((NAME, str(tmp_path)), (f"local-dir:{tmp_path}", "hub")):
        assert_as_timm(asap.load_backbone(name, weights), tmp_path)


@pytest.mark.parametrize(("mean", "std"), [(0.4, 0.3), ([0.4], [0.3]), (0.4, [0.3, 0.2, 0.1])])
def test_one_number_is_that_of_every_channel(mean, std, tmp_path):
    saved(tmp_path)
    known = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    edited(tmp_path, pretrained_cfg={**known, "mean": mean, "std": std})
    model = asap.load_backbone(NAME, str(tmp_path))
    identity = preprocessing_of(model).identity
    assert identity["mean"] == [0.4] * 3 and len(identity["std"]) == 3
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    transforms = [
        create_transform(**resolve_model_data_config(one), is_training=False)
        for one in (model, theirs)
    ]
    picture = Image.new("RGB", (70, 90), (10, 100, 200))
    assert torch.equal(*(cast(Any, transform)(picture) for transform in transforms))


def test_a_config_for_grey_pictures_is_refused_for_its_channels(tmp_path):
    saved(tmp_path, {"mean": (0.5,), "std": (0.5,)}, **{**ODD, "in_chans": 1})
    with pytest.raises(RequestError, match="in_chans=1 is not supported"):
        run(spec_of(BackboneSpec(NAME, str(tmp_path)), tmp_path / "results"))


def test_a_config_that_is_no_json_is_refused(tmp_path):
    saved(tmp_path)
    (tmp_path / "config.json").write_text('{"architecture": ')
    for name, weights in ((NAME, str(tmp_path)), (f"local-dir:{tmp_path}", "hub")):
        with pytest.raises(RequestError, match=r"config\.json .*cannot be read"):
            load(name, weights)


def test_another_architecture_is_refused_with_both_names(tmp_path):
    saved(tmp_path)
    for file in (tmp_path, tmp_path / "model.safetensors"):
        with pytest.raises(RequestError) as refusal:
            load("vit_small_patch16_224.augreg_in21k", str(file))
        for part in ("vit_small_patch16_224", NAME, "config.json", f"backbone.name={NAME}"):
            assert part in str(refusal.value)


def test_arguments_by_hand_go_before_the_configs(tmp_path, caplog):
    saved(tmp_path, num_classes=3, init_values=0.1, **ARGS)
    loaded = load(NAME, str(tmp_path), model_args={"num_heads": 4, "num_classes": 0})
    assert loaded.model.blocks[0].attn.num_heads == 4 and loaded.model.num_classes == 0
    assert "model_args.num_heads=4 is taken" in caplog.text and "says 2" in caplog.text
    assert loaded.args["num_heads"] == 4 and loaded.args["init_values"] == 0.1
    with pytest.raises(RequestError, match=r"have 3 classes.*built for 2"):
        load(NAME, str(tmp_path), model_args={"num_classes": 2})


def test_other_weights_of_a_described_folder(tmp_path):
    """The folder that is the name says what the model is; the weights may lie elsewhere."""
    model = saved(tmp_path / "saved")
    torch.save(model.state_dict(), tmp_path / "epoch3.pth")
    name = f"local-dir:{tmp_path}/saved"
    assert_as_timm(asap.load_backbone(name, str(tmp_path / "epoch3.pth")), tmp_path / "saved")
    assert load(name, "random").model.num_classes == 3
    with pytest.raises(RequestError, match="'bundled' is not possible"):
        load(name, "bundled")
    with pytest.raises(RequestError, match="is not a folder"):
        load(f"local-dir:{tmp_path}/gone")
    with pytest.raises(RequestError, match="no model id"):
        load("local-dir:")


@pytest.mark.parametrize("revision", ["", "@main", "@" + "c" * 40])
@pytest.mark.parametrize("prefix", ["hf-hub:", "hf_hub:"])
def test_a_repository_in_the_hubs_cache_is_a_backbone(prefix, revision, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = tmp_path / "hub" / "models--me--mine"
    snapshot = repository / "snapshots" / ("c" * 40)
    saved(snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c" * 40)
    loaded = load(f"{prefix}me/mine{revision}")
    assert loaded.file is not None and loaded.file.origin == f"hub, me/mine{revision}"
    assert_as_timm(loaded.model, snapshot)
    assert_as_timm(load(NAME, str(repository)).model, snapshot)  # as a folder too
    assert BackboneSpec(f"{prefix}me/mine{revision}").shown == f"hf-hub:me/mine{revision}"


def test_a_repository_that_is_nowhere_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(RequestError, match=r"me/mine is not in the hub cache.*HF_HUB_OFFLINE"):
        load("hf-hub:me/mine")
    with pytest.raises(RequestError, match=r"config\.json of me/mine is not in.*local-dir:"):
        load("hf-hub:me/mine", "random")
    with pytest.raises(RequestError, match="not a repository on the hub"):
        load("hf-hub:a/b/c")


def test_the_configs_class_names_are_shown(tmp_path):
    saved(tmp_path)
    edited(tmp_path, label_names=["cat", "dog", "fish"])
    assert class_names(Session(spec_of(BackboneSpec(f"local-dir:{tmp_path}"), tmp_path))) == [
        "cat", "dog", "fish"
    ]  # fmt: skip


# ---- overrides


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    saved(folder)
    return folder


unit = st.floats(0.01, 1.0)
options = st.fixed_dictionaries(
    {},
    optional={
        "mean": st.lists(unit, min_size=3, max_size=3),
        "std": st.lists(unit, min_size=3, max_size=3),
        "crop_pct": unit,
        "crop_mode": st.sampled_from(CROP_MODES),
        "interpolation": st.sampled_from(INTERPOLATIONS),
        "img_size": st.sampled_from([[32, 48], [33, 49], [32, 50]]),  # all 2 x 3 patches
    },
)


@given(options=options)
@settings(max_examples=25)
def test_what_is_given_by_hand_is_taken_and_the_rest_is_the_weights_own(plain, options):
    loaded = load(NAME, str(plain), preprocess=options)
    size = options.pop("img_size", [32, 48])
    expected = {k: list(v) if isinstance(v, tuple) else v for k, v in PICTURES.items()}
    assert preprocessing_of(loaded.model).identity == {
        **expected, **options, "input_size": [3, *size]
    }  # fmt: skip
    known: dict[str, Any] = resolve_model_data_config(loaded.model)
    assert known["crop_pct"] == options.get("crop_pct", 0.7)


def test_where_the_preprocessing_is_from_is_said_where_it_is_not_the_architectures(plain):
    said = {
        "config.json beside the weights": load(NAME, str(plain)),
        "backbone.preprocess": load(NAME, "random", preprocess={"crop_pct": 0.8}),
        "backbone.model_args": load(NAME, "random", model_args={**ARGS, "img_size": 32}),
    }
    assert all(loaded.preprocessing_from == where for where, loaded in said.items())
    both = load(NAME, str(plain), preprocess={"crop_pct": 0.8}).preprocessing_from
    assert both is not None and set(both.split(" and ")) == set(list(said)[:2])
    own = load(NAME, "random", model_args=ARGS, preprocess={"crop_pct": 0.9})  # its own value
    assert own.preprocessing_from is None


@pytest.mark.parametrize(
    ("option", "parts"),
    [
        ({"crop": 1.0}, ["unknown key 'crop'", "did you mean 'crop_"]),
        ({"meen": [0, 0, 0]}, ["unknown key 'meen'", "'mean'"]),
        ({"mean": [0.5]}, ["mean=[0.5]", "three numbers"]),
        ({"mean": 0.5}, ["mean=0.5", "three numbers"]),
        ({"mean": [123.7, 116.3, 103.5]}, ["from 0 to 1"]),
        ({"mean": [True, 0, 0]}, ["three numbers"]),
        ({"std": [0.5, 0.0, 0.5]}, ["std=", "above 0"]),
        ({"std": [0.5, float("nan"), 0.5]}, ["std="]),
        ({"crop_pct": 0}, ["crop_pct=0", "above 0"]),
        ({"crop_pct": 1.01}, ["crop_pct=1.01", "at most 1"]),
        ({"crop_pct": "0.9"}, ["crop_pct='0.9'"]),
        ({"crop_mode": "corner"}, ["'corner'", "squash"]),
        ({"interpolation": "cubic"}, ["'cubic'", "bicubic"]),
        ({"img_size": 0}, ["img_size=0", "pixels"]),
        ({"img_size": [32]}, ["img_size=[32]", "[height, width]"]),
        ({"img_size": 32.0}, ["img_size=32.0"]),
        ({"img_size": 64}, ["pos_embed", "nothing is resampled"]),
        ({"img_size": [48, 32]}, ["2 x 3 patches", "3 x 2", "img_size=[32,48]"]),
    ],
)
def test_what_cannot_be_is_refused(plain, option, parts):
    with pytest.raises(RequestError) as refusal:
        load(NAME, str(plain), preprocess=option)
    assert all(part in str(refusal.value) for part in parts), refusal.value


def test_another_size_by_hand_builds_the_model_for_it():
    by_size = load(NAME, "random", model_args=ARGS, preprocess={"img_size": 64})
    by_args = load(NAME, "random", model_args={**ARGS, "img_size": 64})
    for one in (by_size, by_args):
        assert preprocessing_of(one.model).identity["input_size"] == [3, 64, 64]
    states = by_size.model.state_dict(), by_args.model.state_dict()
    assert all(torch.equal(states[0][k], v) for k, v in states[1].items())
    with pytest.raises(RequestError, match=r"img_size=64 and .*img_size=48 are two sizes"):
        load(NAME, "random", model_args={"img_size": 48}, preprocess={"img_size": 64})
    with pytest.raises(RequestError, match=r"'digits_vit' with \{'img_size': 56\}"):
        load("digits_vit", preprocess={"img_size": 56})
    assert load("digits_vit", preprocess={"img_size": 112}).preprocessing_from is None


@pytest.mark.parametrize("way", ["preprocess", "model_args"])
def test_pixels_beyond_the_last_whole_patch_are_said(way, caplog):
    size = {"img_size": [33, 48]}
    args = {**ARGS, **(size if way == "model_args" else {})}
    load(NAME, "random", model_args=args, preprocess=size if way == "preprocess" else {})
    assert "images of [33,48] pixels are not a multiple of the patch size 16" in caplog.text
    assert "does not see the pixels beyond [32,48]" in caplog.text
    caplog.clear()
    load(NAME, "random", model_args={**ARGS, "img_size": 32})
    assert not caplog.text


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"img_size": []}, r"model_args.img_size=\[\] is not possible"),
        ({"img_size": [64]}, r"model_args.img_size=\[64\] is not possible"),
        ({"img_size": "64"}, "model_args.img_size='64' is not possible"),
        ({"img_size": 8}, "images of 8 pixels have no whole patch of 16"),
        ({"img_size": [64, 15]}, r"images of \[64,15\] pixels have no whole patch"),
        ({"patch_size": 0}, r"'patch_size': 0\}: "),
        ({"depth": "two"}, "'depth': 'two'"),
        ({"norm_layer": "none of timm's"}, "'norm_layer': "),
    ],
)
def test_a_model_that_cannot_be_built_is_one_line(args, said):
    with pytest.raises(RequestError, match=said) as refusal:
        load(NAME, "random", model_args={**ARGS, **args})
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("checkpoint_path", "backbone.weights"), ("pretrained_cfg_overlay", "backbone.preprocess")],
)
def test_arguments_that_are_no_models_are_refused(name, remedy):
    with pytest.raises(RequestError, match=f"model_args.{name} is not an .* use {remedy}"):
        load(NAME, "random", model_args={name: "/x"})


# ---- in records, tables and the gate


def digits_folder(folder: Path) -> None:
    """The bundled weights as a user's own model, saved by timm."""
    model = timm.create_model(NAME, **DIGITS)
    model.load_state_dict(load_file(BUNDLED_FOLDER / "digits_vit.safetensors"))
    pictures = {k: v for k, v in DIGITS_PICTURES.items() if k != "input_size"}
    save_for_hf(model, str(folder), safe_serialization=True, data_config=pictures)


def test_a_saved_model_gets_its_accuracy_and_the_table_says_how(tmp_path):
    digits_folder(tmp_path / "mine")
    results = tmp_path / "results"
    answers, tables = [], []
    for backbone in (
        BackboneSpec("digits_vit"),
        BackboneSpec(f"local-dir:{tmp_path}/mine"),
        BackboneSpec(NAME, str(tmp_path / "mine"), preprocess={"mean": [0.1, 0.1, 0.1]}),
    ):
        _, (cell,) = run(spec_of(backbone, results, images=24))
        answers.append(cell.answers())
        tables.append((cell, " ".join(build_table([cell]).caption)))
    expected, found, other = (list(a["top5_logits"].map(list)) for a in answers)
    assert found == expected != other
    assert "Preprocessing" not in tables[0][1]
    for _, caption in tables[1:]:
        for part in ("112 x 112 pixels", "crop 1 (center)", "bicubic", "config.json beside"):
            assert part in caption
    assert "mean 0.5 0.5 0.5" in tables[1][1] and "mean 0.1 0.1 0.1" in tables[2][1]
    assert "backbone.preprocess" in tables[2][1]
    said = {fact.name: fact.values for fact in facts([tables[2][0]])}
    assert "backbone.preprocess" in str(said["preprocessing from"])
    saved_cell: Result = tables[1][0]
    assert saved_cell.backbone == "local-dir:mine"  # no path in what others get to see
    assert str(tmp_path) not in json.dumps(saved_cell.measured)


def test_rows_of_two_preprocessings_are_in_no_table(tmp_path):
    cells = []
    for preprocess in ({}, {"crop_pct": 0.5}):
        backbone = BackboneSpec("digits_vit", preprocess=preprocess)
        cells += run(spec_of(backbone, tmp_path))[1]
    assert cells[0].key != cells[1].key
    with pytest.raises(RequestError, match="one table holds one preprocessing for digits_vit"):
        build_table(cells)


def test_the_key_is_of_what_the_config_says_not_of_where_it_lies(tmp_path):
    saved(tmp_path / "a" / "mine", **DIGITS)
    shutil.copytree(tmp_path / "a" / "mine", tmp_path / "b" / "mine")

    def key(folder: str, **changes: Any) -> str:
        spec = spec_of(BackboneSpec(f"local-dir:{tmp_path}/{folder}/mine", **changes), tmp_path)
        session = Session(spec)
        return key_of(session.identity(session.methods[0]))

    first = key("a")
    assert key("b") == first
    assert key("b", preprocess={"std": [0.4, 0.5, 0.6]}) == first  # as the config says
    assert key("b", preprocess={"crop_pct": 0.9}) != first
    assert key("b", model_args={"num_heads": 6}) != first
    content = json.loads((tmp_path / "b" / "mine" / "config.json").read_text())
    edited(tmp_path / "b" / "mine", pretrained_cfg={**content["pretrained_cfg"], "crop_pct": 0.9})
    assert key("b") != first


def test_the_gate_is_for_the_weights_own_preprocessing():
    changed = gate_config(preprocess={"crop_pct": 1.0})
    gate = baseline_gate("DeiT-Base", gate_record(40_990), changed)
    assert gate.state == "not applicable" and "backbone.preprocess" in gate.reason
    for own in ({}, {"mean": None, "crop_pct": None}):  # null: as the weights say
        verdict = baseline_gate("X", gate_record(40_990), gate_config(preprocess=own))
        assert verdict.state == "passed"


# ---- on the command line


def read(*overrides: str) -> BackboneSpec:
    here = initialize_config_dir(version_base="1.3", config_dir=str(config_dir()))
    with composed_once(), here:
        plain: Any = OmegaConf.to_container(compose("config", list(overrides)), resolve=True)
    return read_spec({k: v for k, v in plain.items() if k != "hydra"}, read_method).backbone


@pytest.mark.parametrize(
    ("override", "field", "value"),
    [
        ("backbone.model_args.num_classes=2", "model_args", {"num_classes": 2}),
        ("backbone.model_args={num_classes: 2}", "model_args", {"num_classes": 2}),
        ("+backbone.model_args.num_classes=2", "model_args", {"num_classes": 2}),
        ("++backbone.model_args.img_size=[32,64]", "model_args", {"img_size": [32, 64]}),
        ("backbone.preprocess.crop_pct=1.0", "preprocess", {"crop_pct": 1.0}),
        ("backbone.preprocess={mean: [0, 0, 0]}", "preprocess", {"mean": [0, 0, 0]}),
        ("backbone.ema=true", "ema", True),
        ("backbone.name=local-dir:/a/b", "name", "local-dir:/a/b"),
        ("backbone.name=hf-hub:me/mine@v1", "name", "hf-hub:me/mine@v1"),
    ],
)
@pytest.mark.parametrize("choice", ["digits_vit", "deit_tiny", "timm"])
def test_new_keys_need_no_plus(choice, override, field, value):
    name = [] if "name=" in override or choice != "timm" else ["backbone.name=x"]
    backbone = read(f"backbone={choice}", *name, override)
    assert getattr(backbone, field) == value
    untouched = read(f"backbone={choice}", *(name or ["backbone.name=x"]))
    assert (untouched.model_args, untouched.preprocess, untouched.ema) == ({}, {}, None)


def test_other_unknown_keys_are_still_refused():
    with pytest.raises(Exception, match=r"Could not override 'backbone\.modelargs"):
        read("backbone.modelargs.depth=2")


def test_a_plain_file_is_as_the_name_says(tmp_path):
    """No config, no change: timm's registry says the preprocessing of a name."""
    model = VisionTransformer(img_size=32, patch_size=16, num_classes=3, **ARGS)
    torch.save(model.state_dict(), tmp_path / "w.pth")
    args = {**ARGS, "img_size": 32, "num_classes": 3}
    loaded = load("deit_tiny_patch16_224.fb_in1k", str(tmp_path / "w.pth"), model_args=args)
    assert preprocessing_of(loaded.model).identity["mean"] == [0.485, 0.456, 0.406]
    assert loaded.preprocessing_from == "backbone.model_args"  # the size alone


def test_dynamic_sizes_run_at_the_size_of_the_model(tmp_path):
    """timm would resample the positions for the 224 pixels that its config keeps on advising."""
    saved(tmp_path, dynamic_img_size=True, **ODD)
    with pytest.raises(RequestError) as refusal:
        load(f"local-dir:{tmp_path}")
    for part in ("[32,48]", "224", "resampled", "backbone.preprocess.img_size=[32,48]"):
        assert part in str(refusal.value)
    model = asap.load_backbone(f"local-dir:{tmp_path}", preprocess={"img_size": [32, 48]})
    images: Tensor = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = model(images)
    assert torch.equal(
        timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()(images), expected
    )
    found = asap.ReducedViT(model, asap.methods.Dense())(images)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
