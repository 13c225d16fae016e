"""The comparison with lmms-eval, with lmms-eval's scores made here: what it finds, and what not."""

import sys
from typing import Any

import check_scores
import pytest
from check_scores import DIFFERENCES, RIGHT_HERE, RIGHT_THERE, TASKS, Question
from made_answers import made

Asked = dict[str, list[Question]]
VQA_WORDS = ("dont", "don't", "yall'll", "seven", "the", "-")


@pytest.fixture
def asked() -> Asked:
    found = made(0, VQA_WORDS)
    for task, questions in found.items():
        check_scores.mark_plain(task, questions)
    return found


def equal(asked: Asked) -> dict[str, Any]:
    """What lmms-eval would say if it had our rules."""
    return {
        task: {
            "scores": check_scores.our_scores(task, questions),
            "total": 0.0,  # is shown only
            "total_plain": check_scores.our_total(task, [one for one in questions if one["plain"]]),
        }
        for task, questions in asked.items()
    }


def test_each_task_has_answers_that_are_right_and_wrong(asked: Asked) -> None:
    assert asked.keys() == TASKS.keys() == made(1, VQA_WORDS).keys()
    assert made(0, VQA_WORDS) == made(0, VQA_WORDS) != made(1, VQA_WORDS)
    for task, questions in asked.items():
        assert len({one["id"] for one in questions}) == len(questions) > 200
        scores = check_scores.our_scores(task, questions)
        assert {0.0, 1.0} <= set(scores)
        plain = [one["plain"] for one in questions]
        assert sum(plain) >= 100 and {0.0, 1.0} <= {
            s for s, p in zip(scores, plain, strict=True) if p
        }


def test_every_known_difference_may_change_some_answer(asked: Asked) -> None:
    for one in DIFFERENCES:
        assert any(check_scores.known(one.task, question) is one for question in asked[one.task])


def test_equal_scores_and_totals_pass_and_others_do_not(asked: Asked) -> None:
    theirs = equal(asked)
    table, listed, wrong = check_scores.compare(asked, theirs)
    assert table.row_count == 7 and not listed and not wrong
    theirs["mme"]["total_plain"] += 0.01
    changed = theirs["vqav2"]["scores"]
    changed[5] += 0.1 if changed[5] < 0.5 else -0.1
    few = {task: asked[task] for task in ("mme", "vqav2")}
    _, listed, wrong = check_scores.compare(few, theirs)
    assert not listed and [line.split(":")[0] for line in wrong] == ["mme", "vqav2"]


@pytest.mark.parametrize("known", DIFFERENCES, ids=lambda one: f"{one.task}, {one.name[:12]}")
def test_a_known_difference_explains_only_its_own_scores(
    asked: Asked, known: check_scores.Difference
) -> None:
    found = [one for one in asked[known.task] if check_scores.known(known.task, one) is known]
    ours = check_scores.our_scores(known.task, found)
    theirs = [1.0 - score for score in ours]
    wrong, reasons = check_scores.unexplained(known.task, found, theirs)
    explained = sum(pair in known.found for pair in zip(ours, theirs, strict=True))
    assert reasons.total() == explained > 0 and len(wrong) == len(found) - explained
    assert known.found <= {RIGHT_HERE, RIGHT_THERE}


@pytest.mark.process
@pytest.mark.parametrize(
    ("python", "said"),
    [("/no/python", "cannot be started"), (sys.executable, "lmms-eval is not installed")],
)
def test_a_python_that_has_no_lmms_eval_is_refused(python: str, said: str) -> None:
    with pytest.raises(SystemExit, match=f"{said}.*see .*--help"):
        check_scores.ask(python, "words")
