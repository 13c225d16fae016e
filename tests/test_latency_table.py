"""Tables of the times of questions, from records that are made here."""

from typing import Any

import pytest

from asap.errors import RequestError
from asap.measure.session import Session
from asap.publish import run_outputs
from asap.records.latency_record import SPANS
from asap.report.latency_checks import MACS_NOTE, checks, off_its_macs
from asap.report.printed import printed
from asap.report.result import Result
from asap.report.result_table import build_table
from asap.report.scalars import scalars
from asap.report.table import Table
from asap.report.table_parts import parts

A100 = "NVIDIA A100-SXM4-80GB"
FULL_MS = dict(zip(SPANS, (20.0, 1.0, 60.0, 81.0, 30.0, 111.0), strict=True))
GMACS = {"tower": 183.0, "projector": 12.0, "prefill": 4238.0}
METHODS = {"vision_method": 0.0, "language_method": 0.0}


def record(times: dict[str, float], rows: float = 576.0, **about: Any) -> dict[str, Any]:
    """A record of a row whose spans take these milliseconds; the others are those of full."""
    own = FULL_MS | times
    gmacs = GMACS | METHODS | about.pop("gmacs", {})
    methods = about.pop("methods", {"vision": {"name": "visionzip", "options": {}}})
    ratios = {
        span: {key: own[span] / FULL_MS[span] for key in ("median", "q1", "q3", "lo", "hi")}
        for span in ("tower", "prefill", "first_token", "total")
    }
    return {
        "key": about.pop("key", "0" * 16), "backbone": "llava:seven", "data": "questions",
        "precision": "fp16", "metrics": {}, "environment": {}, "device_name": A100,
        "identity": {"methods": methods, "data": {"content": "c"}}, "threads": 1,
        "clock": "cuda events", "path": "graphs", "n_questions": 300, "n_pictures": 50,
        "warmup": 20, "dropped": 0,
        "times_ms": {k: {"median": v, "q1": v - 0.5, "q3": v + 0.5} for k, v in own.items()},
        "full_times_ms": {k: {"median": v, "q1": v, "q3": v} for k, v in FULL_MS.items()},
        "ratios": ratios, "refused": None,
        "preparation_ms": {
            name: {"median": 1.5, "q1": 1.0, "q3": 2.0} for name in ("picture", "prompt")
        },
        "peak_memory_mb": 900.0, "weights_mb": 13441.0, "missing": {}, "visual_rows": rows,
        "prompt_rows": 62.0, "layer_rows": [rows + 62] * 4, "stop_histogram": {"23": 300},
        "gmacs": gmacs, "full_gmacs": GMACS | METHODS, "kv_mib": 63.0,
    } | about  # fmt: skip


def rows(**about: Any) -> list[Result]:
    dense = record({}, methods={"vision": {"name": "dense", "options": {}}}, **about)
    zipped = record(
        {"prefill": 24.0, "total": 77.5, "first_token": 45.0}, 64.0, key="1" * 16,
        gmacs={"prefill": 820.0}, **about,
    )  # fmt: skip
    return [
        Result("Full", "LLaVA (Full)", records={"latency": dense}),
        Result("VisionZip, 64", "VisionZip", records={"latency": zipped}),
        Result("PruneSID, 64", "PruneSID", records={"latency": zipped | {"key": "2" * 16}}),
        Result("By masks", reason="a reference by the true masks is not timed", on="llava:seven"),
    ]


def table(results: list[Result], paper: str = "llava_latency") -> Table:
    return build_table(results, ["A remark."], paper)


def notes_of(made: Table, row: int, key: str) -> list[str]:
    return made.rows[row].notes.get(key, [])


def test_the_papers_times_stand_beside_ours_on_its_device_alone() -> None:
    made = table(rows())
    full, zipped = made.rows[0].values, made.rows[1].values
    assert (full["paper_total_ms"], full["paper_first_token_ms"]) == (120, 79)
    assert (zipped["paper_total_ms"], zipped["total_ms_minus_paper"]) == (77, 0.5)
    assert zipped["first_token_ms_minus_paper"] == 45 - 39
    assert any("77.0 % POPE" in note for note in notes_of(made, 2, "paper_total_ms"))
    assert [part.title for part in parts(made)][-1] == "Times beside the paper's"
    elsewhere = table(rows(device_name="NVIDIA H100 80GB HBM3"))
    assert "paper_total_ms" not in elsewhere.rows[0].values
    assert len(parts(elsewhere)) == 2
    assert any("A100 with 80 GB; these are of NVIDIA H100" in one for one in elsewhere.remarks)
    other = table(rows(), "llava15")
    assert "paper_total_ms" not in other.rows[0].values and "A100 with" not in str(other.remarks)


