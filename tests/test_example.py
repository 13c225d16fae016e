"""The README's worked example: a method in a file outside the package, found by name."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from forked import run

import asap
from asap.methods.registry import build
from asap.records.identity import method_of

ROOT = Path(__file__).resolve().parents[1]
COMMAND = "python -m asap.run --config-dir examples/configs method=norm_top_k method.k=24"


def test_the_readme_shows_the_example_as_it_is():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert (ROOT / "examples/norm_top_k.py").read_text("utf-8").rstrip() in readme
    assert (ROOT / "examples/configs/method/norm_top_k.yaml").read_text("utf-8").rstrip() in readme
    assert COMMAND in readme


@pytest.mark.process
def test_the_example_runs_from_the_command_line(tmp_path):
    command = [sys.executable, *COMMAND.split()[1:], "limit=40", f"results={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    records = [json.loads(p.read_text()) for p in (tmp_path / "runs").glob("*/accuracy.json")]
    record = next(r for r in records if method_of(r)["name"] == "examples.norm_top_k")
    assert method_of(record)["options"] == {"k": 24, "block": 3}
    assert [method_of(r)["name"] for r in records if r is not record] == ["dense"]  # its baseline
    assert record["tokens_mean"] == [65.0] * 4 + [25.0] * 9
    assert record["n"] == 40


def test_the_example_that_measures_refuses_a_block_that_is_not_there(monkeypatch):
    monkeypatch.chdir(ROOT)
    model = asap.load_backbone("digits_vit")
    for block in (-1, len(model.blocks)):
        with pytest.raises(ValueError, match=f"block={block} is not possible"):
            asap.ReducedViT(model, build("examples.similarity", {"block": block}))


@pytest.mark.process
def test_a_method_measures_something_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    given = ["--config-dir", "examples/configs", "method=similarity", "method.keep=24"]
    done = run(*given, "limit=40", f"results={tmp_path}")
    assert done.returncode == 0, done.stderr
    paths = list((tmp_path / "runs").glob("*/accuracy.json"))
    records = {method_of(r := json.loads(p.read_text()))["name"]: (p, r) for p in paths}
    path, record = records["examples.similarity"]
    column = pd.read_parquet(path.with_name("traces.parquet"))["vision.dropped_cosine"]
    assert len(column) == 40 and column.between(-1, 1).all() and column.nunique() > 1
    assert "dropped_cosine_mean" in json.dumps(record)
    assert "dropped_cosine" not in json.dumps(records["dense"][1])
