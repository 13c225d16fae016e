"""The numbers of benchmarks from tables of answers, beside the official rules written apart."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from reference import scores_ref as ref

from asap.data.questions.benchmark import Benchmark
from asap.data.questions.gqa import GQA
from asap.data.questions.mmbench import TURN
from asap.data.questions.mme import COGNITION, MME, PERCEPTION
from asap.data.questions.pope import POPE
from asap.data.questions.vizwiz import VIZWIZ
from asap.data.questions.vqav2 import VQAV2
from asap.records.question_schema import BenchmarkScore
from asap.report.answer_text import right_ones
from asap.report.benchmarks import numbers
from asap.report.statistics import mean_interval
from asap.tasks.benchmark_score import RULES, benchmark_score
from asap.tasks.scoring import mme, option
from asap.tasks.scoring.rules import RULES as KINDS
from asap.tasks.scoring.rules import SAID

WORDS = ["yes", "Yes.", "no", "No,", "NO", "not", "nothing", "y", "n", "a dog", "", "the answer"]


def frame(kind: str, asked: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """A table of answers. asked: text, right, picture, and perhaps category, subset and id."""
    said = SAID.get(kind, lambda text: "")
    rows = [
        {"index": i, "path": f"{one['picture']}#{one.get('id', i)}", "cluster": one["picture"],
         "category": one.get("category", "all"), "subset": one.get("subset", ""), "kind": kind,
         "answers": one["right"], "text": one["text"], "said": said(one["text"]), "finite": 1,
         "error": None, "score": KINDS[kind](one["text"], one["right"])}
        for i, one in enumerate(asked)
    ]  # fmt: skip
    found = pd.DataFrame(rows)
    found["cluster"] = found["cluster"].astype("category").cat.codes
    return found


def scored(kind: str, benchmark: Benchmark, asked: Sequence[dict[str, Any]]) -> BenchmarkScore:
    found = benchmark_score(frame(kind, asked), benchmark)
    assert found["status"] == "scored" and found["metric"] == benchmark.metric
    assert (found["name"], found["split"]) == (benchmark.name, benchmark.split)
    if found["score"] is not None and found["lo"] is not None and found["hi"] is not None:
        assert found["lo"] <= found["score"] + 1e-9 and found["score"] <= found["hi"] + 1e-9
    return found


def test_every_benchmark_has_a_rule() -> None:
    each = (POPE, GQA, MME, *VIZWIZ.values(), *VQAV2.values())
    assert {one.rule for one in each} | {"circular"} == RULES.keys()


# ---- POPE


def pope(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Six questions about each picture, in three subsets."""
    return [
        {"text": text, "right": ["yes" if i % 2 else "no"], "picture": f"p{i // 6}",
         "subset": ("random", "popular", "adversarial")[i % 6 // 2]}
        for i, text in enumerate(texts)
    ]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), min_size=12, max_size=36))
@settings(max_examples=40, deadline=None)
def test_the_number_of_pope_is_the_mean_f1_of_its_subsets(texts: list[str]) -> None:
    asked = pope(texts)
    found = scored("yes_no", POPE, asked)
    each = {
        name: ref.pope_f1([one for one in asked if one["subset"] == name])
        for name in ("random", "popular", "adversarial")
    }
    known = [one for one in each.values() if one is not None]
    if len(known) == 3:
        assert found["score"] == pytest.approx(sum(known) / 3)
        assert {name: found["parts"][f"f1_{name}"] for name in each} == pytest.approx(each)
    else:
        assert found["score"] is None
    assert found["n"] == len(asked) and found["n_expected"] == 8910


def test_the_interval_of_pope_draws_pictures() -> None:
    rng = np.random.default_rng(3)
    right = [("no", "yes")[i % 2] for i in range(1200)]
    texts = [r if rng.random() < 0.85 else {"yes": "no", "no": "yes"}[r] for r in right]
    found = scored("yes_no", POPE, pope(texts))
    again = scored("yes_no", POPE, pope(texts))
    assert found == again and found["lo"] is not None and found["hi"] is not None
    fresh = []
    for _ in range(200):
        drawn = [r if rng.random() < 0.85 else {"yes": "no", "no": "yes"}[r] for r in right]
        one = pope(drawn)
        subsets = ("random", "popular", "adversarial")
        f1 = [ref.pope_f1([q for q in one if q["subset"] == name]) for name in subsets]
        fresh.append(sum(x for x in f1 if x is not None) / 3)
    width = found["hi"] - found["lo"]
    assert width == pytest.approx(3.92 * float(np.std(fresh)), rel=0.25)
    alone = scored("yes_no", POPE, pope(["yes"] * 6))
    assert alone["lo"] is None and alone["hi"] is None
    perfect = scored("yes_no", POPE, pope(right))
    assert perfect["score"] == perfect["hi"] == 100 and 97 < (perfect["lo"] or 0) < 100


