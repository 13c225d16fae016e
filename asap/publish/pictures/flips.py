"""Pictures of yes/no questions that two rows answer differently, one of them right (Appendix K)."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from asap.data.base import Sample
from asap.measure.record_parts import describe
from asap.measure.session import Session
from asap.methods import Method
from asap.publish.pictures.panels import readable
from asap.publish.pictures.questions import compare_rows, panel_under, stages_of
from asap.report.answer_text import answer_text
from asap.report.figures.flip_panels import FlipPanel, flip_panels, said_with_gap
from asap.report.figures.image_panels import ImagePanel
from asap.report.figures.style import variant
from asap.report.figures.treated import draw_side_by_side
from asap.report.flips import CORRECTED, RULE, chosen, flips_of, in_words
from asap.report.manifest import Picture
from asap.report.result import Result

_ANCHORS = {"random": "a random anchor", "pca": "the PCA centre", "quiet": "the quiet anchor"}
_LETTERS = 24  # of an answer above a picture


def picture_of_flips(
    session: Session, results: Sequence[Result], method: Method, count: int, path: Path
) -> Picture | None:
    """`count` flips from the unreduced row to the row of a method of the session; None without."""
    full = next((r for r in results if r.is_dense and r.has_answers), None)
    row = next((r for r in results if r.has_answers and r.method == describe(method)), None)
    found = None if full is None or row is None else flips_of(full, row)
    if full is None or row is None or found is None or found.questions.empty:
        return None
    files = draw_flips(session, (full, row), chosen(found.questions, count), path)
    said = f"{in_words(found, full.label, row.label)} {RULE}"
    if "anyres" in session.preprocessing.identity:
        said += " Of a picture that is cut into crops the whole is shown."
    return Picture.of(files, "What was kept where a yes/no answer flips", said)


def draw_flips(
    session: Session, rows: tuple[Result, Result], flips: pd.DataFrame, path: Path
) -> list[Path]:
    """These flips (`Flips.questions`) from one row to another, whose backbone and data the session
    has: what the second row did to each picture, and both answers. Of a method that does not
    explain itself only what is left of the picture. The files, none if no picture can be read.
    """
    method, pruner = stages_of(session, rows[1])
    told = {flip["index"]: flip for flip in flips.to_dict("records")}
    samples = readable(session, list(told))
    if not samples:
        return []
    if not method.explains or pruner is not None:
        return _draw_kept(session, rows, [(one, told[one.index]) for one in samples], path)
    panels = [_panel(panel_under(session, method, one), told[one.index]) for one in samples]
    names = rows[0].label, rows[1].label
    return flip_panels(panels, names, path, _ANCHORS.get(variant(rows[1].method), "the sink"))


def _panel(panel: ImagePanel, flip: dict[Hashable, Any]) -> FlipPanel:
    return FlipPanel(
        panel, flip["question"], flip["answer"], _kind(flip),
        said=(flip["said_before"], flip["said_after"]),
        right=flip["flip"] == CORRECTED,
        gaps=(flip["gap_before"], flip["gap_after"]),
        rows=(flip["rows_before"], flip["rows_after"]),
    )  # fmt: skip


def _kind(flip: dict[Hashable, Any]) -> str:
    """Such as "corrected false negative"; one that the reduction made is new."""
    new = "" if flip["flip"] == CORRECTED else "new "
    return f"{flip['flip']}: {new}{flip['error']}"


def _draw_kept(
    session: Session,
    rows: tuple[Result, Result],
    told: Sequence[tuple[Sample, dict[Hashable, Any]]],
    path: Path,
) -> list[Path]:
    """What is left of the pictures under both rows, with the answers as recorded."""
    drawn = []
    for sample, flip in told:
        if (row := compare_rows(session, rows, sample)) is not None:
            right = flip["flip"] != CORRECTED, flip["flip"] == CORRECTED
            treated = tuple(
                replace(one, prediction=said_with_gap(flip[f"said_{when}"], flip[f"gap_{when}"]),
                        macs_pct=None, right=is_right)
                for one, when, is_right in zip(row.treated, ("before", "after"), right, strict=True)
            )  # fmt: skip
            label = f"right: {answer_text(flip['answer'], _LETTERS)}\n{_kind(flip)}"
            drawn.append(replace(row, label=label, treated=treated))
    return draw_side_by_side(drawn, path) if drawn else []
