"""Weights that do not fit are refused, weights that fit are taken: types, keys, entries, places."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from draws import randomise
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from samples import data_spec
from timm.models import load_state_dict, save_for_hf
from torch import Tensor, nn

import asap
from asap.backbones.weights.load import load
from asap.core.checkpoints import FLOATS, read_state
from asap.errors import RequestError
from asap.measure.session import Session
from asap.methods import Dense
from asap.methods.dynamicvit.checkpoint import read_checkpoint
from asap.spec.run_spec import BackboneSpec, MethodSpec, RunSpec

NAME = "vit_tiny_patch16_224"
ARGS = {"img_size": 32, "embed_dim": 32, "depth": 2, "num_heads": 2, "num_classes": 3}
WIDE = {**ARGS, "img_size": (64, 256), "patch_size": 16}  # 4 x 16 patches
SQUARE = {**ARGS, "img_size": (128, 128), "patch_size": 16}  # 8 x 8 patches, as many


def model_of(args: dict[str, Any] = ARGS, seed: int = 3) -> nn.Module:
    model = timm.create_model(NAME, **args).eval()
    randomise(model, seed=seed)
    return model


def state_of(args: dict[str, Any] = ARGS, seed: int = 3) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model_of(args, seed).state_dict().items()}


STATE = state_of()


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("weights")


def holds(model: nn.Module, state: dict[str, Tensor]) -> bool:
    return all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


# ---- types

CODES = (
    torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64,
    torch.float8_e4m3fn, torch.float8_e5m2,
)  # fmt: skip


@given(
    key=st.sampled_from(sorted(STATE)),
    kind=st.sampled_from([*FLOATS, *CODES]),
    wrap=st.sampled_from([None, "model", "state_dict"]),
)
@settings(max_examples=40)
def test_only_floats_are_weights(room, key, kind, wrap):
    state = {**STATE, key: STATE[key].to(kind)}
    torch.save({wrap: state} if wrap else state, room / "w.pth")
    if kind in FLOATS:
        model = load(NAME, str(room / "w.pth"), model_args=ARGS).model
        assert torch.equal(model.state_dict()[key], STATE[key].to(kind).float())
        return
    with pytest.raises(RequestError) as refusal:
        load(NAME, str(room / "w.pth"), model_args=ARGS)
    for part in (key, str(kind).removeprefix("torch."), "dequantised", str(room / "w.pth")):
        assert part in str(refusal.value)


def test_eight_bit_safetensors_are_refused(tmp_path):
    state = {k: (v * 20).clamp(-127, 127).to(torch.int8) for k, v in STATE.items()}
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(RequestError, match=r"more\) is int8 .*dequantised"):
        load(NAME, str(tmp_path / "w.safetensors"), model_args=ARGS)


def test_counters_stay_whole_numbers(tmp_path):
    """LV-ViT's batch norms count batches, in whole numbers and in no others."""
    small = {"img_size": 32, "embed_dim": 48, "depth": 1, "num_heads": 2, "stem_width": 8}
    model = asap.load_backbone("lvvit_s", "random", model_args=small)
    state, path = model.state_dict(), tmp_path / "w.pth"
    key = "patch_embed.bn1.num_batches_tracked"
    for value in (torch.tensor(7), torch.tensor(7, dtype=torch.int32), torch.tensor(7.0)):
        torch.save({**state, key: value}, path)
        assert int(load("lvvit_s", str(path), model_args=small).model.state_dict()[key]) == 7
    torch.save({**state, key: torch.tensor(7.5)}, path)
    with pytest.raises(RequestError, match=key):
        load("lvvit_s", str(path), model_args=small)
    torch.save({**state, "patch_embed.bn1.running_var": torch.ones(8, dtype=torch.int8)}, path)
    with pytest.raises(RequestError, match="running_var is int8"):
        load("lvvit_s", str(path), model_args=small)


def test_predictors_of_another_type_are_refused(tmp_path):
    torch.save({"score_predictor.0.in_conv.0.weight": torch.ones(4).int()}, tmp_path / "w.pth")
    with pytest.raises(RequestError, match=r"score_predictor\.0\.in_conv\.0\.weight is int32"):
        read_checkpoint(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(lambda v: v.to_sparse(), "sparse_coo"), (lambda v: v.to("meta"), "without numbers")],
)
def test_tensors_that_are_not_all_there_are_refused(spoil, said, tmp_path):
    torch.save({**STATE, "head.weight": spoil(STATE["head.weight"])}, tmp_path / "w.pth")
    with pytest.raises(RequestError, match=rf"head\.weight is {said}"):
        load(NAME, str(tmp_path / "w.pth"), model_args=ARGS)


# ---- keys


