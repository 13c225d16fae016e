"""The time of a question: spans, the order of candidates, what is asked, records. No test looks at
a time that was measured."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from made_llava import made_llava, made_llava_next

from asap.cli import report
from asap.core.language_macs import LanguageCost
from asap.data.base import Sample
from asap.errors import RequestError
from asap.experiment import latency_rows
from asap.experiment.pipeline import run
from asap.measure import question_latency
from asap.measure.device import Clocks
from asap.measure.latency_summary import summary_of
from asap.measure.question_latency import SPANS, Asked, TimedQuestion, ask_all
from asap.measure.session import Session
from asap.measure.spans import Marks, spans_on
from asap.measure.timed_questions import chosen
from asap.publish.run_outputs import write_outputs
from asap.report.printed import printed
from asap.report.result import Result
from asap.report.result_table import build_table
from asap.report.table_parts import parts
from asap.spec.configs import read_method
from asap.spec.read import read_spec
from asap.spec.run_spec import BackboneSpec, DataSpec, MeasureSpec, RunSpec

COST = LanguageCost(3, 48, 104, 4, 2, 12, 405)
ROWS = [
    {"method": "dense"},
    {"method": "visionzip", "with": {"dominant": 5, "contextual": 3}},
    {"method": "asap", "with": {"tau": 1.01, "clusters": 2, "miss": "force", "max_tokens": 6}},
    {"method": "fastv", "with": {"layer": 1, "rank": 5}},
    {"method": "object_rows"},
]


def test_spans_are_between_marks_and_a_start_forgets_earlier_ones() -> None:
    now = [10.0]
    spans = Marks(Clocks("wall", wall=lambda: now[0]))
    for took in ((9.0,), (1.0, 0.25, 4.0)):
        spans.start()
        for seconds in took:
            now[0] += seconds
            spans.mark()
    assert spans.seconds() == [1.0, 0.25, 4.0] and spans.clock == "wall"


def asked(
    seconds: Any = (4.0, 1.0, 2.0, 3.0), rows: int = 8, mhz: float | None = None, picture: int = 0
) -> Asked:
    took = dict(zip(SPANS, seconds, strict=True))
    condition = {} if mhz is None else {"sm_mhz": mhz}
    return Asked(picture, took, rows, 5, (rows, rows, 5), (3,), 1000, 10, 100, 500, 7, condition)


@dataclass(frozen=True)
class Called:
    """A candidate that writes down what it is asked."""

    name: str
    calls: list[tuple[str, int]]
    unrecorded = None

    @property
    def tower(self) -> "Called":
        return self

    def ask(self, question: TimedQuestion, spans: Any, gauge: Any) -> Asked:
        self.calls.append((self.name, question.picture))
        return asked(rows=question.picture)


def test_every_candidate_answers_a_question_before_the_next_one_comes(monkeypatch) -> None:
    monkeypatch.setattr(question_latency, "require_recorded", lambda models: None)
    calls: list[tuple[str, int]] = []
    models: Any = {name: Called(name, calls) for name in "abc"}
    ids = torch.tensor([1])
    picture = torch.zeros(1, 3, 2, 2)
    questions = [
        TimedQuestion(Sample(i, i, str(i), i, None), picture, (i,), ids, ids) for i in range(5)
    ]
    steps: list[int] = []
    timed: Any = getattr(ask_all, "__wrapped__", ask_all)  # without the check of types
    found = timed(models, questions, 2, Marks(Clocks("wall")), 0, steps.append)
    turns = [calls[i : i + 3] for i in range(0, len(calls), 3)]
    assert [{picture for _, picture in turn} for turn in turns] == [{i} for i in (3, 4, *range(5))]
    assert all({name for name, _ in turn} == set("abc") for turn in turns)
    assert len({tuple(name for name, _ in turn) for turn in turns}) > 1  # in shuffled order
    assert steps == [1] * 7
    assert all([one.visual_rows for one in own] == list(range(5)) for own in found.values())


@given(st.lists(st.integers(1, 7), min_size=1, max_size=12), st.integers(1, 40), st.integers(1, 15))
def test_questions_are_of_evenly_spaced_pictures_equally_many_of_each(
    counts: list[int], questions: int, pictures: int
) -> None:
    clusters = [picture for picture, count in enumerate(counts) for _ in range(count)]
    found = chosen(clusters, questions, pictures)
    assert found == sorted(set(found))
    of = [clusters[i] for i in found]
    used = sorted(set(of))
    assert len(used) == min(len(counts), questions, pictures)
    assert len(found) == min(questions, sum(counts[picture] for picture in used))
    shares = {picture: of.count(picture) for picture in used}
    assert all(
        shares[one] >= max(shares.values()) - 1 or shares[one] == counts[one] for one in used
    )


def summary(row: list[Asked], full: list[Asked]) -> dict[str, Any]:
    """Every question is about another picture."""
    row, full = ([replace(one, picture=i) for i, one in enumerate(own)] for own in (row, full))
    return summary_of(row, full, "wall", COST, element=2)


def test_times_and_ratios_are_paired_question_by_question() -> None:
    """Every question takes another time; the row always takes half of the tower's."""
    factors = [1.0, 2.0, 3.0, 5.0]
    full = [asked((4 * f, f, 2 * f, 3 * f)) for f in factors]
    row = [asked((2 * f, f, 2 * f, 3 * f), rows=4) for f in factors]
    found = summary(row, full)
    assert (
        found["times_ms"]["tower"]["median"] == 5000
        and found["full_times_ms"]["tower"]["median"] == 10000
    )
    assert found["times_ms"]["first_token"]["median"] == 1000 * np.median([5 * f for f in factors])
    assert found["times_ms"]["total"]["q1"] == 1000 * np.percentile([8 * f for f in factors], 25)
    medians = {span: ratio["median"] for span, ratio in found["ratios"].items()}
    assert medians == pytest.approx(
        {"tower": 0.5, "prefill": 1.0, "first_token": 5 / 7, "total": 0.8}
    )
    assert found["n_questions"] == 4 and found["dropped"] == 0 and found["refused"] is None
    assert found["visual_rows"] == 4 and found["layer_rows"] == [4, 4, 5]
    assert found["stop_histogram"] == {"3": 4}
    assert found["gmacs"]["prefill"] == 500 / 1e9 and found["gmacs"]["language_method"] == 7 / 1e9
    assert found["kv_mib"] == 2 * 13 * 2 * 12 * 2 / 2**20  # keys and values, 13 rows, two heads


