"""What ASAP did to pictures, beside what was asked about them and answered, in full and reduced."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from asap.report.answer_text import answer_text
from asap.report.figures.image_panels import ImagePanel, Note, colours_of, scene_figure
from asap.report.figures.style import INK, RIGHT, WRONG, save

_MOST = 8  # questions beside a picture
_LETTERS, _OF_AN_ANSWER = 56, 17  # of a line, and of an answer in it


@dataclass(frozen=True)
class Answered:
    """A question, its right answers, and what the unreduced and the reduced model answered.

    right: whether the reduced model's answer has the full score.
    """

    question: str
    answers: tuple[str, ...]
    full: str
    reduced: str
    right: bool


@dataclass(frozen=True)
class AnswerPanel:
    """A picture under a method, and questions about it."""

    panel: ImagePanel
    asked: tuple[Answered, ...]


def answer_panels(panels: Sequence[AnswerPanel], path: Path) -> list[Path]:
    """One row a picture: input, map of the sink, distance to it, clusters, kept rows, questions.

    Writes `path` with the suffixes .svg and .png and returns both. ValueError without a picture.
    """
    drawn = [one.panel for one in panels]
    notes = [_notes(one.asked) for one in panels]
    return save(scene_figure(drawn, colours_of(drawn), notes=notes), path)


def _notes(asked: Sequence[Answered]) -> list[Note]:
    """Two lines a question: what was asked, with the right answer; the two answers."""
    lines: list[Note] = []
    for one in asked[:_MOST]:
        right = " | ".join(one.answers)
        lines.append((answer_text(f"{one.question}  {right}", _LETTERS), INK))
        full, reduced = (answer_text(said, _OF_AN_ANSWER) for said in (one.full, one.reduced))
        said = f"    full: {full}     reduced: {reduced}"
        lines.append((said, RIGHT if one.right else WRONG))
    if len(asked) > _MOST:
        lines.append((f"and {len(asked) - _MOST} more", INK))
    return lines