# ---- GQA


def test_the_number_of_gqa_is_the_share_of_right_answers() -> None:
    texts = ["Yes.", "no", "Left", "on the left", "woman"]
    right = [["yes"], ["no"], ["left"], ["left"], ["man"]]
    asked = [
        {"text": t, "right": r, "picture": f"p{i // 2}"}
        for i, (t, r) in enumerate(zip(texts, right, strict=True))
    ]
    found = scored("exact", GQA, asked)
    assert found["score"] == pytest.approx(60.0) and found["n"] == 5
    low, high = mean_interval(np.array([1.0, 1, 1, 0, 0]), np.array([0, 0, 1, 1, 2]))
    assert (found["lo"], found["hi"]) == pytest.approx((100 * max(low, 0), 100 * min(high, 1)))


# ---- MME


@given(st.sampled_from(WORDS) | st.text(max_size=8))
@example("Y")
@example(". yes")
@example("y e")
@example(" Yes, it is")
@example("Nope")
@example("know")
@example("...n")
@example("İyes")
def test_what_an_answer_to_mme_says(text: str) -> None:
    assert mme.said(text) == ref.mme_said(text)
    for right in ("yes", "no"):
        assert mme.score(text, [right]) == float(ref.mme_said(text) == right)


def of_mme(texts: Sequence[str], categories: Sequence[str]) -> list[dict[str, Any]]:
    """Two questions about each picture; categories come in turn."""
    return [
        {"text": text, "right": [("yes", "no")[i % 2]], "picture": f"p{i // 2}",
         "category": categories[i // 2 % len(categories)]}
        for i, text in enumerate(texts)
    ]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), min_size=16, max_size=40))