def test_a_question_at_another_clock_is_left_out_of_both() -> None:
    full = [asked(mhz=1000.0) for _ in range(5)]
    row = [asked((8.0, 1.0, 2.0, 3.0), mhz=900.0 if i == 2 else 1000.0) for i in range(5)]
    found = summary(row, full)
    assert (found["n_questions"], found["dropped"]) == (4, 1)
    drifting = [asked(mhz=1000.0 - 200 * i) for i in range(4)]
    found = summary(drifting, full[:4])
    assert found["dropped"] == 0 and set(found["ratios"].values()) == {None}
    assert "drifted" in found["refused"]


def test_a_ratio_that_scatters_too_much_is_refused_by_name() -> None:
    full = [asked() for _ in range(8)]
    noise = random.Random(0)
    row = [asked((4.0 * noise.uniform(0.5, 2), 1.0, 2.0, 3.0)) for _ in range(8)]
    found = summary(row, full)
    assert found["ratios"]["tower"] is None and found["ratios"]["prefill"]["median"] == 1
    assert "measure.also.latency.questions" in found["refused"]


def test_intervals_are_over_pictures_whose_questions_are_alike() -> None:
    """Copies of a question tell nothing new of it; two pictures are too few."""
    draw = random.Random(0)
    full = [asked() for _ in range(9)]
    row = [asked((4 * draw.uniform(0.97, 1.03), 1.0, 2.0, 3.0), picture=i) for i in range(9)]
    once = summary_of(row, full, "wall", COST, 2)["ratios"]["tower"]
    again = summary_of(row * 8, full * 8, "wall", COST, 2)["ratios"]["tower"]
    assert once["median"] == again["median"]
    assert again["hi"] - again["lo"] == pytest.approx(once["hi"] - once["lo"], rel=0.05)
    alone = [replace(one, picture=i) for i, one in enumerate(row * 8)]
    assert summary_of(alone, full * 8, "wall", COST, 2)["ratios"]["tower"]["hi"] < again["hi"]
    two = summary_of(row[:2] * 8, full[:2] * 8, "wall", COST, 2)
    assert "2 pictures are too few" in two["refused"] and set(two["ratios"].values()) == {None}


