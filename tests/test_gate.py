"""The baseline gate on hand-made records: counts whose distance from the reference is known."""

import csv
import io
import json
from pathlib import Path

import pytest
import yaml
from made import methods
from samples import small_run

from asap.backbones.weights.load import BUNDLED
from asap.cli.report import write_tables
from asap.errors import RequestError
from asap.experiment.pipeline import run
from asap.publish.run_outputs import write_outputs
from asap.report import paper
from asap.report.gate import baseline_gate
from asap.report.result import Result
from asap.report.result_table import build_table
from asap.spec.configs import config_dir

DEIT = "deit_base_patch16_224.fb_in1k"


def record(correct: int, n: int = 50_000, n_failed: int = 0) -> dict:
    return {"correct1": correct, "n": n, "n_failed": n_failed, "precision": "fp32"}


def test_no_published_number_is_for_questions() -> None:
    gate = baseline_gate("llava", {**record(10, 20), "questions": {}}, {"backbone": {"top1": None}})
    assert (gate.state, gate.reason) == (
        "not applicable",
        "no published number is for these questions",
    )


def config(data: dict | None = None, **backbone) -> dict:
    reference = {"top1": 81.98, "source": "a table", "tolerance": 0.05, "weights": "hub"}
    return {
        "backbone": {"name": DEIT, "model_args": {}, **reference, **backbone},
        "data": {"name": "imagenet", "split": "evaluation", **(data or {})},
    }


# 81.98 % of 50,000 are 40,990 images, and 0.05 points are 25 of them.
def test_what_calibration_took_is_counted_with_the_rest():
    """40,990 of 50,000 are right, 800 of them among the 1,000 of calibration."""
    gate = baseline_gate("X", record(40_190, n=49_000), config(), record(800, n=1_000))
    assert gate.state == "passed" and "difference +0.000" in gate.line
    assert "81.980 % with the 1,000 images of calibration" in gate.line
    assert baseline_gate("X", record(40_190, n=49_000), config()).state == "not applicable"
    short = baseline_gate("X", record(40_190, n=49_000), config(), record(800, 999, 1))
    assert short.state == "not applicable" and "could not be read" in short.reason


@pytest.mark.parametrize(
    ("correct", "state", "difference"),
    [
        (40_990, "passed", "+0.000"),
        (40_966, "passed", "-0.048"),
        (40_965, "passed", "-0.050"),
        (40_964, "failed", "-0.052"),
        (41_014, "passed", "+0.048"),
        (41_015, "passed", "+0.050"),
        (41_016, "failed", "+0.052"),
    ],
)
def test_within_the_tolerance_and_just_outside(correct, state, difference):
    gate = baseline_gate("DeiT-Base", record(correct), config())
    assert gate.state == state
    measured = f"{correct / 500:.3f} %"
    for part in (measured, "81.980 %", "a table", f"difference {difference}", "0.05 points"):
        assert part in gate.line
    assert gate.comparable == "yes" if state == "passed" else gate.comparable.startswith("no: ")


@pytest.mark.parametrize(("correct", "state"), [(41_600, "passed"), (41_599, "failed")])
def test_lvvit_has_its_own_tolerance(correct, state):
    settings = yaml.safe_load((config_dir() / "backbone" / "lvvit_s.yaml").read_text())
    gate = baseline_gate("LV-ViT-S", record(correct), config(**settings))
    assert (gate.state, settings["top1"]) == (state, 83.3)  # 83.2 % are 41,600 images


@pytest.mark.parametrize(
    ("entry", "settings", "part"),
    [
        (None, config(), "no dense accuracy record"),
        (record(40_990), None, "settings beside the dense record are missing"),
        (record(40_990), config(weights="random"), "weights are random"),
        (record(40_990), config(top1=None), "no reference"),
        (record(40_990), config(model_args={"img_size": 384}), "model_args"),
        (record(820, n=1000), config(), "1,000 of 50,000 images"),
        (record(40_988, n=49_997, n_failed=3), config(), "3 images could not be read"),
        (record(40_990), config({"name": "folder"}), "not the ImageNet-1k validation set"),
        (record(40_990), config({"split": "train"}), "not the ImageNet-1k validation set"),
    ],
)
def test_what_can_be_held_against_no_published_number(entry, settings, part):
    gate = baseline_gate("DeiT-Base", entry, settings)
    assert gate.state == "not applicable"
    assert part in gate.reason and part in gate.comparable and part in gate.line
    assert gate.comparable.startswith("no: not applicable")


def test_all_reasons_are_given():
    settings = config({"name": "digits"}, weights="random", top1=None)
    line = baseline_gate("X", record(9, n=10), settings).line
    assert all(part in line for part in ("random", "no reference", "not the ImageNet-1k"))
    assert "\n" not in line


