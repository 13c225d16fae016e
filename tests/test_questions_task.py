"""Questions as a task: answers become columns, columns become the numbers of a record."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from asap.core.crops import PictureRows
from asap.data.base import Sample
from asap.data.open import open_data
from asap.errors import RequestError
from asap.measure.joint_evaluation import _about
from asap.records.question_schema import QuestionsRecord, Share, YesNo
from asap.records.schema import AccuracyRecord
from asap.records.tables import ANSWER_COLUMNS, decode, encode, frame_of, table_of
from asap.report.statistics import finite, hits, mean_interval, share_interval
from asap.report.yes_no import f1_interval
from asap.spec.run_spec import DataSpec
from asap.tasks.questions import Answer, CannotAnswer, Questions
from asap.tasks.registry import task_of

PATCHES, WIDTH = 6, 4
COLUMNS = (*ANSWER_COLUMNS, *Questions.columns)


def sample(i: int, picture: int, kind: str, right: Sequence[str], **extras: Any) -> Sample:
    about = {"question": f"question {i} ?", "kind": kind, "category": kind, "subset": ""}
    return Sample(
        i, 100 + i, f"{picture}.png#{i}", picture, torch.zeros(1, 3, 2, 2), tuple(right),
        extras={**about, "max_new_tokens": 16, **extras}, picture=picture,
    )  # fmt: skip


@dataclass(frozen=True)
class Rows:
    """Visual rows of a batch: row k of image i is filled with 10 i + k."""

    counts: tuple[int, ...]
    held: Tensor

    def of(self, sample: Sample, first: int) -> PictureRows:
        rows = (10 * first + torch.arange(self.counts[first])).float()[:, None].repeat(1, WIDTH)
        return PictureRows(rows, None, self.held[first])


def outputs(n: int) -> Rows:
    """Three rows an image: of patches 0 and 1, of patch 2, of patches 3 and 4; 5 is dropped."""
    return Rows((3,) * n, torch.tensor([[0, 0, 1, 2, 2, -1]]).repeat(n, 1))


def traces(n: int) -> dict[str, Tensor]:
    return {
        "macs_backbone": torch.arange(n) * 1000 + 2**40, "macs_method": torch.full((n,), 7),
        "sink": torch.tensor([2, -1] * n)[:n], "assignment": torch.zeros(n, PATCHES).long(),
    }  # fmt: skip


@dataclass(frozen=True)
class Speaker:
    """Says what it is told for each question, by its index; the rest of an answer is made up."""

    texts: dict[int, str]
    fails: frozenset[int] = frozenset()
    nonfinite: frozenset[int] = frozenset()
    kept: tuple[int, ...] = (0, 1, 2)

    def answer(self, sample: Sample, picture: PictureRows) -> Answer:
        if sample.index in self.fails:
            raise CannotAnswer("the prompt has 5,000 rows and the model 4,096 positions")
        text, n = self.texts[sample.index], 20 + sample.index
        return Answer(
            text, (5, 2)[: len(text)], sample.index == 1, sample.index not in self.nonfinite,
            len(picture), 20, (n, n, n - 2), self.kept, 30, 2**41 + sample.index, 9, 3 * n - 2,
            64 * (3 * n - 2), 0.5, -0.25,
        )  # fmt: skip


MASK = torch.tensor([True, True, True, False, True, True])
SAMPLES = [
    sample(0, 0, "yes_no", ["yes"], category="presence", subset="random", mask=MASK),
    sample(1, 0, "yes_no", ["no"], category="presence", subset="popular", mask=MASK),
    sample(2, 0, "exact", ["two"], mask=MASK),
    sample(3, 1, "yes_no", ["yes"], category="presence", subset="random"),
    sample(4, 1, "yes_no", ["no"], category="relation"),
    sample(5, 2, "letter", ["B"]),
    sample(6, 2, "vqa", ["cat"] * 2 + ["dog"] * 8),
    sample(7, 3, "yes_no", ["yes"], category="presence", subset="popular"),
    sample(8, 3, "exact", ["3"]),
]
SAID = {0: "Yes", 1: "maybe", 2: "Two.", 3: "No", 4: "no", 5: "B. it", 6: "the cat", 7: "", 8: "3"}


def frame(speaker: Any, samples: Sequence[Sample] = SAMPLES) -> pd.DataFrame:
    """The table of answers as it is read from its file, made as an evaluation makes it."""
    n = len(samples)
    known = {**_about(samples), **Questions(speaker).answered(samples, outputs(n), traces(n))}
    known["n"] = [int(error is None) for error in known["error"]]
    return frame_of(decode(encode(table_of(known, COLUMNS)), COLUMNS))


def test_answers_become_columns() -> None:
    found = frame(Speaker(SAID, kept=(0, 1)))
    assert found["text"].tolist() == [SAID[i] for i in range(9)]
    assert found["said"].tolist() == ["yes", "other", "", "no", "no", "", "", "other", ""]
    expected = [1, 0, 1, 0, 1, 1, 0.6, 1, 1]
    assert found["score"].tolist() == pytest.approx(expected)
    assert found["cut"].tolist() == [0, 1, *[0] * 7] and set(found["finite"]) == {1}
    assert [list(ids) for ids in found["ids"]] == [[5, 2]] * 7 + [[], [5]]
    assert [list(right) for right in found["answers"]] == [list(s.target) for s in SAMPLES]
    assert [list(t) for t in found["language.tokens"]][3] == [23, 23, 21]
    assert found["vision.macs_backbone"].tolist() == [2**40 + 1000 * i for i in range(9)]
    assert found["language.macs_backbone"].tolist() == [2**41 + i for i in range(9)]
    assert found["kv_bytes"].tolist() == [64 * n for n in found["kv_rows"]]
    assert set(found["visual_rows"]) == {3} and set(found["prompt_rows"]) == {20}
    assert set(found["gap"]) == {0.5} and set(found["yes_no_gap"]) == {-0.25}
    # Of five object patches, 0, 1 and 2 are in rows that are kept and without background.
    assert found["object_recall"].tolist()[:3] == pytest.approx([0.6] * 3)
    assert found["object_share"].tolist()[:3] == pytest.approx([5 / 6] * 3)
    assert found["sink_on_object"][0] == 1 and found["sink_on_object"][2:].isna().sum() == 6
    assert found["object_recall"][3:].isna().all() and found["error"].isna().all()
    # With all rows kept, the object's patch 4 shares its row with the ground.
    assert frame(Speaker(SAID))["object_recall"][0] == pytest.approx(0.6)
    assert frame(Speaker(SAID, kept=(1,)))["object_recall"][0] == pytest.approx(0.2)
    assert frame(Speaker(SAID, kept=()))["object_recall"][0] == 0


def test_an_answer_does_not_depend_on_its_neighbours_or_their_order() -> None:
    """Each question is given the rows of its own picture, and its own trace."""

    class Echo:
        def answer(self, sample: Sample, picture: PictureRows) -> Answer:
            base = Speaker({sample.index: "yes"}).answer(sample, picture)
            return replace(base, gap=float(picture.rows[0, 0]))

    order = [6, 2, 8, 0]
    found = frame(Echo(), [SAMPLES[i] for i in order])
    assert found["gap"].tolist() == [0, 10, 20, 30]
    assert found["id"].tolist() == [106, 102, 108, 100]
    base = frame(Speaker(SAID)).set_index("id").drop(columns="vision.macs_backbone")
    for chosen in (order, order[::-1], [3], [*range(9)][::-1]):
        some = frame(Speaker(SAID), [SAMPLES[i] for i in chosen]).set_index("id")
        some, same = some.drop(columns=["vision.macs_backbone"]), base.loc[some.index]
        sinks = ["sink_on_object"]  # that of the place in the batch, in this test
        pd.testing.assert_frame_equal(some.drop(columns=sinks), same.drop(columns=sinks))


def test_an_answer_that_is_not_finite_is_wrong_and_counted() -> None:
    found = frame(Speaker(SAID, nonfinite=frozenset((0, 2, 4))))
    assert found["score"].tolist()[:5] == [0, 0, 0, 0, 0] and found["said"][0] == ""
    assert finite(found).tolist() == [False, True, False, True, False, *[True] * 4]
    record = Questions().score(found, True)
    assert (record["n"], record["n_nonfinite"], record["n_failed"]) == (9, 3, 0)
    assert record["questions"]["yes_no"]["relation"]["all"]["accuracy"] == 0


def test_a_question_that_fails_alone_is_listed_like_one_that_was_not_read() -> None:
    found = frame(Speaker(SAID, fails=frozenset((1, 6))))
    assert found["error"].notna().tolist() == [i in (1, 6) for i in range(9)]
    assert "4,096 positions" in found["error"][1]
    unread = [replace(s, inputs=None, error="damaged") for s in SAMPLES]
    lost = frame_of(table_of({**_about(unread), **Questions().unread(unread)}, COLUMNS))
    same = [name for name in lost if name not in ("error", "index")]
    pd.testing.assert_frame_equal(found.loc[[1, 6], same], lost.loc[[1, 6], same])
    record = Questions().score(found, True)
    assert (record["n"], record["n_failed"]) == (7, 2)
    assert (
        record["questions"]["layer_rows"]
        == Questions().score(found[found["error"].isna()], True)["questions"]["layer_rows"]
    )
    with pytest.raises(RequestError, match="none of the 9 questions"):
        Questions().score(lost, True)


def test_the_record_of_questions_by_hand() -> None:
    found = frame(Speaker(SAID))
    record = Questions().score(found, True)
    scores = np.array([1, 0, 1, 0, 1, 1, np.float32(0.6), 1, 1], np.float64)
    sources = found["cluster"].to_numpy()
    assert record["top1"] == record["top5"] == pytest.approx(100 * scores.mean())
    assert record["correct1"] == record["correct5"] == 6 == hits(found)[0].sum()
    low, high = mean_interval(scores, sources)
    assert record["top1_interval"] == pytest.approx([100 * max(low, 0), 100 * min(high, 1)])
    macs = found["vision.macs_backbone"] + found["projector.macs"] + found["language.macs_backbone"]
    assert record["gmacs_backbone"] == macs.sum() / 9 / 1e9
    assert record["gmacs_method"] == pytest.approx(16e-9) and record["gmacs_no_attention"] is None
    assert record["gmacs_sd"] == pytest.approx(np.std(macs, ddof=1) / 1e9)
    about = record["questions"]
    assert {name: (s["score"], s["n"]) for name, s in about["categories"].items()} == {
        "presence": (50, 4), "relation": (100, 1), "exact": (100, 2), "letter": (100, 1),
        "vqa": (pytest.approx(60), 1),
    }  # fmt: skip
    right = np.array([1, 0, 0, 1], bool)
    clusters = np.array([0, 0, 1, 3])
    presence = about["categories"]["presence"]
    expected = share_interval(right, clusters)
    assert (presence["lo"] / 100, presence["hi"] / 100) == pytest.approx(expected)
    assert about["average"] == pytest.approx((50 + 100 + 100 + 100 + 60) / 5)
    # Said: yes, other (counts as yes), no, other; right: yes, no, yes, yes.
    yes_no = about["yes_no"]["presence"]["all"]
    low, high = f1_interval(np.array([1, 1, 0, 1], bool), np.array([1, 0, 1, 1], bool), clusters)
    assert (yes_no["lo"], yes_no["hi"]) == pytest.approx((100 * low, 100 * high))
    counts = {name: yes_no[name] for name in ("n", "n_other", "accuracy", "yes_share")}
    assert counts == {"n": 4, "n_other": 2, "accuracy": 50, "yes_share": 75}
    assert yes_no["labels_yes_share"] == 75 and yes_no["f1"] == pytest.approx(200 / 3)
    assert (yes_no["precision"], yes_no["recall"]) == pytest.approx((200 / 3, 200 / 3))
    subsets = about["yes_no"]["presence"]
    assert list(about["categories"]) == ["presence", "exact", "relation", "letter", "vqa"]
    assert list(subsets) == ["all", "random", "popular"] and subsets["random"]["n"] == 2
    relation = about["yes_no"]["relation"]["all"]
    assert (relation["f1"], relation["precision"], relation["lo"]) == (None, None, None)
    assert (about["pictures"], about["n_cut"], about["n_empty"]) == (4, 1, 1)
    assert about["layer_rows"] == [24, 24, 22] and about["visual_rows"] == 3
    assert about["kv_mib"] == pytest.approx(64 * 70 / 2**20)
    assert about["gmacs_prefill"] == pytest.approx((2**41 + 4) / 1e9)
    assert about["gmacs_tower"] + about["gmacs_projector"] + about["gmacs_prefill"] == (
        pytest.approx(record["gmacs_backbone"])
    )
    assert set(about) == QuestionsRecord.__required_keys__
    assert set(yes_no) == YesNo.__required_keys__ and set(presence) == Share.__required_keys__
    assert record.keys() <= AccuracyRecord.__annotations__.keys()
    json.dumps(record, allow_nan=False)


def test_a_record_does_not_depend_on_the_order_of_the_answers() -> None:
    found = frame(Speaker(SAID))
    for seed in range(3):
        mixed = found.sample(frac=1, random_state=seed)
        assert Questions().score(mixed, True) == Questions().score(found, True)


def test_one_picture_says_nothing_about_the_spread() -> None:
    found = frame(Speaker(SAID), SAMPLES[:3])
    record = Questions().score(found, True)
    assert record["top1_interval"] == [0, 100]
    assert record["questions"]["yes_no"]["presence"]["all"]["lo"] is None
    json.dumps(record, allow_nan=False)
    assert math.isfinite(record["gmacs_sd"])


def test_right_answers_for_a_search() -> None:
    speaker = Speaker(SAID, fails=frozenset((0,)), nonfinite=frozenset((2,)))
    found = Questions(speaker).right(SAMPLES, outputs(9))
    assert found.tolist() == [False, False, False, False, True, True, False, True, True]


def test_the_task_is_found_by_its_name() -> None:
    options = {"pictures": 1}
    data = open_data(DataSpec("digits_qa", options=options), lambda _: torch.zeros(3, 2, 2), (8, 8))
    assert task_of(data) == Questions() and task_of(data).examples == "questions"
    speaker = Speaker({})
    assert task_of(data, speaker) == Questions(speaker)
    with pytest.raises(ValueError, match="without an answerer"):
        Questions().answered(SAMPLES[:1], outputs(1), traces(1))


def test_tenths_of_scores_are_stored_as_they_are() -> None:
    field = next(one for one in Questions.columns if one.name == "score")
    tenths = [k / 10 for k in range(11)]
    stored = decode(encode(table_of({"score": tenths}, [field])), [field])
    assert stored["score"].to_pylist() == tenths