def test_marks_on_a_gpu_wait_once(monkeypatch) -> None:
    waits: list[str] = []
    now = iter(range(100))

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self, stream: Any) -> None:
            self.at = 10.0 * next(now) ** 2  # ms

        def synchronize(self) -> None:
            waits.append("event")

        def elapsed_time(self, other: Any) -> float:
            return other.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waits.append("device"))
    spans = spans_on("cuda", 1)
    assert spans.clock == "cuda events"
    for _ in range(2):
        spans.start()
        spans.mark()
        spans.mark()
    assert waits == ["device", "device"]
    assert spans.seconds() == pytest.approx([0.07, 0.09]) and waits[2:] == ["event"]


# ---- whole runs, on a LLaVA of random weights


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_llava(tmp_path_factory.mktemp("llava"))


def spec_of(folder: Path, results: Path, **about: Any) -> RunSpec:
    config: dict[str, Any] = {
        "title": "Latency",
        "backbone": {"name": "llava", "weights": str(folder)},
        "data": {"name": "digits_qa", "pictures": 3},
        "measure": {
            "accuracy": True,
            "threads": 1,
            "also": {"latency": {"questions": 99, "pictures": 9, "warmup": 1}},
        },
        "rows": ROWS,
        "results": str(results),
        "device": "cpu",
    }
    return read_spec(config | about, read_method)


@pytest.fixture(scope="module")
def measured(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, ...]]:
    spec = spec_of(folder, tmp_path_factory.mktemp("latency"))
    yield (spec, *run(spec))


def record_of(result: Result) -> dict[str, Any]:
    found = result.record("latency")
    assert found is not None
    return dict(found)


@pytest.mark.whole_run
def test_rows_and_macs_are_those_of_the_same_questions_answered(measured) -> None:
    """Both measurements see all questions; they share no line that counts."""
    _, session, results = measured
    assert results[-1].reason == "a reference by the true masks is not timed"
    for result in results[:-1]:
        record, answered = record_of(result), result.measured["questions"]
        assert result.reason is None
        assert record["n_questions"] + record["dropped"] == len(session.data)
        assert record["n_pictures"] == 3 and record["clock"] == "cpu" and record["path"] == "torch"
        assert record["visual_rows"] == answered["visual_rows"]
        assert record["prompt_rows"] == answered["prompt_rows"]
        assert record["layer_rows"] == pytest.approx(answered["layer_rows"])
        assert record["kv_mib"] == pytest.approx(answered["kv_mib"])
        for part, gmacs in record["gmacs"].items():
            assert gmacs == pytest.approx(answered[f"gmacs_{part}"], rel=1e-12), part
        assert record["full_gmacs"] == record_of(results[0])["gmacs"]
        assert record["peak_memory_mb"] is None and record["missing"].keys() == {"peak_memory_mb"}
        weights = 4 * result.measured["parameters"] / 2**20
        assert record["weights_mb"] == pytest.approx(weights)
    ratios = record_of(results[0])["ratios"]
    assert all(ratio["median"] == ratio["lo"] == ratio["hi"] == 1 for ratio in ratios.values())


@pytest.mark.whole_run
def test_answers_and_times_are_one_table(measured) -> None:
    _, _, results = measured
    made = build_table(results)
    titles = [part.title for part in parts(made)]
    assert titles[0] == "Accuracy and cost" and titles[-1] == "Tokens and sinks"
    assert "Time of a question" in titles
    text = printed(made, "Both", 120)
    assert text.index("Accuracy and cost: Both") < text.index("Time of a question: Both")
    assert made.rows[1].values["visual_rows"] == made.rows[1].values["timed_visual_rows"] == 8


@pytest.mark.whole_run
def test_what_is_recorded_is_not_timed_again_and_a_new_row_is_timed_beside_full(
    measured, monkeypatch
) -> None:
    spec, _, first = measured
    asked: list[set[str]] = []
    real = latency_rows.ask_all

    def watched(candidates, *given):
        asked.append(set(candidates))
        return real(candidates, *given)

    monkeypatch.setattr(latency_rows, "ask_all", watched)
    quiet = replace(spec, measure=replace(spec.measure, accuracy=False))
    _, again = run(quiet)
    assert asked == [] and [r.record("latency") for r in again] == [
        r.record("latency") for r in first
    ]
    assert {r.record("accuracy") for r in again} == {None}
    more = read_spec(
        {
            "backbone": {"name": "llava", "weights": spec.backbone.weights},
            "data": {"name": "digits_qa", "pictures": 3}, "device": "cpu",
            "measure": {"accuracy": False, "threads": 1, "also": dict(spec.measure.also)},
            "rows": [{"method": "tome", "with": {"tokens": 8}}], "results": str(spec.results),
        },
        read_method,
    )  # fmt: skip
    _, (tome,) = run(more)
    assert asked == [{"0", "full"}]
    assert record_of(tome)["full_gmacs"] == record_of(first[0])["gmacs"]
    shorter = replace(spec.measure, also={"latency": {"questions": 3, "warmup": 0}})
    _, (few,) = run(replace(more, measure=replace(shorter, accuracy=False)))
    assert few.key != tome.key and record_of(few)["n_questions"] == 3