@given(
    prefixes=st.lists(st.sampled_from(["_orig_mod.", "module.", "model.", "x."]), max_size=3),
    wrap=st.sampled_from([None, "model", "state_dict", "model_ema", "state_dict_ema"]),
)
@settings(max_examples=40)
def test_prefixes_are_stripped_as_timm_strips_them(room, prefixes, wrap):
    state = {"".join(prefixes) + k: v for k, v in STATE.items()}
    path = room / "prefixed.pth"
    torch.save({wrap: state} if wrap else state, path)
    ours, theirs = read_state(path, "backbone.weights").tensors, load_state_dict(str(path))
    assert ours.keys() == theirs.keys()
    if ours.keys() == STATE.keys():
        assert holds(load(NAME, str(path), model_args=ARGS).model, STATE)
    else:
        with pytest.raises(RequestError, match=r"\d+ missing, first "):
            load(NAME, str(path), model_args=ARGS)


def test_a_compiled_and_a_parallel_models_keys_are_taken(tmp_path):
    for prefix in ("_orig_mod.", "module.", "_orig_mod.module.", "module._orig_mod."):
        save_file({prefix + k: v for k, v in STATE.items()}, tmp_path / "w.safetensors")
        assert holds(load(NAME, str(tmp_path / "w.safetensors"), model_args=ARGS).model, STATE)
    torch.save({**STATE, "_orig_mod.norm.bias": STATE["norm.bias"]}, tmp_path / "w.pth")
    with pytest.raises(RequestError, match="both with and without"):
        load(NAME, str(tmp_path / "w.pth"), model_args=ARGS)


# ---- entries

OTHER = state_of(seed=4)


@pytest.mark.parametrize(
    ("usual", "averaged"),
    [
        ("state_dict", "state_dict_ema"), ("model", "model_ema"), ("state_dict", "model_ema"),
        ("model", "ema"), ("state_dict", "ema_state_dict"),
    ],
)  # fmt: skip
def test_of_two_sets_of_weights_the_wanted_one_is_taken_and_named(
    usual, averaged, tmp_path, caplog
):
    path = tmp_path / "w.pth"
    torch.save({averaged: OTHER, usual: STATE, "epoch": 3, "optimizer": {"state": {}}}, path)
    for ema, entry, other, state in (
        (True, averaged, usual, OTHER),
        (False, usual, averaged, STATE),
        (None, usual, averaged, STATE),
    ):
        caplog.clear()
        loaded = load(NAME, str(path), model_args=ARGS, ema=ema)
        assert holds(loaded.model, state)
        assert (loaded.fitted.entry, loaded.fitted.others) == (entry, (other,))
        assert f"{entry} is taken, beside it lies {other}" in caplog.text
        assert "backbone.ema" in caplog.text
    spec = spec_of(BackboneSpec(NAME, str(path), model_args=ARGS, ema=True), tmp_path)
    record = Session(spec).weights_record
    assert record is not None and (record["entry"], record["others"]) == (averaged, [usual])


def test_beside_a_config_the_averaged_ones_are_taken_as_by_timm(tmp_path):
    save_for_hf(model_of(), str(tmp_path), safe_serialization=False)
    torch.save({"state_dict": STATE, "state_dict_ema": OTHER}, tmp_path / "pytorch_model.bin")
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    loaded = load(f"local-dir:{tmp_path}")
    assert holds(loaded.model, theirs.state_dict()) and holds(loaded.model, OTHER)
    assert holds(load(f"local-dir:{tmp_path}", ema=False).model, STATE)


