"""Scenes of several digits and the questions about them, against what the masks show."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest

from asap.data.digits import render
from asap.data.digits.questions import (
    CATEGORIES,
    CONFUSED,
    NUMBERS,
    SUBSETS,
    WORDS,
    DigitQuestion,
    questions_of,
)
from asap.data.digits.several import BY_FREQUENCY, CLASS_WEIGHTS, SeveralDigits, several

SCENES = {split: [several(split, 0, i) for i in range(120)] for split in render.SPLITS}
ASKED = [questions_of("evaluation", 0, i) for i in range(120)]
EVALUATION = list(zip(SCENES["evaluation"], ASKED, strict=True))


def words_of(text: str) -> list[str]:
    return text.lower().replace("?", " ?").split()


def named(text: str) -> list[int]:
    """The digits that a question names, in order."""
    return [int(word) for word in words_of(text) if word.isdigit()]


def centre(mask: np.ndarray) -> float:
    """Of a digit's pixels, the mean distance from the left."""
    return float(np.nonzero(mask)[1].mean())


def test_a_scene_depends_on_split_seed_and_index_alone():
    again = several("evaluation", 0, 7)
    first = SCENES["evaluation"][7]
    assert (again.image == first.image).all() and again.labels == first.labels
    assert questions_of("evaluation", 0, 7) == ASKED[7]
    for other in (several("calibration", 0, 7), several("evaluation", 1, 7)):
        assert (other.image != first.image).any()
    with pytest.raises(ValueError, match="split='test' is unknown"):
        several("test", 0, 0)


@pytest.mark.parametrize("split", render.SPLITS)
def test_scenes_hold_one_to_three_separate_digits_of_their_split(split):
    labels = render.source()[1]
    for scene in SCENES[split]:
        assert scene.image.shape == (112, 112, 3) and scene.image.dtype == np.uint8
        assert len(set(scene.labels)) == len(scene.labels) == len(scene.masks)
        assert all(m.shape == (112, 112) and m.dtype == bool and m.any() for m in scene.masks)
        assert not any((a & b).any() for a, b in combinations(scene.masks, 2))
        assert all(28 <= edge <= 44 for edge in scene.edges)
        assert [labels[d] for d in scene.digits] == list(scene.labels)
        assert all(render.split_of(d) == split for d in scene.digits)
    assert {len(s.labels) for s in SCENES[split]} == {1, 2, 3}


def test_the_mask_is_where_the_strokes_are():
    """Strokes are brighter than the ground, so the brightest pixels belong to digits."""
    for scene in SCENES["evaluation"]:
        inside = np.logical_or.reduce(scene.masks)
        brightness = scene.image.min(2).astype(float)
        assert brightness[inside].mean() > 1.5 * brightness[~inside].mean()


def test_classes_are_as_frequent_as_their_weights():
    found = Counter(label for i in range(600) for label in _labels(i))
    assert sorted(CLASS_WEIGHTS, reverse=True) == [CLASS_WEIGHTS[c] for c in BY_FREQUENCY]
    assert np.mean([found[c] for c in BY_FREQUENCY[:3]]) > 1.8 * np.mean(
        [found[c] for c in BY_FREQUENCY[-3:]]
    )


def _labels(index: int) -> tuple[int, ...]:
    return several("train", 0, index).labels


def test_every_scene_has_every_question_in_order():
    for scene, questions in EVALUATION:
        asked = [(q.category, q.subset) for q in questions]
        expected = [("presence", subset) for subset in SUBSETS]
        expected += [(c, "") for c in CATEGORIES[1:-1]]
        assert asked == expected + [("relation", "")] * (len(scene.labels) > 1)
        for question in questions:
            assert set(words_of(question.text)) <= set(WORDS)
            assert question.answer in WORDS


def oracle(scene: SeveralDigits, question: DigitQuestion) -> str:
    """The answer by pixels: by centres and heights of masks."""
    at = {label: centre(mask) for label, mask in zip(scene.labels, scene.masks, strict=True)}
    match question.category:
        case "presence":
            return "yes" if named(question.text)[0] in at else "no"
        case "count":
            return NUMBERS[len(at)]
        case "leftmost":
            return str(min(at, key=lambda label: at[label]))
        case "rightmost":
            return str(max(at, key=lambda label: at[label]))
        case "largest":
            return str(scene.labels[int(np.argmax(scene.edges))])
        case _:
            a, b = named(question.text)
            return "yes" if at[a] < at[b] else "no"


def test_answers_are_what_the_masks_show():
    for scene, questions in EVALUATION:
        for question in questions:
            assert question.answer == oracle(scene, question), question


def test_largest_is_what_the_masks_show():
    """Of digits of one class the one with the longer edge has the more pixels; classes differ."""
    pairs = [(s, q) for s, asked in EVALUATION for q in asked if q.category == "largest"]
    right = [
        q.answer == str(s.labels[int(np.argmax([m.sum() for m in s.masks]))]) for s, q in pairs
    ]
    assert np.mean(right) > 0.75


@pytest.mark.parametrize("category", ["presence", "relation"])
def test_yes_and_no_are_balanced(category):
    for subset in SUBSETS if category == "presence" else ("",):
        answers = [
            q.answer
            for asked in ASKED
            for q in asked
            if (q.category, q.subset) == (category, subset)
        ]
        share = answers.count("yes") / len(answers)
        assert share == 0.5 if category == "presence" else 0.4 < share < 0.6


def test_absent_digits_follow_the_rule_of_their_subset():
    for scene, asked in EVALUATION:
        absent = [c for c in BY_FREQUENCY if c not in scene.labels]
        for question in asked:
            if question.category != "presence" or question.answer == "yes":
                continue
            label = named(question.text)[0]
            if question.subset == "popular":
                assert label in absent[:3]
            if question.subset == "adversarial":
                nearest = [next(c for c in CONFUSED[p] if c in absent) for p in scene.labels]
                assert label in nearest


def test_confused_classes_are_those_with_the_nearest_means():
    images, labels = render.source()
    train = np.array(render.digits_of("train"))
    means = np.stack(
        [images[train[labels[train] == c]].mean(0, dtype=np.float64) for c in range(10)]
    )
    for label, nearest in enumerate(CONFUSED):
        distance = ((means - means[label]) ** 2).sum((1, 2))
        assert nearest == tuple(np.argsort(distance)[1:4])
