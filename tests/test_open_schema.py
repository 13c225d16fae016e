"""A third measurement, or a new quantity of each image, is declared in one file: the one here."""

import csv
import io
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from made import DENSE
from samples import data_spec, small_run

from asap.engine.trace import MISSING, Trace
from asap.errors import RequestError
from asap.experiment import pipeline
from asap.experiment.pipeline import run
from asap.experiment.rows import Row
from asap.measure.session import Session
from asap.measure.traces import metrics_of
from asap.methods.base import Column, Method
from asap.publish.all_records import current_keys, grouped, write_page
from asap.records import kinds
from asap.records.identity import identity_of, same_row
from asap.records.key import key_of
from asap.records.kinds import Kind, declare
from asap.records.schema import environment
from asap.records.store import Store
from asap.report.result import Result, RowRef
from asap.report.result_table import build_table
from asap.report.scalars import scalars
from asap.spec.run_spec import (
    VISION,
    BackboneSpec,
    MeasureSpec,
    MethodSpec,
    RunSpec,
)

SUBJECT = {name: DENSE.measured["identity"][name] for name in ("backbone", "data")}
METHOD = {"vision": {"name": "dense", "options": {}, "version": 1}}


@pytest.fixture
def pulse(monkeypatch: pytest.MonkeyPatch) -> Kind:
    """A kind of record that no file of the package knows."""
    monkeypatch.setattr(kinds, "KINDS", kinds.KINDS.copy())
    monkeypatch.setattr("asap.records.store.KINDS", kinds.KINDS)
    return declare(Kind("pulse", 1, frozenset(("rounds",)), ("laps.txt",)))


def lines(results: list[Result]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(build_table(results).to_csv())))


def measured(kind: Kind, key: str, identity: dict, **metrics: float) -> dict:
    return {
        "schema_version": kind.version, "key": key, "identity": identity, "label": "Dense",
        "backbone": "digits_vit", "data": "two scenes", "precision": "fp32", "rounds": 9,
        "metrics": metrics, "environment": environment(), "created": "2026-01-02T03:04:05+00:00",
    }  # fmt: skip


def test_a_third_kind_is_stored_read_resumed_and_in_the_csv(pulse: Kind, tmp_path: Path) -> None:
    identity = identity_of(pulse, METHOD, SUBJECT, {"device_name": "a CPU"})
    store, key = Store(tmp_path), key_of(identity)
    cell = store.cell(key)
    record = measured(pulse, key, identity, pulse_ms_p50=1.5, pulse_ms_p99=4.0)
    for wrong in ({k: v for k, v in record.items() if k != "rounds"}, {**record, "key": "0"}):
        with pytest.raises(ValueError):
            cell.finish("pulse", {}, wrong, files={"laps.txt": b"1"})
    with pytest.raises(ValueError, match=r"lacks laps\.txt"):
        cell.finish("pulse", {}, record)
    assert store.cells() == []  # it is still to be measured
    cell.finish("pulse", {"rounds": 9}, record, files={"laps.txt": b"1"})
    assert [found.key for found in store.cells()] == [key]
    assert cell.record("pulse") == record and cell.record("accuracy") is None
    found = Result.from_store(store, RowRef("Dense", records={"pulse": key}))
    assert found.record("pulse") == record and found.is_dense and found.key == key
    assert scalars(found) == {"pulse_ms_p50": 1.5, "pulse_ms_p99": 4.0}
    both = DENSE.with_records(pulse=record)
    (line,) = lines([both])
    assert (line["top1"], line["pulse_ms_p50"], line["pulse_ms_p99"]) == ("90.0", "1.5", "4.0")
    assert Result.from_store(store, both.ref).record("pulse") == record
    (cell.path / "laps.txt").unlink()
    assert cell.record("pulse") is None and store.cells() == []


def test_metrics_of_two_kinds_and_one_name_are_two_columns(pulse: Kind) -> None:
    record = measured(pulse, "1" * 16, {"kind": "pulse"}, spread=2.0, top1=3.0, ms=4.0)
    accuracy = {**DENSE.measured, "metrics": {"spread": 1.0}}
    both = DENSE.with_records(accuracy=accuracy, pulse=record)
    (line,) = lines([both])
    expected = {"accuracy.spread": 1.0, "pulse.spread": 2.0, "pulse.top1": 3.0, "ms": 4.0}
    assert {name: float(line[name]) for name in expected} == expected and "spread" not in line
    assert line["top1"] == "90.0" and scalars(both)["top1"] == 90.0
    assert expected.items() <= scalars(both).items()


