"""The W&B workspace as code: what it stores, and that it shows only what runs write."""

import json
import logging
from dataclasses import fields

import pytest
from made_questions import ROWS

from asap.cli import dashboards
from asap.methods import Asap
from asap.report import scalars

# viewType and axes of every panel, by section, as W&B names them.
GOLDEN = {
    "Tables": [
        ("Scatter Plot", ["summary:gmacs", "summary:top1"]),
        ("Bar Chart", ["top1"]),
        ("Bar Chart", ["gmacs"]),
        ("Run Comparer", []),
    ],
    "tau x K": [
        (
            "Parallel Coordinates Plot",
            ["config:tau.value", "config:clusters.value", "summary:gmacs",
             "summary:final_tokens_mean", "summary:top1"],
        ),
        ("Scatter Plot", ["config:tau.value", "summary:top1", "config:clusters.value"]),
        ("Scatter Plot", ["config:clusters.value", "summary:top1", "config:tau.value"]),
        ("Scatter Plot", ["config:tau.value", "summary:gmacs", "config:clusters.value"]),
    ],
    "alpha": [
        ("Scatter Plot", ["config:alpha.value", "summary:top1"]),
        ("Scatter Plot", ["config:alpha.value", "summary:gmacs"]),
    ],
    "Efficiency": [
        ("Scatter Plot", ["summary:gmacs", "summary:images_per_s"]),
        ("Bar Chart", ["ratio_fused"]),
        ("Bar Chart", ["ratio_eager"]),
        ("Bar Chart", ["gmacs_method"]),
    ],
    "Sink dynamics": [
        ("Run History Line Plot", ["block", "block/mass"]),
        ("Run History Line Plot", ["block", "block/tokens"]),
        ("Bar Chart", ["sink_on_object"]),
        ("Weave", ["examples"]),
    ],
    "Questions": [
        ("Scatter Plot", ["summary:layer_visual_rows", "summary:top1"]),
        ("Bar Chart", ["average"]),
        ("Bar Chart", ["kv_mib"]),
        ("Run History Line Plot", ["block", "block/language_rows"]),
    ],
}  # fmt: skip


def axes(panel: dict) -> list[str]:
    config = panel["config"]
    if "panel2Config" in config:
        return ["examples"] if '"examples"' in json.dumps(config) else []
    if "columns" in config:
        return [column["accessor"] for column in config["columns"]]
    found = [config.get(f"{axis}Axis") for axis in "xyz"]
    return [name for name in found if name] + list(config.get("metrics") or [])


@pytest.fixture(scope="module")
def stored() -> dict:
    return json.loads(dashboards.as_json(dashboards.workspace("team", "asap")))


def test_the_workspace_is_the_golden_one(stored):
    sections = stored["spec"]["section"]["panelBankConfig"]["sections"]
    panels = {s["name"]: [(p["viewType"], axes(p)) for p in s["panels"]] for s in sections}
    assert {name: panels.get(name) for name in GOLDEN} == GOLDEN
    assert (stored["entity"], stored["project"]) == ("team", "asap")


def test_it_is_the_same_each_time(stored):
    assert json.loads(dashboards.as_json(dashboards.workspace("team", "asap"))) == stored


def test_panels_show_what_runs_write():
    written = {*scalars.SCALAR_NAMES, *scalars.scalars(ROWS[1])}
    written |= {f"block/{name}" for name in ("mass", *scalars.curves(ROWS[1]))}
    written |= {f"config:{f.name}" for f in fields(Asap)}
    shown = {a for panels in dashboards.SECTIONS.values() for p in panels for a in p.axes}
    assert shown <= written


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["push"], "entity is missing"),
        (["push", "entity=me"], "no W&B API key"),
        (["push", "entity="], "give entity=... and project=..."),
        (["pull"], "use push or print"),
    ],
)
def test_a_wrong_request_is_one_line(given, message, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(dashboards, "set_up_logging", lambda: None)
    monkeypatch.setattr(logging.getLogger("asap"), "propagate", True)
    for name, value in (("HOME", tmp_path), ("NETRC", tmp_path / "none")):
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    assert dashboards.main(given) == 2
    (said,) = [r.getMessage() for r in caplog.records if r.name == "asap"]
    assert said.startswith("error: ") and message in said


def test_a_key_that_is_refused_is_one_line(monkeypatch):
    def refuse(**_):
        raise ValueError("API key must have 40+ characters,\nhas 5")

    monkeypatch.setattr("wandb.login", refuse)
    with pytest.raises(dashboards.RequestError) as caught:
        dashboards._push("me", "asap")
    assert str(caught.value).endswith("workspace: API key must have 40+ characters, has 5")


def test_without_the_library_it_says_how_to_get_it(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "wandb_workspaces.workspaces", None)
    with pytest.raises(dashboards.RequestError, match="pip install"):
        dashboards.workspace("team", "asap")
