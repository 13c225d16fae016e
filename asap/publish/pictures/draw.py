"""All pictures of a run: their images, how they are drawn, and their captions."""

from collections.abc import Sequence
from pathlib import Path

from asap.data.base import evenly
from asap.measure.session import Session
from asap.publish.pictures.clips import draw_clips
from asap.publish.pictures.flips import picture_of_flips
from asap.publish.pictures.panels import draw_panels, draw_sink_dynamics
from asap.publish.pictures.questions import draw_questions
from asap.publish.pictures.side_by_side import draw_compared, model_of
from asap.report.figures.cases import RULE, anchor_cases
from asap.report.figures.style import variant
from asap.report.manifest import Picture
from asap.report.result import Result
from asap.tasks.questions import Questions
from asap.tasks.video import Video

_WALKS = 4  # walks over all blocks for each image with panels: cheap, and a mean needs several


def draw_pictures(
    session: Session, results: Sequence[Result], count: int, folder: Path, stem: str
) -> list[Picture]:
    """Draw panels, methods side by side, the walk and a random anchor's cases, if rows allow it.

    Panels show `count` evenly spaced images under the first reducing method that `explains`; of
    clips there are panels frame by frame and an animation, of questions their answers too.
    """
    method = next((m for m in session.methods if m.explains and m.reduces), None)
    if method is None or count == 0:
        return []
    if isinstance(session.task, Video):
        drawn = draw_clips(session, method, count, folder, stem)
        return [picture for picture in drawn if picture is not None]
    if isinstance(session.task, Questions):
        own = [row for row in results if row.backbone == session.spec.backbone.shown]
        drawn = draw_questions(session, own, method, count, folder, stem)
        drawn.append(picture_of_flips(session, own, method, count, folder / f"{stem}-flips"))
        return [picture for picture in drawn if picture is not None]
    chosen = evenly(len(session.data), count)
    many = evenly(len(session.data), _WALKS * count)
    found = [
        Picture.of(
            draw_panels(session, method, chosen, folder / f"{stem}-scenes"),
            "What ASAP does to an image",
            "Evenly spaced images, not chosen by how they turn out.",
        ),
        Picture.of(
            draw_compared(session, results, chosen, folder / f"{stem}-side-by-side"),
            "The same images under every method near the same MACs",
            "Rows whose mean MACs are within 5 points of the first ASAP row's.",
        ),
        Picture.of(
            draw_sink_dynamics(session, method, many, folder / f"{stem}-walk"),
            "The walk without a stop",
            f"P of the first image, and the largest column mass of {len(many)} evenly spaced ones.",
        ),
        *_anchor_pictures(session, results, count, folder, stem),
    ]
    return [picture for picture in found if picture is not None]


def _anchor_pictures(
    session: Session, results: Sequence[Result], count: int, folder: Path, stem: str
) -> list[Picture | None]:
    """The failures and lucky cases of a random anchor, compared with the row with the sink."""
    random = _first(results, "random")
    sink = _first(results, "asap")
    if random is None or sink is None:
        return []
    cases = anchor_cases(random.answers(), sink.answers(), random.traces(), count)
    method = model_of(session, random).method
    found = []
    for name, positions in (("failures", cases.failures), ("lucky", cases.lucky)):
        path = folder / f"{stem}-random-anchor-{name}"
        files = draw_panels(session, method, positions, path, "a random anchor")
        found.append(
            Picture.of(files, f"Random anchor: {name.replace('lucky', 'lucky cases')}", RULE)
        )
    return found


def _first(results: Sequence[Result], name: str) -> Result | None:
    rows = (row for row in results if row.has_answers and not row.ours)
    return next((row for row in rows if variant(row.method) == name), None)
