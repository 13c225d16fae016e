"""Runs that failed, are repeated or copied together: nothing lost, nothing done twice.

Signals and several processes are in test_signals.py.
"""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from samples import data_spec, small_run

import asap.measure.session
from asap.data.open import open_data
from asap.errors import RequestError
from asap.experiment import accuracy_rows
from asap.experiment.pipeline import run
from asap.measure import joint_evaluation
from asap.measure.accuracy import evaluate
from asap.methods.base import Column
from asap.publish.run_outputs import write_outputs
from asap.records.identity import method_of
from asap.spec.run_spec import DataSpec, MethodSpec, RunSpec


def spec_of(results: Path, *rows: dict, images: int = 12) -> RunSpec:
    return small_run(results, *rows, images=images, title="Resume")


DENSE = {"method": "dense"}
ASAP = {"method": "asap", "with": {"tau": 2.0}}


def files(results: Path) -> dict[str, bytes]:
    found = [*results.glob("runs/*/*"), *results.glob("tables/*")]
    return {str(p.relative_to(results)): p.read_bytes() for p in found if p.name != ".lock"}


@pytest.fixture
def evaluated(monkeypatch) -> list[MethodSpec]:
    """Grows by one with every row that is evaluated rather than read from its record."""
    rows: list[MethodSpec] = []

    def counting(model, *rest):
        rows.append(model.method)
        return evaluate(model, *rest)

    monkeypatch.setattr(accuracy_rows, "evaluate", counting)
    return rows


def test_a_second_call_evaluates_nothing_and_changes_nothing(evaluated, tmp_path):
    write_outputs(*run(spec_of(tmp_path, DENSE, ASAP)))
    assert len(evaluated) == 2
    before = files(tmp_path)
    write_outputs(*run(spec_of(tmp_path, DENSE, ASAP)))
    assert len(evaluated) == 2
    assert files(tmp_path) == before


def test_another_threshold_does_not_reuse_a_record(evaluated, tmp_path):
    for tau in (2.0, 2.5, 2.0, 2):
        run(spec_of(tmp_path, {"method": "asap", "with": {"tau": tau}}))
    assert [method.tau for method in evaluated] == [2.0, 2.5]
    records = [json.loads(p.read_bytes()) for p in tmp_path.glob("runs/*/accuracy.json")]
    assert sorted(method_of(r)["options"]["tau"] for r in records) == [2.0, 2.5]


def test_what_changes_no_number_reuses_the_record(evaluated, tmp_path):
    run(spec_of(tmp_path, ASAP))
    again = {**ASAP, "label": "another label", "note": "a footnote"}
    _, (result,) = run(spec_of(tmp_path, again))
    assert len(evaluated) == 1 and result.accuracy["label"] == "another label"


@pytest.mark.parametrize("images", [11, 13])
def test_another_number_of_images_does_not_reuse_a_record(evaluated, images, tmp_path):
    run(spec_of(tmp_path, DENSE))
    run(spec_of(tmp_path, DENSE, images=images))
    assert len(evaluated) == 2


@pytest.mark.parametrize("interrupted", [False, True])
def test_tables_without_a_column_that_was_added_are_made_again(
    interrupted, evaluated, monkeypatch, tmp_path, caplog
):
    """The key is the same, as the method's version was not raised."""
    session, _ = run(spec_of(tmp_path, ASAP))
    (method,) = session.methods
    cell = session.cell(method)
    if interrupted:
        with cell.lock():
            cell.reopen([3])
    columns = (*type(method).trace_columns, Column("added", "int"))
    monkeypatch.setattr(type(method), "trace_columns", columns)
    later, (result,) = run(spec_of(tmp_path, ASAP))
    assert later.cell(method).key == cell.key and len(evaluated) == 2
    assert result.reason is None and len(result.traces()["vision.added"]) == 12
    assert "is damaged" in caplog.text


def test_records_of_two_folders_merge_by_copying(evaluated, tmp_path):
    one, two, both = (tmp_path / name for name in ("one", "two", "both"))
    run(spec_of(one, DENSE))
    run(spec_of(two, ASAP))
    shutil.copytree(one / "runs", both / "runs")
    shutil.copytree(two / "runs", both / "runs", dirs_exist_ok=True)
    before = files(both)
    session, results = run(spec_of(both, DENSE, ASAP))
    assert len(evaluated) == 2, "nothing is evaluated a third time"
    assert [r.accuracy["n"] for r in results] == [12, 12]
    write_outputs(session, results)
    assert {k: v for k, v in files(both).items() if k.startswith("runs")} == before


def test_a_row_that_failed_is_tried_again(monkeypatch, tmp_path):
    def fail(*_):
        raise RuntimeError("the power went out")

    with monkeypatch.context() as patch:
        patch.setattr(accuracy_rows, "evaluate", fail)
        _, (result,) = run(spec_of(tmp_path, DENSE))
    assert result.accuracy is None and "the power went out" in result.reason
    assert len(list(tmp_path.glob("runs/*/error.json"))) == 1
    _, (result,) = run(spec_of(tmp_path, DENSE))
    assert result.accuracy["n"] == 12
    assert list(tmp_path.glob("runs/*/error.json")) == []


def folder_of(root: Path) -> Path:
    """Two pictures of each of ten classes, as files."""
    draw = np.random.default_rng(0)
    for label in range(10):
        (root / str(label)).mkdir(parents=True)
        for i in range(2):
            pixels = draw.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / str(label) / f"{i}.png")
    return root


@pytest.mark.parametrize("emptied", [False, True])  # a mount point stays there, empty
def test_a_data_folder_that_vanishes_is_no_unreadable_image(emptied, monkeypatch, tmp_path):
    root = folder_of(tmp_path / "pictures")
    data = {"name": "folder", "path": str(root)}
    spec = replace(spec_of(tmp_path / "run", DENSE), data=data_spec(**data), batch_size=4)
    whole = replace(spec, results=tmp_path / "whole")
    run(whole)

    predict, batches = joint_evaluation._evaluate, []

    def vanishing(*rest):
        batches.append(rest)
        if len(batches) == 2:
            root.rename(tmp_path / "elsewhere")
            for label in range(10 * emptied):
                (root / str(label)).mkdir(parents=True)
        return predict(*rest)

    with monkeypatch.context() as patch:
        patch.setattr(joint_evaluation, "_evaluate", vanishing)
        with pytest.raises(RequestError, match="has vanished"):
            run(replace(spec, shard_seconds=0.0001))
    assert [p.name for p in (tmp_path / "run").rglob("shard-*")] == [
        "shard-0-4.parquet",
        "shard-4-8.parquet",
    ]
    assert not list(tmp_path.glob("run/runs/*/accuracy.json"))

    shutil.rmtree(root, ignore_errors=True)
    (tmp_path / "elsewhere").rename(root)
    run(spec)
    for table in ("answers", "traces"):
        files = f"runs/*/{table}.parquet"
        (one,), (other,) = (list(s.results.glob(files)) for s in (spec, whole))
        assert one.read_bytes() == other.read_bytes()


def test_a_single_file_that_vanishes_is_counted(monkeypatch, tmp_path):
    root = folder_of(tmp_path / "pictures")
    data = DataSpec("folder", str(root))
    session_data = open_data

    def losing(*given, **named):
        found = session_data(*given, **named)
        _ = found.digest
        (root / "3" / "1.png").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(asap.measure.session, "open_data", losing)
    _, (result,) = run(replace(spec_of(tmp_path, DENSE), data=data))
    assert (result.accuracy["n"], result.accuracy["n_failed"]) == (19, 1)
