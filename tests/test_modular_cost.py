"""Costs in closed form, and the paper's table of modular costs beside them."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_llava import made_llava
from test_configs import spec_of
from test_latency_table import record as times

from asap.backbones.accepted import adapter_of
from asap.backbones.llava.checkpoint import load_llava
from asap.backbones.llava.sizes import VICUNA_7B, clip_large_336, parameters
from asap.core.macs import backbone_macs
from asap.engine.executor import ReducedViT
from asap.errors import RequestError
from asap.experiment.pipeline import run
from asap.measure import loading
from asap.measure.question_cost import question_cost
from asap.methods import Asap, Dense
from asap.methods.asap.forced_macs import forced_macs
from asap.methods.tome import ToMe
from asap.report.printed import printed
from asap.report.result_table import build_table
from asap.report.table_parts import parts

WHOLE = 290_909_184 + 20_979_712 + 6_607_605_760 + 32_064 * 4096  # as in test_llava_loading.py


@pytest.fixture(scope="module")
def tower(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return load_llava(str(made_llava(tmp_path_factory.mktemp("llava"), tower_blocks=6))).tower


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_closed_forms_are_what_the_executor_counts(tower: Any, stop: int) -> None:
    """Nothing is pooled and every image stops in one block."""
    method = Asap(tau=1e9, min_block=None, max_block=stop, miss="force", pool=False, max_tokens=5)
    images = torch.randn(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    _, trace = ReducedViT(tower, method)(images, [1, 2], return_trace=True)
    assert trace.stop_block.tolist() == [stop, stop]
    adapter = adapter_of(tower)
    anatomy = adapter.anatomy
    own = forced_macs(method, anatomy.tokens, anatomy.prefix, anatomy.depth, stop)
    assert trace.macs_method.tolist() == [own, own]
    for left, macs in zip(trace.tokens[:, -1].tolist(), trace.macs_backbone.tolist(), strict=True):
        tokens = np.array([[17] * stop + [left] * (6 - stop)])
        assert int(backbone_macs(adapter.cost, tokens, method.position)[0]) == macs


def test_the_walk_in_all_blocks_is_what_the_executor_counts(tower: Any) -> None:
    method = Asap(overhead=True)
    _, trace = ReducedViT(tower, method)(torch.randn(1, 3, 56, 56), [1], return_trace=True)
    assert trace.macs_method.tolist() == [forced_macs(method, 17, 1, 5, 99)] == [4 * 17**3]


@pytest.mark.parametrize("options", [{"anchor": "pca"}, {"accumulate": False}])
def test_another_walk_has_no_closed_form(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="has no closed form here"):
        forced_macs(Asap(**options), 17, 1, 5, 2)


def test_sizes_are_those_of_the_checkpoints() -> None:
    assert parameters(clip_large_336(), VICUNA_7B) == WHOLE
    assert len(clip_large_336(left_out=0).blocks) == 24


def tflops(method: Any, visual: int) -> tuple[float, float, float]:
    """As the paper's first row adds up; all parts with text; these without the projector."""
    found = question_cost(method, visual, 62, 12)
    macs = found["macs"]
    every = sum(macs.values())
    paper, whole, bare = (
        2 * n / 1e12 for n in (found["macs_paper"], every, every - macs["projector"])
    )
    return paper, whole, bare


def test_numbers_in_the_papers_footnotes_are_these() -> None:
    """And those of the table of costs in the specification, times five crops."""
    full = question_cost(Dense(), 2880, 62, 12)
    assert full["macs"]["tower"] == 5 * 183_016_929_280 and full["stop"] is None
    assert round(full["macs"]["prefill"] / 1e12, 3) == 21.321
    assert full["kv_bytes"] / 2**20 == 1471 and full["weights_bytes"] == 2 * WHOLE
    assert round(tflops(Dense(), 2880)[0], 2) == 43.56
    walk = question_cost(Asap(overhead=True), 2880, 62, 12)["macs"]["method"]
    stop = question_cost(Asap(), 2880, 62, 12)["macs"]["method"]
    assert [round(2 * n / 1e12, 2) for n in (walk, stop)] == [0.04, 0.02]
    assert [round(n, 1) for n in tflops(Asap(), 1050)[:2]] == [15.5, 16.3]
    assert round(tflops(Asap(), 1370)[0], 1) == 20.1
    last = tflops(Asap(max_tokens=32), 160)
    assert (round(last[0], 2), round(last[2], 2)) == (3.07, 3.88)
    assert round(last[2] - 2 * stop / 1e12, 2) == 3.86