@pytest.mark.parametrize(
    ("content", "ema", "said"),
    [
        (STATE, True, "holds no EMA weights"),
        ({"state_dict": STATE, "model_ema": None}, True, "holds no EMA weights"),
        ({"model_ema": STATE}, False, r"EMA weights alone \(model_ema\)"),
        ({"epoch": 3, "model": "vit"}, None, "no state dict of tensors"),
    ],
)
def test_weights_that_are_not_there_are_refused(content, ema, said, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(RequestError, match=said):
        load(NAME, str(tmp_path / "w.pth"), model_args=ARGS, ema=ema)


def test_of_two_sets_without_an_average_timms_first_is_taken_and_named(tmp_path, caplog):
    torch.save({"model": OTHER, "state_dict": STATE}, tmp_path / "w.pth")
    assert holds(load(NAME, str(tmp_path / "w.pth"), model_args=ARGS).model, STATE)
    assert "state_dict is taken, beside it lies model" in caplog.text
    assert "backbone.ema" not in caplog.text


def test_averaged_weights_alone_are_taken(tmp_path):
    torch.save({"state_dict_ema": STATE, "state_dict": None}, tmp_path / "w.pth")
    for ema in (True, None):
        assert holds(load(NAME, str(tmp_path / "w.pth"), model_args=ARGS, ema=ema).model, STATE)
    with pytest.raises(RequestError, match=r"ema=true .*random reads none"):
        load(NAME, "random", model_args=ARGS, ema=True)


@pytest.mark.parametrize(
    "averaged",
    [
        {"module": OTHER},
        {"module": {f"module.{k}": v for k, v in OTHER.items()}, "updates": 3},
        {"n_averaged": torch.tensor(7), **{f"module.{k}": v for k, v in OTHER.items()}},
    ],
    ids=["wrapped", "wrapped twice", "torch's AveragedModel"],
)
def test_averages_are_found_in_the_forms_in_which_trainers_save_them(averaged, tmp_path, caplog):
    path = tmp_path / "w.pth"
    torch.save({"model": STATE, "model_ema": averaged, "epoch": 3}, path)
    assert holds(load(NAME, str(path), model_args=ARGS, ema=True).model, OTHER)
    caplog.clear()
    assert holds(load(NAME, str(path), model_args=ARGS).model, STATE)
    assert "model is taken, beside it lies model_ema" in caplog.text


# ---- places of positions


@given(rows=st.integers(1, 8), columns=st.integers(1, 8), turned=st.booleans())
@settings(max_examples=20)
def test_positions_of_another_grid_are_refused_where_a_config_says_it(room, rows, columns, turned):
    folder = room / f"grid-{rows}-{columns}"
    if not folder.exists():
        model = model_of({**ARGS, "img_size": (16 * rows, 16 * columns)})
        save_for_hf(model, str(folder), safe_serialization=True)
    size = [16 * columns, 16 * rows] if turned else [16 * rows, 16 * columns]
    if turned and rows != columns:
        with pytest.raises(RequestError) as refusal:
            load(NAME, str(folder), model_args={"img_size": size})
        for part in (f"{rows} x {columns} patches", f"{columns} x {rows}", "img_size="):
            assert part in str(refusal.value)
    else:
        assert load(NAME, str(folder), model_args={"img_size": size}).fitted.assumed is None


def test_as_many_positions_in_another_arrangement(tmp_path, caplog):
    """8 x 8 against 4 x 16: the config decides, and without one it is said what was assumed."""
    save_for_hf(model_of(SQUARE), str(tmp_path), safe_serialization=True)
    wide, square = ({**a, "img_size": list(a["img_size"])} for a in (WIDE, SQUARE))
    with pytest.raises(RequestError, match="8 x 8 patches and the backbone has 4 x 16"):
        load(NAME, str(tmp_path), model_args=wide)
    (tmp_path / "config.json").unlink()
    loaded = load(NAME, str(tmp_path), model_args=wide)
    assert loaded.fitted.assumed == "positions of 4 x 16 patches, row by row"
    assert "positions of 4 x 16 patches, row by row" in caplog.text
    assert load(NAME, str(tmp_path), model_args=square).fitted.assumed is None
    spec = spec_of(BackboneSpec(NAME, str(tmp_path), model_args=wide), tmp_path)
    record = Session(spec).weights_record
    assert record is not None and "4 x 16" in record["assumed"]


def test_a_config_that_says_its_size_in_the_old_way_decides_too(tmp_path):
    """No model_args: the size of the images is the grid's."""
    save_for_hf(model_of(SQUARE), str(tmp_path), safe_serialization=True)
    path = tmp_path / "config.json"
    content = json.loads(path.read_text())
    args = {k: v for k, v in content.pop("model_args").items() if k != "img_size"}
    path.write_text(json.dumps({**content, "model_args": args}))
    with pytest.raises(RequestError, match="8 x 8 patches and the backbone has 4 x 16"):
        load(NAME, str(tmp_path), model_args={"img_size": [64, 256]})
    assert load(NAME, str(tmp_path)).model.patch_embed.grid_size == (8, 8)


# ---- what the executor cannot run


def spec_of(backbone: BackboneSpec, results: Path) -> RunSpec:
    rows = (MethodSpec.of("dense", {}, "Dense"),)
    return RunSpec("x", backbone, data_spec("digits", images=2), rows, results=results)


@pytest.mark.parametrize("dynamic", [True, False])
def test_padded_images_are_refused_before_anything_is_read(dynamic, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "asap.measure.session.open_data", lambda *_, **__: pytest.fail("data was opened")
    )
    args = {**ARGS, "img_size": 40, "dynamic_img_pad": True, "dynamic_img_size": dynamic}
    session = Session(spec_of(BackboneSpec(NAME, "random", model_args=args), tmp_path))
    with pytest.raises(RequestError, match="dynamic_img_pad=True is not supported"):
        _ = session.data


@pytest.mark.parametrize("size", [32, [32, 48]])
def test_a_flexible_model_runs_as_timm_runs_it(size):
    args = {**ARGS, "img_size": size, "dynamic_img_size": True}
    model = asap.load_backbone(NAME, "random", model_args=args)
    randomise(model, seed=1)
    images = torch.randn(2, 3, *model.patch_embed.img_size)
    with torch.no_grad():
        expected = model(images)
    found = asap.ReducedViT(model, Dense())(images)
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_what_does_not_fit_is_refused_before_data_are_opened(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "asap.measure.session.open_data", lambda *_, **__: pytest.fail("data was opened")
    )
    torch.save({k: v.to(torch.int8) for k, v in STATE.items()}, tmp_path / "w.pth")
    backbone = BackboneSpec(NAME, str(tmp_path / "w.pth"), model_args=ARGS)
    with pytest.raises(RequestError, match="int8"):
        _ = Session(spec_of(backbone, tmp_path)).data
