"""A third measurement, or a new quantity of each image, is declared in one file: the one here."""

import csv
import io
from pathlib import Path

import pytest
from made import DENSE

from asap.experiment.pipeline import run
from asap.measure.session import Session
from asap.records import kinds
from asap.records.identity import identity_of, same_row
from asap.records.key import key_of
from asap.records.kinds import Kind, declare
from asap.records.schema import environment
from asap.records.store import Store
from asap.report.result import Result, RowRef, scalars
from asap.report.result_table import build_table
from asap.spec.configs import read_method
from asap.spec.read import read_spec

SUBJECT = {name: DENSE.measured["identity"][name] for name in ("backbone", "data")}
METHOD = {"vision": {"name": "dense", "options": {}, "version": 1}}


@pytest.fixture
def latency(monkeypatch: pytest.MonkeyPatch) -> Kind:
    """A kind of record that no file of the package knows."""
    monkeypatch.setattr(kinds, "KINDS", kinds.KINDS.copy())
    monkeypatch.setattr("asap.records.store.KINDS", kinds.KINDS)
    return declare(Kind("latency", 1, frozenset(("rounds",)), ("laps.txt",)))


def lines(results: list[Result]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(build_table(results).to_csv())))


def measured(kind: Kind, key: str, identity: dict, **metrics: float) -> dict:
    return {
        "schema_version": kind.version, "key": key, "identity": identity, "label": "Dense",
        "backbone": "digits_vit", "data": "two scenes", "precision": "fp32", "rounds": 9,
        "metrics": metrics, "environment": environment(), "created": "2026-01-02T03:04:05+00:00",
    }  # fmt: skip


def test_a_third_kind_is_stored_read_resumed_and_in_the_csv(latency: Kind, tmp_path: Path) -> None:
    identity = identity_of(latency, METHOD, SUBJECT, {"device_name": "a CPU"})
    store, key = Store(tmp_path), key_of(identity)
    cell = store.cell(key)
    record = measured(latency, key, identity, latency_ms_p50=1.5, latency_ms_p99=4.0)
    for wrong in ({k: v for k, v in record.items() if k != "rounds"}, {**record, "key": "0"}):
        with pytest.raises(ValueError):
            cell.finish("latency", {}, wrong, files={"laps.txt": b"1"})
    with pytest.raises(ValueError, match=r"lacks laps\.txt"):
        cell.finish("latency", {}, record)
    assert store.cells() == []  # it is still to be measured
    cell.finish("latency", {"rounds": 9}, record, files={"laps.txt": b"1"})
    assert [found.key for found in store.cells()] == [key]
    assert cell.record("latency") == record and cell.record("accuracy") is None
    found = Result.from_store(store, RowRef("Dense", records={"latency": key}))
    assert found.record("latency") == record and found.is_dense and found.key == key
    assert scalars(found) == {"latency_ms_p50": 1.5, "latency_ms_p99": 4.0}
    both = DENSE.with_records(latency=record)
    (line,) = lines([both])
    assert (line["top1"], line["latency_ms_p50"], line["latency_ms_p99"]) == ("90.0", "1.5", "4.0")
    assert Result.from_store(store, both.ref).record("latency") == record
    (cell.path / "laps.txt").unlink()
    assert cell.record("latency") is None and store.cells() == []


def test_kinds_of_one_row_have_keys_of_their_own_and_are_one_row(latency: Kind) -> None:
    one, other = (identity_of(kind, METHOD, SUBJECT) for kind in (kinds.ACCURACY, latency))
    assert key_of(one) != key_of(other) and same_row(one, other)
    assert key_of(other) != key_of(identity_of(latency, METHOD, SUBJECT, {"rounds": 2}))
    assert not same_row(one, identity_of(latency, METHOD, {**SUBJECT, "seed": 1}))
    later = Kind("latency", 2)
    assert key_of(identity_of(later, METHOD, SUBJECT)) != key_of(other)
    with pytest.raises(ValueError, match="another kind"):
        declare(later)


def test_a_trained_head_has_an_identity_without_a_method_and_serves_all_rows(
    tmp_path: Path,
) -> None:
    identity = identity_of(kinds.TRAINED_HEAD, {}, SUBJECT, {"epochs": 10})
    assert identity["methods"] == {}
    cell = Store(tmp_path).cell(key_of(identity))
    record = measured(kinds.TRAINED_HEAD, cell.key, identity, loss=0.5)
    cell.finish("head", {}, record, files={"head.safetensors": b"weights"})
    assert cell.record("head") == record


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
        return {"loudest_first_half": float((traces["loudest"] < 32).mean())}
"""


def test_a_new_column_and_its_metric_are_in_traces_record_and_csv(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loudest_of_test.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    config = {
        "backbone": {"name": "digits_vit"},
        "data": {"name": "digits", "images": 6},
        "rows": [{"method": "dense"}, {}],
        "method": {"name": "loudest_of_test"},
        "results": str(tmp_path / "results"),
        "device": "cpu",
    }
    spec = read_spec(config, lambda name: read_method(name, []))
    dense, own = run(spec)[1]
    assert own.reason is None
    traces = own.traces()
    assert "vision.loudest" not in dense.traces()
    assert traces["vision.loudest"].between(0, 63).all() and len(traces) == 6
    share = (traces["vision.loudest"] < 32).mean()
    assert own.measured["metrics"] == {"loudest_first_half": share}
    assert [line["loudest_first_half"] for line in lines([dense, own])] == ["", str(share)]
    assert own.measured["identity"]["methods"]["vision"]["code"]
    assert Session(spec).store.cell(own.key or "").record("accuracy") is not None