@pytest.mark.parametrize(
    "method, visual, said",
    [(ToMe(tokens=64), 320, "ToMe: leave it out"), (Dense(), 2881, "multiple of 5, at most 2880"),
     (Dense(), 2885, "at most 2880"), (Dense(), 0, "multiple of 5")],
)  # fmt: skip
def test_what_has_no_cost_is_one_line(method: Any, visual: int, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        question_cost(method, visual, 62, 12)


# ---- the experiment


@pytest.mark.whole_run
def test_the_papers_table_is_made_without_weights(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(loading, "load_llava", lambda *given, **named: pytest.fail("loaded"))
    spec = replace(spec_of("experiment=modular_cost"), results=tmp_path)
    _, first = run(spec)
    made = build_table(first, paper_table=spec.paper_table)
    values = [row.values for row in made.rows]
    assert [v["paper_tflops"] for v in values] == [43.6, 44.0, 43.7, 20.1, 3.8]
    assert [v["cost_visual_rows"] for v in values] == [2880, 2880, 2880, 1050, 160]
    assert abs(values[0]["tflops_minus_paper"]) < 0.05 and values[3]["tflops_minus_paper"] < -4
    assert values[0]["tflops"] == pytest.approx(sum(
        values[0][f"tflops_of_{part}"] for part in ("tower", "projector", "prefill", "method")
    ))  # fmt: skip
    assert [v.get("measured_ms") for v in values] == [None] * 5
    empty = made.rows[0].notes["measured_ms"]
    assert len(empty) == 1 and "nothing was measured" in empty[0]
    assert "1,370 rows" in str(made.rows[3].notes["paper_tflops"])
    assert [part.title for part in parts(made)] == ["Modular costs"]
    text = printed(made, "Modular costs", 100)
    assert max(map(len, text.splitlines())) <= 100 and "Baseline gate" not in text
    _, again = run(spec)
    assert [r.records["cost"]["created"] for r in again] == [
        r.records["cost"]["created"] for r in first
    ]
    other = replace(spec, measure=replace(spec.measure, also={"cost": {"stop": 11}}))
    _, (_, _, earlier, *_) = run(other)
    assert earlier.key != first[2].key and earlier.records["cost"]["stop"] == 11


@pytest.mark.whole_run
def test_measured_columns_are_filled_where_a_row_was_timed(tmp_path: Path) -> None:
    spec = replace(spec_of("experiment=modular_cost"), results=tmp_path)
    _, results = run(spec)
    timed = [results[0].with_records(latency=times({})), *results[1:]]
    made = build_table(timed, paper_table=spec.paper_table)
    values = made.rows[0].values
    assert values["measured_ms"] == 111
    assert values["measured_memory_gb"] == pytest.approx((13441 + 900) * 2**20 / 1e9)
    text = " ".join(printed(made, "Costs", 120).split())
    assert text.count("questions about 50 pictures") == text.count("Data: ") == 1
    assert "Times of llava:seven on" in text  # the costs are of LLaVA-NeXT 7B
    apart = parts(made)
    assert len(apart) > 1 and all("Timed was llava:seven, not" in p.to_markdown() for p in apart)
    small = build_table([results[0].with_records(latency=times({}, weights_mb=8.0))])
    assert "measured_ms" not in small.rows[0].values
    assert "no LLaVA-NeXT 7B in half precision" in str(small.rows[0].notes["measured_ms"])
    assert [part.title for part in parts(made)][:2] == ["Modular costs", "Time of a question"]


def test_a_row_of_no_stage_has_its_reason_and_a_wrong_plan_is_refused(tmp_path: Path) -> None:
    spec = replace(spec_of("experiment=modular_cost"), results=tmp_path)
    unknown = replace(spec, rows=(spec.rows[0], replace(spec.rows[1], paper="+ Magic")))
    _, results = run(unknown)
    assert results[1].reason == "the paper's table of modular costs has no row '+ Magic'"
    for plan, said in (
        ({"stop": 23}, "stop in 1..22"), ({"text": -1}, "text 0 or more"), ({"rows": 3}, "known: "),
    ):  # fmt: skip
        with pytest.raises(RequestError, match=said):
            run(replace(spec, measure=replace(spec.measure, also={"cost": plan})))