def test_cells_have_medians_ratios_and_reasons() -> None:
    made = table(rows())
    (times, sizes, _) = parts(made)
    cells = dict(zip([c.keys[0] for c in times.columns], times.texts(True)[1][1], strict=True))
    assert cells["total_ms"] == "77.5 (77.0–78.0)"
    assert cells["total_over_full"] == "0.698 [0.698, 0.698]"
    dense = dict(zip([c.keys[0] for c in times.columns], times.texts(True)[1][0], strict=True))
    assert dense["total_over_full"] == "–"
    assert notes_of(made, 3, "total_ms") == [
        "No record of times: a reference by the true masks is not timed."
    ]
    values = made.rows[1].values
    assert values["timed_layer_rows"] == 64 and values["latency_peak_mb"] == 900
    assert sizes.rows is made.rows
    refused = rows()
    lost = dict(refused[1].records["latency"])
    lost |= {"ratios": dict.fromkeys(lost["ratios"]), "refused": "close other jobs"}
    lost |= {"peak_memory_mb": None, "missing": {"peak_memory_mb": "only CUDA tells it"}}
    made = table([refused[0], Result("VisionZip, 64", records={"latency": lost})])
    assert notes_of(made, 1, "total_over_full") == ["No ratio: close other jobs."]
    assert notes_of(made, 1, "latency_peak_mb") == ["Empty: only CUDA tells it."]


def test_text_csv_and_caption_say_how_times_were_taken() -> None:
    made = table(rows())
    text = printed(made, "Times", 100)
    assert max(map(len, text.splitlines())) <= 100
    assert "Time of a question: Times" in text and "77.50" in text and "A remark." in text
    assert "300 questions about 50 pictures after 20" in " ".join(text.split())
    lines = made.to_csv().splitlines()
    line = dict(zip(lines[0].split(","), lines[2].replace('"', "").split(","), strict=False))
    assert {"tower_ms_q1", "weights_mb", "paper_total_ms", "latency_clock"} <= line.keys()


def test_times_of_two_devices_are_two_tables() -> None:
    other = [Result("Full", records={"latency": record({}, device_name="another")})]
    with pytest.raises(RequestError, match="one device of times"):
        table([rows()[1], *other])


# ---- whether times agree


def named(*records: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    return [(f"row {i}", one) for i, one in enumerate(records)]


def test_equal_rows_must_have_equal_prefills() -> None:
    fast, slow = record({"prefill": 24.0}, 64.0), record({"prefill": 24.4}, 64.0)
    assert "agree" in checks(named(fast, slow))[0]
    slower = record({"prefill": 25.0}, 64.0)
    (said,) = checks(named(fast, slower))
    assert "64 visual rows differ by 4.2 % ('row 0', 'row 1')" in said
    pruned = slower | {"identity": {"methods": {"vision": {}, "language": {}}}}
    assert "agree" in checks(named(fast, pruned))[0]  # its later layers have fewer
    assert "agree" in checks(named(fast, record({"prefill": 60.0}, 576.0)))[0]


def test_a_tower_that_runs_in_full_is_not_faster_than_full() -> None:
    (said,) = checks(named(record({"tower": 19.0})))
    assert "'row 0' runs in full" in said
    assert "agree" in checks(named(record({"tower": 19.7})))[0]
    assert "agree" in checks(named(record({"tower": 12.0}, gmacs={"tower": 100.0})))[0]
    assert checks([]) == []


def test_a_span_far_from_its_macs_is_explained() -> None:
    launched = record({"prefill": 24.0}, 64.0, gmacs={"prefill": 820.0})
    assert off_its_macs(launched, "prefill") and not off_its_macs(launched, "tower")
    assert not off_its_macs(record({"prefill": 13.0}, gmacs={"prefill": 820.0}), "prefill")
    spent = record({"tower": 40.0}, gmacs={"vision_method": 183.0})
    assert not off_its_macs(spent, "tower") and not off_its_macs(spent, "total")
    made = table(rows())
    assert notes_of(made, 1, "prefill_over_full") == [MACS_NOTE]
    assert notes_of(made, 0, "prefill_over_full") == []


def test_a_dashboard_gets_the_times_of_a_row_without_answers(monkeypatch) -> None:
    full, zipped, _, failed = rows(peak_memory_mb=None)
    found = scalars(zipped)
    assert (found["total_ms"], found["prefill_over_full"]) == (77.5, 0.4)
    assert found["timed_visual_rows"] == 64.0 and "latency_peak_mb" not in found
    assert all(isinstance(value, int | float) for value in found.values())
    told: list[str] = []
    monkeypatch.setattr(run_outputs, "_mirror", lambda session, one: told.append(one.label))
    run_outputs.mirror(Session.__new__(Session), [full, zipped, failed])
    assert told == ["Full", "VisionZip, 64"]
