"""Pictures of what a method does to a few images of a run, and of the walk over all blocks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from asap.core.order import best_class
from asap.data.base import Sample
from asap.engine.executor import ReducedViT
from asap.measure.session import Session
from asap.measure.timed_images import to_bytes
from asap.methods import Method
from asap.publish.pictures.explain import Explanation, explain, walk_per_block
from asap.report.figures import ImagePanel, scene_panels
from asap.report.figures.walks import WalkPicture, draw_walk, largest_mass, selected_blocks

NOT_FINITE = "(not finite)"


def readable(session: Session, positions: Sequence[int]) -> list[Sample]:
    """The samples at these positions, without those that cannot be read."""
    samples = [session.data[i] for i in positions]
    return [sample for sample in samples if sample.inputs is not None]


def draw_panels(
    session: Session, method: Method, positions: Sequence[int], path: Path, anchor: str = "the sink"
) -> list[Path]:
    """The images at `positions` under `method`; the files written, none without an image."""
    panels = [panel_of(session, method, sample) for sample in readable(session, positions)]
    return scene_panels(panels, path, anchor) if panels else []


def panel_of(session: Session, method: Method, sample: Sample) -> ImagePanel:
    """The panels of one readable image of the run's data under the method."""
    classes = session.data.classes
    return explained(session, method, sample, classes[sample.label], classes)


def explained(
    session: Session, method: Method, sample: Sample, label: str, classes: Sequence[str]
) -> ImagePanel:
    """The panels of one image under the method; `label`: "" if it has none."""
    seen = explain(session.backbone, method, on_device(session, sample), sample.id)
    prediction = named(best_class(seen.output), classes)
    return panel_of_explained(session, seen, sample, label, prediction)


def panel_of_explained(
    session: Session, seen: Explanation, sample: Sample, label: str, prediction: str
) -> ImagePanel:
    """The panels of one image from what is known of it."""
    return ImagePanel(
        image=pixels_of(session, sample),
        label=label,
        prediction=prediction,
        grid=session.preprocessing.patch_grid,
        sink=int(seen.trace.sink[0]),
        mass=_array(seen.class_row),
        distance=_array(seen.distance),
        cluster=_array(seen.cluster),
        kept=_array(seen.kept),
        stop_block=int(seen.trace.stop_block[0]),
        tokens=int(seen.trace.tokens[0, -1]),
    )


def named(prediction: int | None, classes: Sequence[str]) -> str:
    """The name of the predicted class in pictures; None: the answer is not finite."""
    return NOT_FINITE if prediction is None else classes[prediction]


def on_device(session: Session, sample: Sample) -> Tensor:
    """The image, or the whole picture of one cut into crops, as `images_on_device`."""
    return images_on_device(session, sample)[0]


def images_on_device(session: Session, sample: Sample) -> Tensor:
    """The images of a readable sample, (images, 3, h, w), on the session's device, in its
    precision.
    """
    assert sample.inputs is not None
    weight = next(session.backbone.parameters())
    return sample.inputs.to(weight.device, weight.dtype)


def pixels_of(session: Session, sample: Sample) -> np.ndarray:
    """The image, of a picture cut into crops the whole of it, as it was before it was normalised,
    (H, W, 3) uint8.
    """
    pre = session.preprocessing.identity
    return to_bytes(sample.whole, pre["mean"], pre["std"]).permute(1, 2, 0).numpy()


def draw_sink_dynamics(
    session: Session, method: Method, positions: Sequence[int], path: Path
) -> list[Path]:
    """Draw P of the first readable image after four blocks, and all images' largest column mass.

    Returns the files, none for a method without a threshold.
    """
    samples, threshold = readable(session, positions), method.stop_threshold
    if not samples or threshold is None:
        return []
    prefix, walks = ReducedViT(session.backbone, method).adapter.anatomy.prefix, []
    mass = []
    for sample in samples:
        walk = walk_per_block(session.backbone, method, on_device(session, sample), sample.id)
        walks = walks or [walk.double().cpu().numpy()]
        mass.append(largest_mass(walk.double().cpu().numpy(), prefix))
    blocks = selected_blocks(len(walks[0]))
    tau = getattr(method, threshold.option)
    shown = walks[0][[block - 1 for block in blocks]]
    return draw_walk(WalkPicture(blocks, shown, np.array(mass), tau, prefix), path)


def _array(values: Tensor) -> np.ndarray:
    values = values.cpu()
    return values.double().numpy() if values.is_floating_point() else values.numpy()
