"""A run whose records are there draws nothing again, unless something is missing or changed."""

from collections import Counter
from pathlib import Path

import pytest
from samples import data_spec

import asap.publish.run_outputs
import asap.report.page
from asap.experiment.pipeline import run
from asap.records.recent import RECENT
from asap.records.store import Cell
from asap.spec.run_spec import BackboneSpec, MethodSpec, RunSpec

ROWS = (MethodSpec.of("dense", {}, "Dense"), MethodSpec.of("tome", {"r": 4}, "ToMe"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    spec = RunSpec(
        "Two rows", BackboneSpec("digits_vit", "bundled"), data_spec("digits", images=6), ROWS,
        results=folder, device="cpu",
    )  # fmt: skip
    return run(spec)


def test_what_is_there_already_stays(measured, monkeypatch):
    first = asap.publish.run_outputs.write_outputs(*measured)
    assert first is not None and all(file.is_file() for file in first.files)
    drawings = []
    draw = asap.publish.run_outputs.draw_pictures

    def counted(*arguments):
        drawings.append(arguments)
        return draw(*arguments)

    monkeypatch.setattr(asap.publish.run_outputs, "draw_pictures", counted)
    assert asap.publish.run_outputs.write_outputs(*measured) == first and not drawings
    manifest = first.files[0].with_suffix(".rows.json")
    for file in (first.files[-1], first.files[4], manifest):
        before = file.read_bytes()
        for spoil in (Path.unlink, lambda path: path.write_bytes(b"another")):
            spoil(file)
            assert asap.publish.run_outputs.write_outputs(*measured) == first
            assert file.suffix == ".svg" or file.read_bytes() == before
    assert len(drawings) == 4  # the page has a copy: each run writes its own in the same place
    session, results = measured
    asap.publish.run_outputs.write_outputs(session, results[:1])
    assert len(drawings) == 5  # other rows
    mark = session.spec.results / "digests" / "two-rows.drawn.json"
    mark.write_text("[]")
    asap.publish.run_outputs.write_outputs(session, results[:1])
    assert len(drawings) == 6


def test_the_page_shows_the_table_and_charts_of_the_files(measured, monkeypatch):
    def never(*_):
        raise AssertionError("made for the files already")

    monkeypatch.setattr(asap.report.page, "build_table", never)
    monkeypatch.setattr(asap.report.page, "charts", never)
    outputs = asap.publish.run_outputs.write_outputs(*measured, title="Made once")
    assert outputs is not None
    page = outputs.files[-1].read_text("utf-8")
    assert "Accuracy and cost" in page and "Token counts" in page


def test_each_table_beside_a_record_is_decoded_once(measured, monkeypatch):
    decoded: Counter[Path] = Counter()
    decode = Cell._table

    def counted(cell, path, expected):
        decoded[path] += 1
        return decode(cell, path, expected)

    monkeypatch.setattr(Cell, "_table", counted)
    RECENT.clear()
    session, results = measured
    asap.publish.run_outputs.mirror(session, results)
    assert asap.publish.run_outputs.write_outputs(session, results, title="Decoded once")
    keys = [result.key for result in results]
    assert {path.parent.name for path in decoded} == set(keys)
    assert set(decoded.values()) == {1}
