"""A few images under one row, as small pictures for a dashboard's table."""

from asap.core.order import best_class
from asap.data.base import Sample, evenly
from asap.engine.executor import ReducedViT
from asap.measure.session import Session
from asap.publish.pictures.panels import named, on_device, panel_of, pixels_of, readable
from asap.publish.pictures.side_by_side import model_of
from asap.report.example_table import Example, example_of
from asap.report.figures.treated import merged_view
from asap.report.result import Result


def examples_of(session: Session, row: Result, count: int) -> list[Example]:
    """`count` evenly spaced images under a recorded row.

    None for the dense baseline, nor for a row with its own weights, which the session lacks.
    """
    if row.is_dense or row.own_weights or count == 0:
        return []
    model = model_of(session, row)
    samples = readable(session, evenly(len(session.data), count))
    if model.method.explains:
        return [example_of(panel_of(session, model.method, sample)) for sample in samples]
    return [_left(session, model, sample) for sample in samples]


def _left(session: Session, model: ReducedViT, sample: Sample) -> Example:
    """An image after any method: merged patches in their mean colour, dropped ones dark."""
    logits, trace = model(on_device(session, sample)[None], [sample.id], return_trace=True)
    classes, pixels = session.data.classes, pixels_of(session, sample)
    kept = merged_view(pixels, session.preprocessing.patch_grid, trace.assignment[0].numpy())
    return Example(
        {"input": pixels, "kept tokens": kept},
        label=classes[sample.label],
        prediction=named(best_class(logits[0]), classes),
        stop_block=int(trace.stop_block[0]),
        sink=int(trace.sink[0]),
        tokens=int(trace.tokens[0, -1]),
    )
