"""Several methods on the same images at equal MACs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from asap.core.macs import backbone_macs
from asap.core.order import best_class
from asap.data.base import Sample
from asap.engine.executor import ReducedViT
from asap.measure.record_parts import describe, method_of_record
from asap.measure.session import Session
from asap.publish.pictures.panels import named, on_device, pixels_of, readable
from asap.report.figures.treated import SideBySide, Treated, at_equal_macs, draw_side_by_side
from asap.report.result import Result


def draw_compared(
    session: Session, results: Sequence[Result], positions: Sequence[int], path: Path
) -> list[Path]:
    """Draw each image under the rows near the MACs of the first ASAP row.

    Returns the files, none if there are less than two rows. A row with its own weights is left out,
    since the session has the weights of the others.
    """
    rows = [row for row in at_equal_macs(results) if not row.own_weights]
    models = [(row.label, model_of(session, row)) for row in (rows if len(rows) > 1 else [])]
    samples = readable(session, positions)
    if not models or not samples:
        return []
    return draw_side_by_side([_compare(session, models, sample) for sample in samples], path)


def model_of(session: Session, row: Result) -> ReducedViT:
    """The model that made a row: with the session's method if it is there, since a record has the
    digest of a method's file and not its path; else with the method rebuilt from the record.
    """
    own = next((m for m in session.methods if describe(m) == row.method), None)
    if own is not None:
        return session.model(own)
    return session.model(method_of_record(row.method))


def _compare(
    session: Session, models: Sequence[tuple[str, ReducedViT]], sample: Sample
) -> SideBySide:
    image, classes = on_device(session, sample), session.data.classes
    treated = tuple(
        _treat(model, label, image, sample.id, classes) for label, model in models
    )  # fmt: skip
    grid = session.preprocessing.patch_grid
    return SideBySide(pixels_of(session, sample), classes[sample.label], grid, treated)


def _treat(
    model: ReducedViT, label: str, image: torch.Tensor, image_id: int, classes: Sequence[str]
) -> Treated:
    logits, trace = model(image[None], [image_id], return_trace=True)
    anatomy = model.adapter.anatomy
    tokens = np.full((1, anatomy.depth + 1), anatomy.prefix + anatomy.patches)
    dense = int(backbone_macs(model.adapter.cost, tokens, model.method.position)[0])
    spent = int(trace.macs[0])
    prediction = named(best_class(logits[0]), classes)
    return Treated(label, prediction, 100 * (spent / dense - 1), trace.assignment[0].numpy())
