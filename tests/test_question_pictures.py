"""Figures of pictures with questions, and how the demo's settings of ASAP are chosen."""

from pathlib import Path
from types import SimpleNamespace

import choose_vlm_points
import numpy as np
import pytest
from made_llava import made_llava_next
from made_questions import ROWS, asked
from test_questions_run import spec_of

from asap.data.base import Sample
from asap.measure.session import Session
from asap.publish.pictures import draw
from asap.publish.pictures.questions import one_a_picture
from asap.report.answer_text import answer_text
from asap.report.figures.answer_panels import Answered, AnswerPanel, answer_panels
from asap.report.figures.flip_panels import FlipPanel, flip_panels
from asap.report.figures.image_panels import ImagePanel
from asap.report.figures.style import RIGHT, WRONG
from asap.report.figures.treated import SideBySide, Treated, at_equal_rows, draw_side_by_side
from asap.report.pairs import Pair, pair_sheet
from asap.tasks.questions import Questions

pytestmark = pytest.mark.painted
ROOT = Path(__file__).resolve().parents[1]


def panel(stop_block: int = 3) -> ImagePanel:
    n = 16
    return ImagePanel(
        np.zeros((32, 32, 3), np.uint8), "", "", (4, 4), 5, np.linspace(0, 1, n),
        np.linspace(0, 1, n), np.arange(n) % 3, np.arange(n) > 4, stop_block, 12,
    )  # fmt: skip


def texts(path: Path) -> str:
    return path.with_suffix(".svg").read_text("utf-8")


def test_answers_stand_beside_what_was_done_to_the_picture(tmp_path: Path) -> None:
    told = [Answered(f"question {i} ?", ("yes",), "yes", "", i == 0) for i in range(10)]
    files = answer_panels(
        [AnswerPanel(panel(), tuple(told)), AnswerPanel(panel(0), ())], tmp_path / "a"
    )
    assert sorted(path.suffix for path in files) == [".png", ".svg"]
    said = texts(tmp_path / "a")
    for part in ("question 7 ? yes", "full: yes     reduced: –", "and 2 more", "never reduced"):
        assert part in said, part
    assert "predicted" not in said and "question 8" not in said


def test_what_a_model_says_is_no_formula_and_no_line_end(tmp_path: Path) -> None:
    told = Answered("$\\frac$ or $5?", ("yes",), "$x_$\n\x1b[31mred", "a" * 40, False)
    answer_panels([AnswerPanel(panel(), (told,))], tmp_path / "a")
    assert f"full: $x_$ [31mred     reduced: {'a' * 16}…" in texts(tmp_path / "a")
    assert answer_text(" \n\0") == "–" and answer_text("yes\nno") == "yes no"


def test_an_answer_is_right_by_its_rule_and_may_have_no_full_one_beside_it(tmp_path: Path) -> None:
    image, kept = np.zeros((32, 32, 3), np.uint8), np.zeros(16, int)
    row = SideBySide(image, "yes", (4, 4), (Treated("Full", "Yes.", None, kept, True),), "Is it?")
    draw_side_by_side([row], tmp_path / "b")
    said = texts(tmp_path / "b")
    assert "Yes." in said and "Yes. (" not in said and RIGHT in said and WRONG not in said


def test_a_question_stands_above_its_picture(tmp_path: Path) -> None:
    image, kept = np.zeros((32, 32, 3), np.uint8), np.zeros(16, int)
    row = SideBySide(
        image, "two", (4, 4), (Treated("Full", "two", 0.0, kept),), "How many are there?"
    )
    draw_side_by_side([row], tmp_path / "b")
    assert "How many are there?" in texts(tmp_path / "b") and "two" in texts(tmp_path / "b")


def test_an_answer_is_judged_by_its_rule_and_not_by_its_letters(tmp_path: Path) -> None:
    image, kept = np.zeros((32, 32, 3), np.uint8), np.zeros(16, int)
    treated = (Treated("Full", "Yes, $5^$", 0.0, kept, right=True),)
    draw_side_by_side([SideBySide(image, "yes", (4, 4), treated, "Is it $^^$?")], tmp_path / "c")
    pair_sheet(
        [Pair(image, "yes", "Yes, $5^$", "No", (True, True), "$^$?")], ("a", "b"), tmp_path / "d"
    )
    for name in "cd":
        said = texts(tmp_path / name)
        assert RIGHT in said and WRONG not in said, name


def test_an_answer_of_several_lines_leaves_the_other_one_in_its_line(tmp_path: Path) -> None:
    long = "A dog\nand a cat, which sit beside each other on the red mat"
    told = Answered("Who\nis there?", ("dog",), long, "nobody\nelse", False)
    answer_panels([AnswerPanel(panel(), (told,))], tmp_path / "e")
    pair_sheet(
        [Pair(panel().image, "dog", long, "nobody\nelse", (True, False))],
        ("a", "b"),
        tmp_path / "f",
    )
    said = texts(tmp_path / "e")
    assert "reduced: nobody else" in said and "Who is there?" in said
    assert "2: nobody else" in texts(tmp_path / "f")