def cell(name: str, correct: int, backbone: str = DEIT, settings: dict | None = None) -> Result:
    top1 = correct / 500
    entry = {
        **record(correct), "key": name, "identity": {"methods": methods(name)},
        "backbone": backbone, "data": "val",
        "top1": top1, "top5": 95.0, "clustered": False,
        "top1_interval": [top1 - 1, top1 + 1], "gmacs_backbone": 1.0, "gmacs_method": 0.0,
        "gmacs_sd": 0.0, "gmacs_no_attention": None, "final_tokens_mean": 9.0, "device": "cpu",
        "missed_share": None, "object_recall": None, "sink_on_object": None, "object_share": None,
    }  # fmt: skip
    return Result(name, records={"accuracy": entry}, config=settings or config())


def test_a_table_carries_the_verdict_on_each_of_its_backbones():
    small = "deit_small_patch16_224.fb_in1k"
    cells = [
        cell("dense", 40_990),
        cell("tome", 30_000),
        cell("dense", 30_000, small, config(top1=79.856)),
        cell("tome", 39_900, small),
        cell("tome", 40_000, "vit_other"),
    ]
    table = build_table(cells, ["first"])
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    failed = (
        "no: failed (dense top-1 measured 60.000 %, expected 79.856 % by a table, difference "
        "-19.856, tolerance 0.05 points, fp32)"
    )
    without = "no: not applicable (there is no dense accuracy record)"
    assert [r["comparable"] for r in rows] == ["yes", "yes", failed, failed, without]
    assert table.remarks[0] == "first"
    lines = [line for line in table.remarks if line.startswith("Baseline gate, ")]
    assert [line.split(" (")[0] for line in lines] == [
        "Baseline gate, DeiT-Base: passed",
        "Baseline gate, DeiT-Small: failed",
        "Baseline gate, vit_other: not applicable",
    ]
    assert all(line in table.to_markdown() for line in lines)


def test_a_run_and_its_records_alone_say_the_same(tmp_path):
    backbone = yaml.safe_load((config_dir() / "backbone" / "digits_vit.yaml").read_text())
    session, results = run(small_run(tmp_path, images=3, backbone=backbone))
    outputs = write_outputs(session, results)
    verdict = (
        "Baseline gate, digits_vit: not applicable (this backbone has no reference; the data are "
        "not the ImageNet-1k validation set): its rows do not count as comparable with others'."
    )
    assert outputs is not None and verdict in " ".join(outputs.text.split())
    assert verdict in write_tables(tmp_path, [])[0].read_text()

    (path,) = tmp_path.glob("runs/*/accuracy.json")
    entry, settings = json.loads(path.read_text()), path.with_name("config.yaml")
    file = {"origin": "bundled", "file": "digits_vit.safetensors", "sha256": BUNDLED["digits_vit"]}
    assert entry["weights"] == file
    # The same record as if it were of the full validation set.
    path.write_text(json.dumps(entry | record(40_990) | {"top1": 81.98}))
    settings.write_text(yaml.safe_dump(config()))
    markdown, table = write_tables(tmp_path, [])[:2]
    assert "Baseline gate, digits_vit: passed (dense top-1 measured 81.980" in markdown.read_text()
    assert [r["comparable"] for r in csv.DictReader(io.StringIO(table.read_text()))] == ["yes"]
    settings.write_text("{")
    assert (
        "settings beside the dense record are missing" in write_tables(tmp_path, [])[0].read_text()
    )


# ---- what the configs and the paper's tables say

REFERENCES = {  # config -> model of the paper, published top-1
    "deit_base": ("DeiT-Base", 81.98),
    "deit_small": ("DeiT-Small", 79.856),
    "deit_tiny": ("DeiT-Tiny", 72.19),
    "vit_augreg": ("ViT-AugReg", 81.402),
    "lvvit_s": ("LV-ViT-S", 83.3),
}


@pytest.mark.parametrize("path", sorted((config_dir() / "backbone").glob("*.yaml")), ids=str)
def test_a_backbone_config_states_its_reference_or_that_it_has_none(path: Path):
    settings = yaml.safe_load(path.read_text())
    assert settings["top1"] == REFERENCES.get(path.stem, (None, None))[1]
    assert (settings["top1"] is None) == (settings["source"] is None)
    assert settings["tolerance"] == (0.1 if path.stem == "lvvit_s" else 0.05)


def test_the_papers_models_are_the_backbones_of_the_configs():
    printed = {row["model"] for row in paper.paper_table("image_classification")}
    assert printed == {model for model, _ in REFERENCES.values()}
    for stem, (model, _) in REFERENCES.items():
        name = yaml.safe_load((config_dir() / "backbone" / f"{stem}.yaml").read_text())["name"]
        assert paper.paper_model(name) == model
        rows = [r for r in paper.paper_table("image_classification") if r["model"] == model]
        for row in rows:
            published = paper.paper_row(name, row["method"])
            assert published is not None and published.acc_reduced == float(row["acc_reduced"])
        assert paper.paper_base(name) == float(rows[0]["acc_base"])


def test_an_impossible_tolerance_is_refused():
    with pytest.raises(RequestError, match=r"backbone\.tolerance=-0\.1"):
        small_run("results", backbone={"name": "digits_vit", "tolerance": -0.1})