def test_kinds_of_one_row_have_keys_of_their_own_and_are_one_row(pulse: Kind) -> None:
    one, other = (identity_of(kind, METHOD, SUBJECT) for kind in (kinds.ACCURACY, pulse))
    assert key_of(one) != key_of(other) and same_row(one, other)
    assert key_of(other) != key_of(identity_of(pulse, METHOD, SUBJECT, {"rounds": 2}))
    assert not same_row(one, identity_of(pulse, METHOD, {**SUBJECT, "seed": 1}))
    later = Kind("pulse", 2)
    assert key_of(identity_of(later, METHOD, SUBJECT)) != key_of(other)
    with pytest.raises(ValueError, match="another kind"):
        declare(later)


@dataclass(frozen=True)
class Pulse:
    """A third measurement. `laps`: what it measured, to be counted."""

    kind: Kind
    laps: list[str] = field(default_factory=list)

    def wanted(self, spec: RunSpec) -> bool:
        return "pulse" in spec.measure.also

    def refuse(self, spec: RunSpec) -> None:
        if spec.measure.also["pulse"]["rounds"] < 1:
            raise RequestError("measure.also.pulse.rounds=0 is not possible: give 1 or more")

    def measure(self, session: Session, rows: list[Row]) -> list[Row]:
        return [self._measured(session, row) if row.open else row for row in rows]

    def _measured(self, session: Session, row: Row) -> Row:
        options = session.spec.measure.also["pulse"]
        head = session.head(self.kind, row.built, row.method.label, options)
        cell = session.store.cell(head["key"])
        with cell.lock():
            if cell.record("pulse") is None:
                self.laps.append(row.method.label)
                record = {**head, **options, "metrics": {"pulse_ms": 1.5 + len(self.laps)}}
                cell.finish("pulse", row.config, record, files={"laps.txt": b"1"})
        return row.with_records(pulse=cell.record("pulse"))


def test_a_third_measurement_is_one_file_and_one_line_of_a_list(
    pulse: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    third = Pulse(pulse)
    monkeypatch.setattr(pipeline, "MEASUREMENTS", (*pipeline.MEASUREMENTS, third))
    spec = RunSpec(
        "t", BackboneSpec("digits_vit"), data_spec("digits", images=4),
        (MethodSpec.of("dense", {}, "Dense"), MethodSpec.of("tome", {"r": 4}, "ToMe")),
        MeasureSpec(also={"pulse": {"rounds": 3}}), results=tmp_path, device="cpu",
    )  # fmt: skip
    _, first = run(spec)
    session, second = run(spec)
    assert third.laps == ["Dense", "ToMe"]  # found again at the second run
    for results in (first, second):
        found = [result.record("pulse") for result in results]
        assert [record and record["metrics"]["pulse_ms"] for record in found] == [2.5, 3.5]
        assert [record and record["rounds"] for record in found] == [3, 3]
        assert [line["pulse_ms"] for line in lines(results)] == ["2.5", "3.5"]
        assert all(result.reason is None and result.accuracy for result in results)
    assert set(second[1].measured["identity"]["methods"]) == {VISION}
    keys = current_keys(session.store)
    assert len(keys) == 4
    (together,) = grouped(session.store, keys).values()
    shown = [record for result in together if (record := result.record("pulse"))]
    assert [record["key"] for record in shown] == [result.ref.records["pulse"] for result in second]
    page = write_page(tmp_path).read_text()
    assert all(record["key"] in page for record in shown)
    assert "4 records on disk" in page
    _, without = run(replace(spec, measure=MeasureSpec()))
    assert [result.record("pulse") for result in without] == [None, None]
    for also, message in (
        ({"pulse": {"rounds": 0}}, r"rounds=0 is not possible"),
        ({"pulce": {}}, r"measure\.also\.pulce .* accuracy, cost, throughput, latency, pulse"),
    ):
        with pytest.raises(RequestError, match=message):
            run(replace(spec, measure=MeasureSpec(also=also)))


def test_a_trained_head_has_an_identity_without_a_method_and_serves_all_rows(
    tmp_path: Path,
) -> None:
    identity = identity_of(kinds.TRAINED_HEAD, {}, SUBJECT, {"epochs": 10})
    assert identity["methods"] == {}
    store = Store(tmp_path)
    cell = store.cell(key_of(identity))
    record = measured(kinds.TRAINED_HEAD, cell.key, identity, loss=0.5)
    cell.finish("head", {}, record, files={"head.safetensors": b"w", "training.csv": b""})
    assert cell.record("head") == record
    head = Result.from_store(store, RowRef("Head", records={"head": cell.key}))
    assert head.method == {"name": "head", "options": {}} and not head.is_dense
    other_stage = {**record, "identity": {**identity, "methods": {"text": {"name": "dense"}}}}
    assert head.with_records(head=other_stage).method == head.method


def test_a_kind_that_is_not_declared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"named 'pulse': there are accuracy, throughput"):
        Store(tmp_path).cell("0").record("pulse")


