"""Pictures of what ASAP does to a few images of a run's data."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from asap.data.base import Sample
from asap.engine.explain import explain
from asap.measure.pictures import to_bytes
from asap.methods import Asap
from asap.report.figures import Panel, scene_panels
from asap.session import Session


def draw_scenes(session: Session, count: int, path: Path) -> list[Path]:
    """`count` evenly spaced images under the run's first reducing ASAP row; the files written.

    None are written if there is no such row. Images are not chosen by how they turn out.
    """
    method = next((m for m in session.methods if isinstance(m, Asap) and m.reduces), None)
    if method is None:
        return []
    data = session.data
    positions = [(2 * i + 1) * len(data) // (2 * count) for i in range(count)]
    samples = [data[i] for i in dict.fromkeys(positions)]
    panels = [_panel(session, method, s, s.image) for s in samples if s.image is not None]
    return scene_panels(panels, path) if panels else []


def _panel(session: Session, method: Asap, sample: Sample, image: Tensor) -> Panel:
    weight = next(session.backbone.parameters())
    seen = explain(session.backbone, method, image.to(weight.device, weight.dtype), sample.id)
    classes, pre = session.data.classes, session.preprocessing
    pixels = to_bytes(image, pre.identity["mean"], pre.identity["std"])
    return Panel(
        image=pixels.permute(1, 2, 0).numpy(),
        label=classes[sample.label],
        prediction=classes[seen.prediction],
        grid=pre.patch_grid,
        sink=int(seen.trace.sink[0]),
        mass=_array(seen.class_row),
        distance=_array(seen.distance),
        cluster=_array(seen.cluster),
        kept=_array(seen.kept),
        stop_block=int(seen.trace.stop_block[0]),
        tokens=int(seen.trace.tokens[0, -1]),
    )


def _array(values: Tensor) -> np.ndarray:
    return values.to(torch.float64).numpy() if values.is_floating_point() else values.numpy()
