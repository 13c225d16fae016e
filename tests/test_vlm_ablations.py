"""The paper's ablations before a language model: composition (Table 10), anchors (Table 11)."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pytest
from made_llava import made_llava, made_llava_next
from made_scores import MODEL, row
from omegaconf import OmegaConf
from test_configs import spec_of

from asap.errors import RequestError
from asap.experiment.pipeline import run
from asap.methods import build
from asap.methods.asap.method import Asap
from asap.publish.pictures.flips import draw_flips
from asap.publish.run_outputs import write_outputs
from asap.records.disk import stem_of
from asap.report.flips import CORRECTED, NEGATIVE
from asap.report.paper import paper_table, published
from asap.report.result import Result
from asap.report.result_table import build_table
from asap.spec.configs import refuse_unused_points

# The differences from only pooling with a budget, by the paper's names (vlm.md, section 6).
COMPOSITION = {
    "LLaVA (Full)": None,
    "Only Pooling": {"max_tokens": None},
    "+ VisPruner": {"plugin": "features", "scores": "attention", "pair_order": "attention"},
    "+ VisPruner + Transition Accumulation": {"plugin": "features", "pair_order": "attention"},
    "+ VisPruner (Diffusion Dist)": {
        "plugin": "diffusion", "scores": "attention", "pair_order": "attention",
    },
    "+ ASAP + VisPruner (ASAP Hybrid)": {"plugin": "diffusion"},
    "ASAP (Original)": {},
}  # fmt: skip


def options(experiment: str, *given: str) -> dict[str | None, dict | None]:
    """All options of each row's method by its name in the paper; None: it reduces nothing."""
    rows = spec_of(f"experiment={experiment}", *given).rows
    found = {}
    for one in rows:
        method = build(one.name, one.options)
        found[one.paper] = asdict(method) if isinstance(method, Asap) else None
    assert len(found) == len(rows)
    return found


def test_the_rows_of_the_composition_differ_as_the_paper_names_them() -> None:
    found = options("composition", "points.asap={tau: 2.5, clusters: 7}")
    assert list(found) == [one["method"] for one in paper_table("composition")] == [*COMPOSITION]
    common = asdict(Asap(tau=2.5, clusters=7, miss="force", max_tokens=64))
    for name, differs in COMPOSITION.items():
        assert found[name] == (None if differs is None else common | differs), name


def test_the_anchors_share_everything_but_the_anchor() -> None:
    found = options("anchor_llava_next", "budget=7", "points.asap.tau=2.5")
    anchors = [one["anchor"] for one in paper_table("anchor_llava_next")]
    assert list(found) == [None, *anchors]
    common = asdict(Asap(tau=2.5, miss="force", max_tokens=7))
    for name, anchor in zip(anchors, ("random", "pca", "sink"), strict=True):
        assert found[name] == common | {"anchor": anchor}


@pytest.mark.parametrize(
    ("name", "paper", "main", "there"),
    [
        ("composition", "+ ASAP + VisPruner (ASAP Hybrid)", "llava15", "ASAP (Ours) + Hybrid"),
        ("anchor_llava_next", "Attention Sink (Ours)", "llava_next", "ASAP (Ours), 160"),
    ],
)
def test_a_row_that_a_main_table_has_too_is_evaluated_once(
    name: str, paper: str, main: str, there: str
) -> None:
    one, other = (
        next(row for row in spec_of(f"experiment={experiment}").rows if row.paper == row_there)
        for experiment, row_there in ((name, paper), (main, there))
    )
    built = [build(row.name, row.options) for row in (one, other)]
    assert built[0] == built[1] and one.pruner is None is other.pruner


@pytest.mark.parametrize("name", ["composition", "anchor_llava_next"])
def test_every_row_stands_beside_the_papers(name: str) -> None:
    """With the paper's own numbers as ours, and the full model's of the table of its model."""
    spec = spec_of(f"experiment={name}")
    results = [
        row(data, one.label, numbers[column], paper=one.paper)
        for one in spec.rows
        if (numbers := published(name, MODEL, one.paper, one.name == "dense")) is not None
        for data, column in (("gqa", "gqa"), ("pope", "pope"))
    ]
    assert len(results) == 2 * len(spec.rows)
    table = build_table(results, paper_table=spec.paper_table)
    for line in table.rows:
        values = line.values
        assert values["paper_pope"] == values["pope"] and values["pope_minus_paper"] == 0
        assert values["paper_gqa"] == values["gqa"] and values["gqa_minus_paper"] == 0
        assert values["avg_minus_paper"] == pytest.approx(0), "over the two alone"


@pytest.mark.filterwarnings("ignore::beartype.roar.BeartypeDecorHintPep585DeprecationWarning")
def test_one_option_of_a_point_may_be_given_where_rows_refer_to_it() -> None:
    rows = [{"with": {"tau": "${points.asap.tau}"}}, {"with": "${points.all}"}]
    config = OmegaConf.create({"rows": rows})
    refuse_unused_points(config, ["points.asap.tau=2", "points.asap={}", "points.all={}"])
    for given in ("points.quiet.tau=2", "points.as={}"):
        with pytest.raises(RequestError, match=f"{given} is for no row of this run"):
            refuse_unused_points(config, [given])


def made_flips(row: Result) -> pd.DataFrame:
    """The first question about each picture as a flip, whatever was answered."""
    asked = row.answers().drop_duplicates("cluster")
    about = asked[["index", "id", "cluster", "path", "category", "subset", "question"]]
    told = {"flip": CORRECTED, "error": NEGATIVE, "answer": "yes"}
    told |= {"said_before": "no", "said_after": "yes", "gap_before": -1.0, "gap_after": 1.0}
    return about.assign(**told, rows_before=80, rows_after=10)


@pytest.mark.whole_run
@pytest.mark.parametrize(
    ("name", "made", "crops", "whole"),
    [("composition", made_llava, 1, 2), ("anchor_llava_next", made_llava_next, 5, 1)],
)
def test_the_rows_answer_with_at_most_the_budget(
    name: str, made: Callable[[Path], Path], crops: int, whole: int, tmp_path: Path
) -> None:
    """On random weights; the first `whole` rows have no budget."""
    spec = spec_of(
        f"experiment={name}", f"model={made(tmp_path / 'model')}", "data=digits_qa",
        "data.pictures=1", "budget=5", "points.asap.tau=1.01", "answer.max_new_tokens=1",
        "device=cpu", "measure.panels=1", f"results={tmp_path / 'results'}",
    )  # fmt: skip
    session, results = run(spec)
    assert [result.reason for result in results] == [None] * len(spec.rows)
    rows = [result.answers()["visual_rows"] for result in results]
    assert set(rows[0]) == {16 * crops}
    assert all(2 * crops <= n <= 5 * crops for own in rows[whole:] for n in own)
    stops = [list(result.traces()["vision.stop_block"]) for result in results[1:]]
    assert all(own == stops[0] for own in stops), "the same mass exceeds the same tau"
    full, sink = results[0], results[-1]
    drawn = draw_flips(session, (full, sink), made_flips(sink), tmp_path / "flip")
    assert [path.suffix for path in drawn] == [".svg", ".png"]
    outputs = write_outputs(session, results)
    assert outputs is not None
    written = {path.name.removeprefix(f"{stem_of(spec.title)}-") for path in outputs.files}
    assert {"flips.csv", "answers.png"} <= written