def test_a_flip_is_drawn_with_both_answers(tmp_path: Path) -> None:
    asked_so = "Is there a $5 spoon in the picture?\nAnswer the question using a single word."
    one = FlipPanel(
        panel(), asked_so, "yes", "corrected: false negative", ("No", "Yes"), True,
        (-1.25, float("nan")), (576, 1230),
    )  # fmt: skip
    flip_panels([one], ("LLaVA", "ASAP"), tmp_path / "a", "a random anchor")
    said = texts(tmp_path / "a")
    for part in (
        "Is there a $5 spoon in the picture? Answer the", "right: yes", "LLaVA, 576 visual rows:",
        "No  (yes − no: -1.25)", "ASAP, 1,230 visual rows:", "distance to a random anchor",
    ):  # fmt: skip
        assert part in said, part
    assert RIGHT in said and WRONG in said and "nan" not in said


class OfB(Session):
    """A session with the backbone b and a method to draw."""

    methods = (SimpleNamespace(explains=True, reduces=True),)  # type: ignore[assignment]
    task = Questions()  # type: ignore[assignment]
    spec = SimpleNamespace(backbone=SimpleNamespace(shown="b"))  # type: ignore[assignment]

    def __init__(self) -> None:
        pass


def test_pictures_of_a_table_of_two_models_pair_rows_of_the_drawn_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen = []
    monkeypatch.setattr(draw, "draw_questions", lambda _, rows, *more: seen.append(rows) or [])
    monkeypatch.setattr(draw, "picture_of_flips", lambda _, rows, *more: seen.append(rows))
    of_b = [row.with_records(accuracy={**row.measured, "backbone": "b"}) for row in ROWS]
    assert draw.draw_pictures(OfB(), [*ROWS, *of_b], 1, tmp_path, "two") == []
    assert seen == [of_b, of_b]


def test_a_picture_with_several_questions_is_drawn_once() -> None:
    samples = [Sample(i, i, "", cluster, None) for i, cluster in enumerate([4, 4, 2, 4, 7, 2])]
    assert [sample.index for sample in one_a_picture(samples)] == [0, 2, 4]


def test_rows_that_leave_as_much_are_shown_side_by_side() -> None:
    first = asked("asap", "ASAP, 14", {1}, 14.0, options={"max_tokens": 14})
    rows = [*ROWS, first, asked("tome", "ToMe, 7", {1}, 7.0), asked("tome", "ToMe", {1}, 14.0)]
    assert [row.label for row in at_equal_rows(rows)] == ["VisionZip", "ASAP, 14", "ToMe"]
    assert at_equal_rows(ROWS) == [] and at_equal_rows([first]) == []


def test_half_of_the_pictures_stop_by_the_middle_block() -> None:
    rng = np.random.default_rng(0)
    mass = np.cumsum(rng.uniform(0, 1, (101, 11)), axis=1) + 1
    mass[:, -1] = np.nan  # no stop in the last block
    tau = choose_vlm_points.chosen_tau(mass, 6)
    stops = 1 + np.argmax(np.nan_to_num(mass) > tau, axis=1)
    assert np.median(stops) == 6
    assert choose_vlm_points.chosen_tau(mass, 1) < choose_vlm_points.chosen_tau(mass, 2)


def test_the_first_of_equally_good_settings() -> None:
    assert choose_vlm_points.best({"a": 70.0, "b": 71.5, "c": 71.5}) == "b"


def test_the_number_of_clusters_that_leaves_the_papers_rows() -> None:
    assert choose_vlm_points.nearest({2: 120.0, 4: 200.0, 8: 260.0, 16: 261.0}, 230.0) == 4


def test_the_rows_of_a_picture_are_those_of_all_its_crops(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A LLaVA-NeXT whose five crops of 16 patches stay whole, or have at most 3 rows each."""
    spec = spec_of(
        made_llava_next(tmp_path_factory.mktemp("next")), tmp_path_factory.mktemp("results")
    )
    session = Session(spec)
    samples = choose_vlm_points.pictures(session.data)
    assert len(samples) == 2 < len(session.data) and samples[0].n_images == 5
    assert choose_vlm_points.mean_rows(session, samples, {"tau": 1e9}) == 5 * 16
    cut = choose_vlm_points.mean_rows(
        session, samples, choose_vlm_points.setting_of(1.01, 2) | {"max_tokens": 3}
    )
    assert 5 * 2 <= cut <= 5 * 3
