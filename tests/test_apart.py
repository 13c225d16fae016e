"""Rows with a checkpoint of their own, in which backbone and method were trained together."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peers import checkpoint, predictors

import asap
from asap.experiment.job import Job
from asap.experiment.pipeline import evaluate, run
from asap.measure.in_memory import InMemory
from asap.measure.session import Session
from asap.publish.all_records import write_page
from asap.publish.pictures.examples import examples_of
from asap.publish.run_outputs import write_outputs
from asap.report.figures.treated import at_equal_macs
from asap.report.result import Result
from asap.spec.configs import read_method
from asap.spec.read import read_spec
from asap.spec.run_spec import RunSpec

NEEDS = "a checkpoint of the authors"


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    """The embedded model, a little changed, with predictors."""
    path = tmp_path_factory.mktemp("apart") / "dynamicvit.pth"
    model = asap.load_backbone("digits_vit")
    with torch.no_grad():
        for value in model.parameters():
            value += 0.001
    torch.save(checkpoint(predictors(96), model), path)
    return path


def spec_of(file: Path, results: Path, **backbone) -> RunSpec:
    own = {"method": "dynamicvit", "file": str(file), "needs": NEEDS}
    return read_spec(
        {
            "title": "apart", "results": str(results), "device": "cpu",
            "backbone": {"name": "digits_vit", "weights": "bundled", **backbone},
            "data": {"name": "digits", "images": 10}, "measure": {"panels": 1},
            "rows": [{"method": "dense"}, own, {"method": "asap", "with": {"tau": 0.5}}],
        },
        read_method,
    )  # fmt: skip


def measured(spec: RunSpec) -> tuple:
    """As `asap.run` does it: a session of the rows without weights of their own, all results."""
    job, memory = Job(spec=spec), InMemory()
    evaluate([job], memory)
    assert job.ended and not job.refused
    return Session(spec_without_apart(spec), memory), job.results


def spec_without_apart(spec: RunSpec) -> RunSpec:
    return replace(spec, rows=tuple(row for row in spec.rows if row.needs is None))


def test_the_row_stands_in_the_table_with_weights_of_its_own(file: Path, tmp_path: Path) -> None:
    session, results = measured(spec_of(file, tmp_path))
    assert [result.own_weights for result in results] == [False, True, False]
    weights = [result.measured["identity"]["backbone"]["weights"] for result in results]
    assert weights[0] == weights[2] != weights[1]
    outputs = write_outputs(session, results)
    assert outputs is not None
    note = "weights are those of its own checkpoint dynamicvit.pth, not the baseline's"
    assert "DynamicViT" in outputs.text and note in " ".join(outputs.text.split())
    assert at_equal_macs(results) == results[1:]
    assert not any("side-by-side" in str(path) for path in outputs.files)  # no second row is left
    assert examples_of(session, results[1], 2) == []
    page = write_page(tmp_path).read_text()  # from records alone
    assert note.replace("'", "&#39;") in page and "one set of weights" not in page


def test_what_is_said_of_the_other_rows_file_is_not_of_this_one(file: Path, tmp_path: Path) -> None:
    state = asap.load_backbone("digits_vit").state_dict()
    torch.save({"state_dict": state, "state_dict_ema": state}, tmp_path / "both.pth")
    spec = spec_of(file, tmp_path / "r", weights=str(tmp_path / "both.pth"), ema=True)
    assert measured(spec)[1][1].measured["n"] == 10


def test_a_checkpoint_that_is_not_there_is_refused_before_anything_runs(tmp_path: Path) -> None:
    spec = spec_of(tmp_path / "none.pth", tmp_path)
    job = Job(spec=spec)
    evaluate([job], InMemory())
    (said,) = job.failed
    assert job.refused and re.search(f"DynamicViT: .*none.pth does not exist: give {NEEDS}", said)
    assert not list(tmp_path.glob("runs/*/*"))


def test_a_row_without_its_checkpoint_says_what_it_needs_in_its_place(tmp_path: Path) -> None:
    spec = spec_of(tmp_path / "none.pth", tmp_path)
    lacking = replace(spec, rows=(spec.rows[0], replace(spec.rows[1], file=None), spec.rows[2]))
    job = Job(spec=lacking)
    evaluate([job], InMemory())
    assert [result.reason for result in job.results] == [None, f"it needs {NEEDS}", None]
    assert not job.failed  # that is no failure


def test_pictures_and_examples_take_the_sessions_method_with_its_file(
    file: Path, tmp_path: Path
) -> None:
    """A record has the digest of a method's file, from which nothing can be built again."""
    spec = spec_of(file, tmp_path, weights=str(file))
    together = replace(spec.rows[1], file=None, needs=None).with_options({"weights": str(file)})
    session, results = run(replace(spec, rows=(spec.rows[0], together, spec.rows[2])))
    rows: list[Result] = results
    assert len(examples_of(session, rows[1], 2)) == 2
    outputs = write_outputs(session, rows)
    assert outputs is not None and any("side-by-side" in str(path) for path in outputs.files)