@pytest.mark.parametrize("name", ["tokens", "stop_block", "assignment", "macs_method", "a b", ""])
def test_a_column_cannot_have_a_name_that_every_trace_has(name: str) -> None:
    with pytest.raises(ValueError, match=f"name={name!r} is not possible"):
        Column(name, "int")


def test_a_column_is_checked_where_it_is_declared() -> None:
    for option, wrong in (("kind", "text"), ("combine", "max")):
        column = Column("highest", "float")
        object.__setattr__(column, option, wrong)  # the tests' own check of types comes before ours
        with pytest.raises(ValueError, match=f"{option}='{wrong}'"):
            column.__post_init__()

    class Twice(Method):
        trace_columns = (Column("seen", "int"), Column("other", "int"), Column("seen", "float"))

    with pytest.raises(ValueError, match="declares seen more than once"):
        Twice()


@pytest.mark.parametrize("kind", ["int", "float"])
def test_a_missing_value_is_never_the_smallest(kind: Any) -> None:
    column = Column("nearest", kind, combine="min")
    trace, missing = Trace.empty(3, 2, 4, 1, (column,)), MISSING[kind]
    for values in ([5, missing, 2], [3, 7, missing], [4, missing, 6]):
        trace.write(torch.arange(3), 0, 0, {"nearest": torch.tensor(values)})
    assert trace.nearest.tolist() == [3, 7, 2]


OWN = """
from dataclasses import dataclass
from typing import ClassVar

import torch

from asap.methods.base import Column, Decision, Method, keep_only


@dataclass(frozen=True)
class Loudest(Method):
    trace_columns: ClassVar = (Column("loudest", "int"), Column("norms", "float", per_block=True))

    def acts_in(self, block, depth):
        return block in (1, 2)

    def reduce(self, site, chosen):
        norms = site.tokens.float().norm(dim=-1)[:, site.prefix :]
        kept = torch.ones(site.tokens.shape[:2], dtype=torch.bool)
        said = {"loudest": norms.argmax(1), "norms": norms.amax(1)}
        return Decision(keep_only(kept), site.length, diagnostics=said)

    def metrics(self, traces):
        assert traces["tokens"].shape == (6, traces["norms"].shape[1] + 1)
        share = float((traces["loudest"] < 32).mean())
        return {"loudest_first_half": share, "nothing": float("nan"), "endless": float("inf")}
"""


def test_a_new_column_and_its_metric_are_in_traces_record_and_csv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "loudest_of_test.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    own = {"name": "loudest_of_test"}
    spec = small_run(tmp_path / "results", {"method": "dense"}, {}, images=6, method=own)
    dense, own = run(spec)[1]
    assert own.reason is None
    traces = own.traces()
    assert "vision.loudest" not in dense.traces()
    assert traces["vision.loudest"].between(0, 63).all() and len(traces) == 6
    share = (traces["vision.loudest"] < 32).mean()
    for name, value in (("nothing", "nan"), ("endless", "inf")):  # JSON has no such numbers
        assert f"{own.label}: its metric {name} is {value}, so the record is without" in caplog.text
    assert own.measured["metrics"] == {"loudest_first_half": share}
    assert [line["loudest_first_half"] for line in lines([dense, own])] == ["", str(share)]
    assert own.measured["identity"]["methods"]["vision"]["code"]
    assert Session(spec).store.cell(own.key or "").record("accuracy") is not None


@pytest.mark.parametrize("name", ["top1", "n", "seconds", "images_per_s", "mcnemar_p", "gmacs"])
def test_a_metric_cannot_have_the_name_of_a_field_or_a_column(name: str) -> None:
    class Taken(Method):
        def metrics(self, traces: Any) -> dict[str, float]:
            return {"mine": 1.0, name: 2.0}

    with pytest.raises(ValueError, match=rf"^Taken\.metrics gives {name}, .*another name$"):
        metrics_of(Taken(), pd.DataFrame({"vision.stop_block": [0]}), "Taken")