@settings(max_examples=30, deadline=None)
def test_the_number_of_mme_is_the_sum_over_categories(texts: list[str]) -> None:
    categories = ["existence", "OCR", "code_reasoning"]
    asked = of_mme(texts[: len(texts) // 2 * 2], categories)
    found, each = scored("mme", MME, asked), ref.mme_points(asked)
    assert found["score"] == pytest.approx(math.fsum(each.values()))
    assert {name: found["parts"][name] for name in each} == pytest.approx(each)
    perception = sum(each[name] for name in ("existence", "OCR") if name in each)
    assert found["parts"]["perception"] == pytest.approx(perception)
    assert found["parts"]["cognition"] == pytest.approx(each.get("code_reasoning", 0.0))
    other = sum(ref.mme_said(one["text"]) == "other" for one in asked)
    assert found["parts"]["other_share"] == pytest.approx(100 * other / len(asked))


def test_the_most_points_and_the_interval_of_mme() -> None:
    categories, rng = [*PERCEPTION, *COGNITION], np.random.default_rng(1)
    right = [("yes", "no")[i % 2] for i in range(28 * 30)]
    best = scored("mme", MME, of_mme(right, categories))
    assert best["score"] == best["hi"] == 2800
    pictures, z = 14 * 30, 1.959963984540054  # Wilson's interval of a share of 1
    assert best["lo"] == pytest.approx(2800 * pictures / (pictures + z * z))
    none = scored("mme", MME, of_mme(["other"] * len(right), categories))
    assert none["score"] == none["lo"] == 0
    assert none["hi"] == pytest.approx(2800 - (best["lo"] or 0))
    assert (best["parts"]["perception"], best["parts"]["cognition"]) == (2000, 800)
    texts = [r if rng.random() < 0.8 else "other" for r in right]
    found = scored("mme", MME, of_mme(texts, categories))
    assert found == scored("mme", MME, of_mme(texts, categories))
    assert found["lo"] is not None and found["hi"] is not None and found["score"] is not None
    fresh = []
    for _ in range(150):
        drawn = [r if rng.random() < 0.8 else "other" for r in right]
        fresh.append(sum(ref.mme_points(of_mme(drawn, categories)).values()))
    assert found["hi"] - found["lo"] == pytest.approx(3.92 * float(np.std(fresh)), rel=0.25)


def test_a_question_of_a_pair_that_failed_makes_no_pair() -> None:
    asked = of_mme(["yes", "no", "yes"], ["existence"])
    found = scored("mme", MME, asked)
    assert found["score"] == pytest.approx(100 + 50)


# ---- VQA accuracy


def test_the_numbers_of_vizwiz() -> None:
    answers = [["red"] * 10, ["red"] * 4 + ["x"] * 6, ["unanswerable"] * 10, ["unanswerable"] * 10]
    texts = ["red", "Unanswerable.", "unanswerable", "blue"]
    asked = [
        {"text": t, "right": a, "picture": f"p{i}",
         "subset": "answerable" if i < 2 else "unanswerable"}
        for i, (t, a) in enumerate(zip(texts, answers, strict=True))
    ]  # fmt: skip
    found = scored("vqa", VIZWIZ["val"], asked)
    assert found["score"] == pytest.approx(50.0)
    assert found["parts"] == pytest.approx(
        {"answerable": 50.0, "unanswerable": 50.0, "says_unanswerable": 50.0}
    )
    assert found["n"] == 4 and found["n_expected"] == 4319


def test_the_number_of_vqav2_and_of_its_kinds_of_answers() -> None:
    answers = [["yes"] * 10, ["2"] * 2 + ["3"] * 8, ["cat"] * 10]
    asked = [
        {"text": t, "right": a, "picture": "p0", "subset": k}
        for t, a, k in zip(("Yes", "2", "dog"), answers, ("yes/no", "number", "other"), strict=True)
    ]
    found = scored("vqav2", VQAV2["val"], asked)
    assert found["score"] == pytest.approx(100 * (1 + 0.6 + 0) / 3)
    assert found["parts"] == pytest.approx({"yes/no": 100.0, "number": 60.0, "other": 0.0})


def test_what_a_server_scores_has_no_number() -> None:
    asked = [{"text": t, "right": [], "picture": f"p{i}"} for i, t in enumerate(("red", "no"))]
    for benchmark in (VIZWIZ["test"], VQAV2["test-dev"]):
        found = benchmark_score(frame("unscored", asked), benchmark)
        assert found["status"] == "not scored here" and found["n"] == 2
        assert (found["score"], found["lo"], found["hi"], found["parts"]) == (None, None, None, {})


# ---- MMBench


def test_what_people_are_shown_of_the_right_answers() -> None:
    assert right_ones("vqa", ["red", "red", "dark red", "red"]) == ("red", "dark red")
    assert right_ones("option", ["B", "wax", "snow"]) == ("B",)
    assert right_ones("unscored", []) == ()


MMBENCH = Benchmark("mmbench", "dev", "right in every turn", "circular", 1164)
SAYS = ["A", "B", "E", "A.", "(B)", "(B).", ":C:", "a", "is", "the", "answer", "Wax", "snow.", "C)"]
sayings = st.lists(st.sampled_from(SAYS), max_size=6).map(" ".join) | st.text(max_size=12)


@given(sayings, st.sampled_from([["wax", "snow"], ["a", "b", "wax"], ["Snow", "no", "ice", "w"]]))
@example("A dog is here", ["a dog", "a cat"])
@example("A dog", ["a dog", "a cat"])
@example("It is A or B", ["wax", "snow"])
@settings(max_examples=300, deadline=None)
def test_the_option_that_an_answer_names(text: str, options: list[str]) -> None:
    found = ref.option(text, options)
    assert option.named(text, options) == found
    for k in range(len(options)):
        letter = "ABCD"[k]
        assert option.score(text, [letter, *options]) == float(found == letter)


@given(st.lists(st.sampled_from(["A", "B", "snow", "nothing"]), min_size=6, max_size=12))
@settings(max_examples=30, deadline=None)
def test_a_question_counts_if_every_turn_is_right(texts: list[str]) -> None:
    asked = [
        {"text": t, "picture": f"p{i // 2}", "id": 241 + i // 2 + 1_000_000 * (i % 2),
         "right": ["A", "snow", "wax"] if i % 2 else ["B", "wax", "snow"]}
        for i, t in enumerate(texts)
    ]  # fmt: skip
    found = scored("option", MMBENCH, asked)
    assert found["score"] == pytest.approx(ref.circular(asked))
    assert found["n"] == (len(texts) + 1) // 2 and found["n_expected"] == 1164
    plain = [ref.option(one["text"], one["right"][1:]) == one["right"][0] for one in asked]
    assert found["parts"]["accuracy"] == pytest.approx(100 * sum(plain) / len(plain))
    assert found["parts"]["orders"] == len(texts)


# ---- differences of two rows


def turns_of_mmbench(texts: Sequence[str]) -> list[dict[str, Any]]:
    """Two turns of each question, two questions about each picture."""
    return [
        {"text": text, "picture": f"p{i // 4}", "id": i // 2 + TURN * (i % 2),
         "right": ["A", "snow", "wax"] if i % 2 else ["B", "wax", "snow"]}
        for i, text in enumerate(texts)
    ]  # fmt: skip


OF = {  # kind, benchmark, questions of texts, right and wrong text
    "pope": ("yes_no", POPE, pope, lambda i: ("no", "yes")[i % 2], {"yes": "no", "no": "yes"}),
    "mme": (
        "mme", MME, lambda texts: of_mme(texts, ["existence", "OCR"]),
        lambda i: ("yes", "no")[i % 2], {"yes": "no", "no": "yes"},
    ),
    "mmbench": (
        "option", MMBENCH, turns_of_mmbench, lambda i: "BA"[i % 2], {"A": "B", "B": "A"},
    ),
}  # fmt: skip


def two_rows(name: str, n: int, seed: int) -> tuple[list[pd.DataFrame], list[float]]:
    """Two rows that mostly fail on the same questions: their tables and their numbers."""
    kind, _, asked, right, wrong = OF[name]
    rng = np.random.default_rng(seed)
    texts = [right(i) for i in range(n)]
    first = [wrong[t] if rng.random() < 0.25 else t for t in texts]
    second = [wrong[t] if rng.random() < 0.05 else t for t in first]
    frames = [
        frame(kind, asked(said)).assign(id=range(n), question="?") for said in (first, second)
    ]
    return frames, [numbers.NUMBERS[name](one).value for one in frames]


@pytest.mark.parametrize("name", OF)
def test_a_difference_of_numbers_is_paired_by_picture(name: str) -> None:
    """The number is that of the record; the interval has the spread of fresh pairs of rows."""
    (one, two), _ = two_rows(name, 240, 0)
    scores = [benchmark_score(frame_, OF[name][1])["score"] or 0.0 for frame_ in (one, two)]
    found = numbers.number_difference(name, one, two.sample(frac=1, random_state=1))
    assert found is not None and found.interval is not None
    assert found.difference == pytest.approx(scores[1] - scores[0], abs=1e-9)
    low, high = found.interval
    assert low < found.difference < high
    fresh = [two_rows(name, 240, seed)[1] for seed in range(1, 61)]
    spread = float(np.std([after - before for before, after in fresh]))
    assert high - low == pytest.approx(3.92 * spread, rel=0.4)
    apart = float(np.std([before for before, _ in fresh])) * math.sqrt(2)
    assert high - low < 0.8 * 3.92 * apart  # failures in common do not count


def test_rows_that_answer_alike_have_no_interval_of_their_difference() -> None:
    (one, two), _ = two_rows("pope", 60, 0)
    found = numbers.number_difference("pope", one, one)
    assert found == numbers.NumberDifference(0.0, None)
    only = [frame_[frame_["cluster"] == 0] for frame_ in (one, two)]
    alone = numbers.number_difference("pope", only[0], only[1])
    assert alone is not None and alone.interval is None  # of one picture
    few = two_rows("mme", 4, 3)[0]  # a picture a category, and half of the draws lack one
    change = numbers.number_difference("mme", *few)
    assert change is not None and change.interval is None
    assert numbers.number_difference("gqa", one, two) is None  # its mean is paired elsewhere
    assert numbers.TURN == TURN
