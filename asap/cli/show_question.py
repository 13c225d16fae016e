"""A question about a picture of one's own, answered by the full model and by the reduced one."""

import logging
from dataclasses import replace
from pathlib import Path

from asap.data.base import Sample
from asap.errors import RequestError
from asap.measure.session import Session
from asap.methods import Method
from asap.publish.pictures.asked import Asked, asked
from asap.publish.pictures.explain import explain
from asap.publish.pictures.panels import on_device, panel_of_explained, pixels_of
from asap.report.answer_text import answer_text
from asap.report.figures import scene_panels
from asap.report.figures.treated import SideBySide, Treated, draw_side_by_side
from asap.spec.run_spec import MethodSpec
from asap.tasks.questions import CannotAnswer

log = logging.getLogger("asap")
LONGEST = 128  # tokens of an answer, where the run gives no limit
_LETTERS = 34  # of a question or an answer in a picture


def about(sample: Sample, question: str | None) -> Sample:
    """The picture with the question. RequestError without one."""
    if question is None or not question.strip():
        raise RequestError('question is missing: give question="Is there a dog in the picture?"')
    asked = {"question": question, "max_new_tokens": LONGEST}
    return replace(sample, extras={**sample.extras, **asked})


def show_answers(session: Session, sample: Sample, path: Path) -> list[Path]:
    """Print each row's answer and cost, and draw what it left of the picture; the files."""
    found = [_ask(session, i, sample) for i in range(len(session.methods))]
    pairs = zip(session.spec.rows, found, strict=True)
    full = next((one.macs for row, one in pairs if _full(row)), None)
    for row, one in zip(session.spec.rows, found, strict=True):
        log.info("%s: %s", row.label, _said(one))
        for line in _facts(one, full):
            log.info("  %s", line)
    files = draw_side_by_side([_side_by_side(session, sample, found, full)], path)
    for method, one in zip(session.methods, found, strict=True):
        if method.explains and method.reduces:
            panels = _panels(session, method, sample, one, path.with_name(f"{path.name}-sink"))
            return [*files, *panels]
    return files


def _ask(session: Session, row: int, sample: Sample) -> Asked:
    """The answer of a row. RequestError if it has none, as for a question that is too long."""
    try:
        return asked(session, session.methods[row], session.pruners[row], sample)
    except CannotAnswer as error:
        raise RequestError(f"{session.spec.rows[row].label} cannot answer: {error}") from None


def _full(row: MethodSpec) -> bool:
    """Whether a row reduces nothing."""
    return row.name == "dense" and row.pruner is None


def _against(one: Asked, full: int | None) -> float | None:
    """MACs against the full model's in %; None if no row is the full model."""
    return None if full is None else 100 * (one.macs / full - 1)


def _said(one: Asked) -> str:
    if not one.answer.finite:
        return "the answer is not finite: use precision=fp32 or bf16"
    cut = " ... (cut: answer.max_new_tokens)" if one.answer.cut else ""
    return answer_text(one.answer.text) + cut


def _facts(one: Asked, full: int | None) -> list[str]:
    answer, trace = one.answer, one.trace
    tower, language = int(trace.macs.sum()), answer.macs_backbone + answer.macs_method
    against = _against(one, full)
    cost = "" if against is None else f" ({against:+.1f} %)"
    lines = [
        f"{answer.visual_rows} visual rows, {answer.prompt_rows} of text; into the layers of the "
        f"language model: {' '.join(map(str, answer.tokens))}",
        f"{one.macs / 1e9:.4g} GMACs{cost}: tower "
        f"{tower / 1e9:.4g}, language model {language / 1e9:.4g}",
    ]
    stops, sinks = trace.stop_block.tolist(), trace.sink.tolist()
    if len(stops) > 1 and any(stops):
        sunk = f", sinks: patches {_listed(sinks)}" if max(sinks) >= 0 else ""
        lines += [f"picture, then crops: first reduced in blocks {_listed(stops)}{sunk}"]
    elif stops[0]:
        sunk = f", sink: patch {sinks[0]}" if sinks[0] >= 0 else ""
        lines += [f"first reduced in block {stops[0]}{sunk}"]
    return lines


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers))


def _side_by_side(
    session: Session, sample: Sample, found: list[Asked], full: int | None
) -> SideBySide:
    treated = tuple(
        Treated(
            row.label,
            answer_text(_said(one), _LETTERS),
            _against(one, full),
            one.left.numpy(),
        )
        for row, one in zip(session.spec.rows, found, strict=True)
    )
    caption = answer_text(sample.extras["question"], _LETTERS)
    grid = session.preprocessing.patch_grid
    return SideBySide(pixels_of(session, sample), "", grid, treated, caption)


def _panels(session: Session, method: Method, sample: Sample, one: Asked, path: Path) -> list[Path]:
    """The sink, the distances to it and the clusters of the picture."""
    seen = explain(session.backbone, method, on_device(session, sample), sample.image_ids[0])
    said = answer_text(_said(one), _LETTERS)
    return scene_panels([panel_of_explained(session, seen, sample, "", said)], path)
