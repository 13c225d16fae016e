"""Pictures whose yes/no answer flips, with what a method did to them (the paper's Figure 9)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap

from asap.report.answer_text import answer_text
from asap.report.figures.image_panels import ImagePanel, Note, colours_of, scene_figure
from asap.report.figures.style import FAINT, INK, RIGHT, WRONG, save

_LETTERS, _OF_AN_ANSWER = 46, 24  # of a line, and of an answer in it
_LINES = 4  # of a question


@dataclass(frozen=True)
class FlipPanel:
    """A picture under the second of two rows, and the question whose answer flips.

    kind: such as "corrected false negative"; said: the answers of both rows; right: whether the
    second's is; gaps: of both, the logit of yes minus that of no, NaN if not known; rows: of
    both, the visual rows sent to the language model.
    """

    panel: ImagePanel
    question: str
    answer: str
    kind: str
    said: tuple[str, str]
    right: bool
    gaps: tuple[float, float]
    rows: tuple[int, int]


def flip_panels(
    panels: Sequence[FlipPanel], names: tuple[str, str], path: Path, anchor: str = "the sink"
) -> list[Path]:
    """One row a flip: input, map of the sink, distance to it, clusters, kept rows, both answers.

    names: what the two rows are called. Writes `path` with the suffixes .svg and .png and returns
    both. ValueError without a panel.
    """
    drawn = [one.panel for one in panels]
    notes = [_notes(one, names) for one in panels]
    return save(scene_figure(drawn, colours_of(drawn), anchor, notes), path)


def _notes(one: FlipPanel, names: tuple[str, str]) -> list[Note]:
    asked = wrap(answer_text(one.question), _LETTERS, max_lines=_LINES, placeholder=" …")
    lines = [(one.kind, RIGHT if one.right else WRONG), *((line, INK) for line in asked)]
    lines.append((f"right: {answer_text(one.answer, _OF_AN_ANSWER)}", INK))
    for i, is_right in enumerate((not one.right, one.right)):
        lines.append((f"{answer_text(names[i], _LETTERS)}, {one.rows[i]:,} visual rows:", FAINT))
        said = said_with_gap(one.said[i], one.gaps[i])
        lines.append((f"    {said}", RIGHT if is_right else WRONG))
    return lines


def said_with_gap(said: str, gap: float) -> str:
    """An answer with how far the logit of yes was above that of no."""
    known = "" if gap != gap else f"  (yes − no: {gap:+.2f})"
    return f"{answer_text(said, _OF_AN_ANSWER)}{known}"
