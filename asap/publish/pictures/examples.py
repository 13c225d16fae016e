"""A few images, clips or questions under one row, as small pictures for a dashboard's table."""

from dataclasses import replace

import torch
from torch import Tensor

from asap.core.order import best_class
from asap.data.base import Sample, evenly
from asap.engine.executor import ReducedViT
from asap.measure.session import Session
from asap.publish.pictures.clips import clip_panel, frames_of, prediction_of
from asap.publish.pictures.panels import named, on_device, panel_of, pixels_of, readable
from asap.publish.pictures.questions import question_example
from asap.publish.pictures.side_by_side import model_of
from asap.report.example_table import Example, example_of, example_of_clip
from asap.report.figures.treated import merged_view
from asap.report.result import Result
from asap.tasks.questions import Questions
from asap.tasks.video import Video


def examples_of(session: Session, row: Result, count: int) -> list[Example]:
    """`count` evenly spaced images, clips or questions under a recorded row.

    None for the dense baseline, nor for a row with its own weights, which the session lacks.
    """
    if row.is_dense or row.own_weights or count == 0:
        return []
    samples = readable(session, evenly(len(session.data), count))
    if isinstance(session.task, Questions):
        found = [question_example(session, row, sample) for sample in samples]
        return [one for one in found if one is not None]
    model = model_of(session, row)
    if isinstance(session.task, Video):
        return [_clip(session, model, sample) for sample in samples]
    if model.method.explains:
        return [example_of(panel_of(session, model.method, sample)) for sample in samples]
    return [_image(session, model, sample) for sample in samples]


def _image(session: Session, model: ReducedViT, sample: Sample) -> Example:
    example, output = _left(session, model, sample)
    return replace(example, prediction=named(best_class(output), session.data.classes))


def _clip(session: Session, model: ReducedViT, sample: Sample) -> Example:
    """Frame by frame, as of an image."""
    if model.method.explains:
        return example_of_clip([example_of(p) for p in clip_panel(session, model.method, sample)])
    examples, outputs = zip(*(_left(session, model, f) for f in frames_of(sample)), strict=True)
    prediction = prediction_of(session, sample, torch.stack(outputs))
    return replace(example_of_clip(examples), prediction=prediction)


def _left(session: Session, model: ReducedViT, sample: Sample) -> tuple[Example, Tensor]:
    """An image after any method: merged patches in their mean colour, dropped ones dark; without
    its prediction, but with the backbone's output.
    """
    logits, trace = model(on_device(session, sample)[None], [sample.id], return_trace=True)
    pixels = pixels_of(session, sample)
    kept = merged_view(pixels, session.preprocessing.patch_grid, trace.assignment[0].numpy())
    example = Example(
        {"input": pixels, "kept tokens": kept},
        label=session.data.classes[sample.label],
        prediction="",
        stop_block=int(trace.stop_block[0]),
        sink=int(trace.sink[0]),
        tokens=int(trace.tokens[0, -1]),
    )
    return example, logits[0]
