"""Pictures of what a run's rows do to a few pictures, and of what they answer about them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from asap.data.base import Sample, evenly
from asap.measure.record_parts import describe, pruner_of_record
from asap.measure.session import Session
from asap.methods import Method
from asap.methods.language.base import Pruner
from asap.publish.pictures.asked import asked
from asap.publish.pictures.explain import explain
from asap.publish.pictures.panels import (
    draw_sink_dynamics,
    on_device,
    panel_of_explained,
    pixels_of,
    readable,
)
from asap.publish.pictures.side_by_side import model_of
from asap.records.identity import LANGUAGE
from asap.report.answer_text import answer_text, right_ones
from asap.report.example_table import Example, example_of
from asap.report.figures.answer_panels import Answered, AnswerPanel, answer_panels
from asap.report.figures.image_panels import ImagePanel
from asap.report.figures.treated import (
    SideBySide,
    Treated,
    at_equal_rows,
    draw_side_by_side,
    merged_view,
)
from asap.report.manifest import Picture
from asap.report.result import Result
from asap.tasks.questions import CannotAnswer
from asap.tasks.scoring.rules import RULES

_LETTERS = 34  # of an answer above a picture
_WALKS = 4  # walks over all blocks for each picture with panels
_STRIDE = 3  # questions from the one shown with a picture to the one shown with the next


def draw_questions(
    session: Session, results: Sequence[Result], method: Method, count: int, folder: Path, stem: str
) -> list[Picture | None]:
    """Panels of `count` evenly spaced pictures under a method that `explains`, with the answers of
    its row and of the unreduced one; the same pictures under the rows that leave as much; the walk.
    """
    chosen = evenly(len(session.data), count)
    many = evenly(len(session.data), _WALKS * count)
    said = "Evenly spaced pictures, not chosen by how they turn out."
    return [
        Picture.of(
            _draw_panels(session, results, method, chosen, folder / f"{stem}-answers"),
            "What ASAP does to a picture, and what is answered about it",
            f"{said} Green: the reduced model answers right.",
        ),
        Picture.of(
            _draw_compared(session, results, chosen, folder / f"{stem}-side-by-side"),
            "The same pictures under the rows that leave about as much of them",
            "Rows with about as many rows in the last layer of the language model as the first "
            "ASAP row with a budget. Shown is what is left there.",
        ),
        Picture.of(
            draw_sink_dynamics(session, method, many, folder / f"{stem}-walk"),
            "The walk without a stop",
            f"P of the first picture, and the largest column mass of {len(many)} evenly spaced "
            "ones.",
        ),
    ]


def one_a_picture(samples: Sequence[Sample]) -> list[Sample]:
    """The first of the samples about each picture, in their order."""
    found: dict[int, Sample] = {}
    for sample in samples:
        found.setdefault(sample.cluster, sample)
    return list(found.values())


def _draw_panels(
    session: Session,
    results: Sequence[Result],
    method: Method,
    positions: Sequence[int],
    path: Path,
) -> list[Path]:
    """None where the row of the method or the unreduced one has no answers."""
    full = next((r for r in results if r.is_dense and r.has_answers), None)
    row = next((r for r in results if r.has_answers and r.method == describe(method)), None)
    if full is None or row is None:
        return []
    before, after = (one.answers() for one in (full, row))
    panels = [
        AnswerPanel(panel_under(session, method, sample), _answered(before, after, sample))
        for sample in one_a_picture(readable(session, positions))
    ]
    return answer_panels(panels, path) if panels else []


def panel_under(session: Session, method: Method, sample: Sample) -> ImagePanel:
    """The panels of a readable sample's picture under a method that `explains`, without answers."""
    seen = explain(session.backbone, method, on_device(session, sample), sample.image_ids[0])
    return panel_of_explained(session, seen, sample, "", "")


def _answered(before: pd.DataFrame, after: pd.DataFrame, sample: Sample) -> tuple[Answered, ...]:
    """All questions about a sample's picture, from the answers of two rows."""
    pairs = before.merge(after[["id", "text", "score", "error"]], on="id", suffixes=("", "_after"))
    readable = pairs["error"].isna() & pairs["error_after"].isna()
    about = pairs[readable & (pairs["cluster"] == sample.cluster)]
    return tuple(
        Answered(
            row["question"], right_ones(row["kind"], list(row["answers"])), row["text"],
            row["text_after"],
            row["score_after"] == 1,
        )
        for row in about.to_dict("records")
    )  # fmt: skip


def _draw_compared(
    session: Session, results: Sequence[Result], positions: Sequence[int], path: Path
) -> list[Path]:
    rows = at_equal_rows([r for r in results if r.has_answers])
    full = next((r for r in results if r.is_dense and r.has_answers), None)
    samples = one_a_picture(readable(session, positions))
    if full is None or not rows or not samples:
        return []
    samples = [_in_turn(session, full.answers(), one, i) for i, one in enumerate(samples)]
    compared = [compare_rows(session, [full, *rows], one) for one in samples]
    shown = [one for one in compared if one is not None]
    return draw_side_by_side(shown, path) if shown else []


def _in_turn(session: Session, answers: pd.DataFrame, sample: Sample, turn: int) -> Sample:
    """A question about the sample's picture, for each picture from another place in their order."""
    about = answers.loc[answers["cluster"] == sample.cluster, "index"].tolist()
    return session.data[about[_STRIDE * turn % len(about)]]


def compare_rows(session: Session, rows: Sequence[Result], sample: Sample) -> SideBySide | None:
    """A sample under rows, of which the first is the unreduced one; None if one cannot answer."""
    try:
        told = [asked(session, *stages_of(session, row), sample) for row in rows]
    except CannotAnswer:
        return None
    rule = RULES[sample.extras["kind"]]
    treated = (
        Treated(
            row.label, answer_text(one.answer.text, _LETTERS),
            100 * (one.macs / told[0].macs - 1), one.left.numpy(),
            one.answer.finite and rule(one.answer.text, sample.target) == 1,
        )
        for row, one in zip(rows, told, strict=True)
    )  # fmt: skip
    right = answer_text(" | ".join(sample.target), _LETTERS)
    question = answer_text(sample.extras["question"], 3 * _LETTERS)
    grid = session.preprocessing.patch_grid
    return SideBySide(pixels_of(session, sample), right, grid, tuple(treated), question)


def stages_of(session: Session, row: Result) -> tuple[Method, Pruner | None]:
    """The methods of a row's two stages."""
    language = row.method_in(LANGUAGE)
    pruner = None if language is None else pruner_of_record(language)
    return model_of(session, row).method, pruner


def question_example(session: Session, row: Result, sample: Sample) -> Example | None:
    """A picture under a row and one question about it, for a dashboard; merged patches have their
    mean colour, those that are not left in the last layer are dark. None if it has no answer.
    """
    method, pruner = stages_of(session, row)
    try:
        told = asked(session, method, pruner, sample)
    except CannotAnswer:
        return None
    label = f"{sample.extras['question']} {' | '.join(sample.target)}"
    if method.explains and pruner is None:
        panel = panel_under(session, method, sample)
        return replace(example_of(panel), label=label, prediction=told.answer.text)
    pixels = pixels_of(session, sample)
    left = merged_view(pixels, session.preprocessing.patch_grid, told.left.numpy())
    return Example(
        {"input": pixels, "kept rows": left},
        label=label,
        prediction=told.answer.text,
        stop_block=int(told.trace.stop_block[0]),
        sink=int(told.trace.sink[0]),
        tokens=told.answer.visual_rows,
    )
