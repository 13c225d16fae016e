"""The experiments on Kinetics: costs of their rows, their heads, what calibration may see."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_kinetics import FakeKinetics
from test_configs import spec_of

from asap.backbones.frame_encoder import frame_encoder
from asap.backbones.weights.load import load
from asap.calibrate.calibration_images import blind, calibration_spec, cost_spec, evaluation_spec
from asap.core.macs import BackboneCost, BlockCost, backbone_macs
from asap.data.open import options_of
from asap.engine.executor import ReducedViT
from asap.errors import RequestError
from asap.methods import Dense, build
from asap.spec.run_spec import CalibrateSpec, DataSpec, RunSpec

SIZES = {"kinetics_clip_vit_large": 336, "kinetics_clip_vit_large_224": 224}
WIDTH, DEPTH = 1024, 24


def costs_pct(size: int, removed: Mapping[int, Any]) -> float:
    """MACs against dense, in %, of removing so many tokens by block, of CLIP's ViT-L/14."""
    patches = (size // 14) ** 2
    blocks = (BlockCost(3 * WIDTH**2, WIDTH**2, 8 * WIDTH**2, WIDTH),) * DEPTH
    cost = BackboneCost(14 * 14 * 3 * WIDTH * patches, 0, blocks)
    left = patches + 1 - np.cumsum([0, *(removed.get(block, 0) for block in range(DEPTH))])
    macs, dense = (
        float(backbone_macs(cost, tokens[None], "after_attention")[0])
        for tokens in (left, np.full(DEPTH + 1, patches + 1))
    )
    return 100 * (macs / dense - 1)


@pytest.mark.parametrize("name", SIZES)
def test_rows_cost_what_the_paper_prints(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEAD", "a.safetensors")
    monkeypatch.setenv("HEAD_224", "b.safetensors")
    spec = spec_of(f"experiment={name}", "data.path=/data/k400")
    size = SIZES[name]
    assert f"_{size}." in spec.backbone.name and spec.paper_table == "kinetics"
    assert (spec.backbone.top1, spec.backbone.tolerance) == (80.78, 0.5)
    assert spec.head is not None and spec.head.kind == "attention"
    assert spec.head.file == {336: "a.safetensors", 224: "b.safetensors"}[size]
    rows = {row.label: row for row in spec.rows}
    tome = dict(enumerate(rows["ToMe"].options["r"]))
    assert len(tome) == DEPTH
    assert costs_pct(size, tome) == pytest.approx(-34.09, abs=0.05)
    ppt = {block: rows["PPT"].options["r"] for block in (6, 12, 18)}
    assert costs_pct(size, ppt) == pytest.approx(-32.95, abs=0.15)
    assert (rows["ASAP (prun.)"].macs_pct, rows["ASAP (pool.)"].macs_pct) == (-36.36, -35.23)
    named = [row.paper for row in spec.rows if row.paper]
    assert named == ["ToMe", "PPT", "Ours (prun.)", "Ours (pool.)"]
    thresholds = (rows["PPT"].grid or {})["threshold"]
    scaled = 7e-5 * (196 / (size // 14) ** 2) ** 2  # the authors', for this many patches
    assert min(abs(t / scaled - 1) for t in thresholds) < 0.02
    for row in spec.rows:
        build(row.name, row.options)


def test_the_largest_column_mass_has_an_experiment_for_any_backbone() -> None:
    spec = spec_of("experiment=column_mass", "backbone=clip_vit_large_336", "data=kinetics",
                   "head=attention")  # fmt: skip
    (row,) = spec.rows
    assert spec.head is not None and row.options["tau"] == 1e6


def test_a_frame_of_the_large_model_costs_what_the_overhead_table_prints() -> None:
    """174.6 G are without attention products; the feature is that of timm's forward pass.

    Its first two blocks are run; those of the other 22 have the same shapes.
    """
    name, depth = "vit_large_patch14_clip_quickgelu_336.openai", 2
    encoder = frame_encoder(
        load(name, "random", None, {"depth": depth}, 0, {}, None).model, "class"
    )
    frame = torch.randn(1, 3, 336, 336, generator=torch.Generator().manual_seed(0))
    dense = ReducedViT(encoder, Dense())
    feature, trace = dense(frame, return_trace=True)
    with torch.no_grad():
        assert torch.allclose(feature, encoder(frame), atol=1e-4) and feature.shape == (1, WIDTH)
    assert trace.tokens.tolist() == [[577] * (depth + 1)]
    cost = dense.adapter.cost
    assert trace.macs.tolist() == backbone_macs(cost, trace.tokens.numpy(), "").tolist()
    whole = replace(cost, blocks=cost.blocks[:1] * DEPTH)
    tokens = np.full((1, DEPTH + 1), 577)
    assert backbone_macs(whole, tokens, "").tolist() == [190_959_108_096]
    macs = backbone_macs(whole, tokens, "", attention_products=False)
    assert round(int(macs[0]) / 1e9, 1) == 174.6


@pytest.fixture
def made(tmp_path: Path) -> FakeKinetics:
    return FakeKinetics.make(6, train=4)


def kinetics(root: Path, **about: object) -> RunSpec:
    spec = spec_of("experiment=kinetics_clip_vit_large", f"data.path={root}")
    return RunSpec(
        "t", spec.backbone, spec.data, spec.rows, head=spec.head,
        calibrate=CalibrateSpec(images=3, **about),  # type: ignore[arg-type]
    )  # fmt: skip


def test_operating_points_are_met_on_training_clips(made: FakeKinetics, tmp_path: Path) -> None:
    made.folders(tmp_path)
    spec = kinetics(tmp_path)
    assert not blind(spec) and cost_spec(spec) is None
    found = calibration_spec(spec)
    assert (found.data.options["split"], found.limit) == ("train", 3)
    assert evaluation_spec(spec) == spec
    elsewhere = calibration_spec(kinetics(tmp_path, path="/other/train"))
    assert elsewhere.data.options["train_path"] == "/other/train"


def test_without_training_clips_a_slice_of_the_others_is_left_out(
    made: FakeKinetics, tmp_path: Path
) -> None:
    FakeKinetics({**made.clips, "train": []}, made.content, made.positions).folders(tmp_path)
    spec = kinetics(tmp_path)
    assert blind(spec) and calibration_spec(spec).data.part == "slice"
    assert evaluation_spec(spec).data.part == "rest"
    assert not blind(kinetics(tmp_path, slice="train"))


def test_embedded_clips_have_a_calibration_split() -> None:
    data = DataSpec("digits_clips", None, {"split": "evaluation"})
    spec = RunSpec("t", spec_of().backbone, data, (), calibrate=CalibrateSpec(cost_images=5))
    assert calibration_spec(spec).data.options["split"] == "calibration"
    costs = cost_spec(spec)
    assert costs is not None and (costs.data.options["split"], costs.limit) == ("train", 5)
    assert options_of(costs.data)
    given = RunSpec("t", spec.backbone, data, (), calibrate=CalibrateSpec(path="/a"))
    with pytest.raises(RequestError, match=r"calibrate\.path='/a' is not for data=digits_clips"):
        calibration_spec(given)