@pytest.mark.whole_run
def test_pictures_of_several_crops_are_timed_as_they_are_answered(tmp_path) -> None:
    """Of LLaVA-NeXT: five crops of 16 patches are a batch of the tower."""
    folder = made_llava_next(tmp_path / "next")
    plan = {"accuracy": True, "also": {"latency": {"warmup": 0}}}
    spec = spec_of(folder, tmp_path, rows=[ROWS[0], ROWS[1], ROWS[3]], measure=plan, limit=4)
    _, results = run(spec)
    assert [result.reason for result in results] == [None] * 3
    assert [record_of(result)["visual_rows"] for result in results] == [80, 40, 80]
    for result in results:
        record, answered = record_of(result), result.measured["questions"]
        assert sum(record["stop_histogram"].values()) == 5 * 4 and record["n_questions"] == 4
        assert record["layer_rows"] == pytest.approx(answered["layer_rows"])
        for part, gmacs in record["gmacs"].items():
            assert gmacs == pytest.approx(answered[f"gmacs_{part}"], rel=1e-12), part


@pytest.mark.whole_run
def test_without_answers_the_full_row_is_timed_once_and_a_page_is_made(
    folder, tmp_path, capsys, monkeypatch
) -> None:
    """Whatever the full row is called: all others are set against it."""
    asked: list[set[str]] = []
    real = latency_rows.ask_all
    monkeypatch.setattr(
        latency_rows, "ask_all", lambda *given: asked.append(set(given[0])) or real(*given)
    )
    plan = {"accuracy": False, "threads": 1, "also": {"latency": {"questions": 3, "warmup": 0}}}
    rows = [ROWS[0] | {"label": "All rows"}, ROWS[1]]
    _, (full, zipped) = run(spec_of(folder, tmp_path, rows=rows, measure=plan, limit=3))
    assert asked == [{"0", "1"}]
    assert record_of(zipped)["full_times_ms"] == record_of(full)["times_ms"]
    write_outputs(Session(spec_of(folder, tmp_path, rows=rows)), [full, zipped])
    assert report.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'report.html'}\n"
    assert "Time of a question" in (tmp_path / "report.html").read_text("utf-8")


@pytest.mark.whole_run
def test_an_error_while_timing_leaves_the_answers_and_its_reason(folder, tmp_path, monkeypatch):
    def fails(*given: Any) -> None:
        raise ValueError("the prompt has 400 rows")

    monkeypatch.setattr(latency_rows, "ask_all", fails)
    _, results = run(spec_of(folder, tmp_path, rows=ROWS[:2]))
    assert [result.reason for result in results] == [
        "latency failed: ValueError: the prompt has 400 rows"
    ] * 2
    assert all(result.accuracy is not None for result in results)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"questions": 2}, r"measure\.also\.latency\.questions=2 is not possible: give 3"),
        ({"pictures": 0}, "pictures=0"),
        ({"rounds": 3}, r"unknown key 'rounds' \(known: questions, pictures, warmup\)"),
        ({"warmup": "few"}, "give an integer"),
        (7, "group of settings"),
    ],
)
def test_a_plan_that_cannot_be_followed_is_one_line(options: Any, said: str, tmp_path) -> None:
    measure = MeasureSpec(False, also={"latency": options})
    spec = RunSpec(
        "t", BackboneSpec("llava", "bundled"), DataSpec("digits_qa"), (), measure, results=tmp_path
    )
    with pytest.raises(RequestError, match=said):
        run(spec)


def test_classes_are_not_timed_by_questions(tmp_path) -> None:
    measure = MeasureSpec(False, also={"latency": {}})
    spec = RunSpec("t", BackboneSpec("digits_vit"), DataSpec("digits"), (), measure)
    with pytest.raises(RequestError, match="task=vlm, or measure=throughput"):
        run(replace(spec, results=tmp_path))
