"""Pictures of what a method does to a few clips of a run's data, frame by frame."""

from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from asap.core.order import best_class
from asap.data.base import Sample, evenly
from asap.measure.session import Session
from asap.methods import Method
from asap.publish.pictures.explain import explain
from asap.publish.pictures.panels import named, on_device, panel_of_explained, readable
from asap.report.figures.clip_panels import ClipPanel, clip_animation, frame_panels
from asap.report.manifest import Picture
from asap.tasks.video import Video

_STILL = 2  # clips in the panels; all are in the animation


def draw_clips(
    session: Session, method: Method, count: int, folder: Path, stem: str
) -> list[Picture | None]:
    """Panels and an animation of `count` evenly spaced clips under a method that `explains`."""
    samples = readable(session, evenly(len(session.data), count))
    panels = [clip_panel(session, method, sample) for sample in samples]
    if not panels:
        return []
    said = "Evenly spaced clips, not chosen by how they turn out; every frame is reduced by itself."
    return [
        Picture.of(
            frame_panels(panels[:_STILL], folder / f"{stem}-frames"),
            "What ASAP does to the frames of a clip",
            said,
        ),
        Picture.of(
            clip_animation(panels, folder / f"{stem}-clips"), "The same, frame after frame", said
        ),
    ]


def clip_panel(session: Session, method: Method, sample: Sample) -> ClipPanel:
    """The panels of the frames of a readable clip's first view, which the prediction is of."""
    frames = frames_of(sample)
    seen = [explain(session.backbone, method, on_device(session, f), f.id) for f in frames]
    prediction = prediction_of(session, sample, torch.stack([one.output for one in seen]))
    label = session.data.classes[sample.label]
    return tuple(
        panel_of_explained(session, one, frame, label, prediction)
        for frame, one in zip(frames, seen, strict=True)
    )


def prediction_of(session: Session, sample: Sample, outputs: Float[Tensor, "frames width"]) -> str:
    """The class that the run's head names for a clip's first view, from its frames' features."""
    task, inputs = session.task, sample.inputs
    assert isinstance(task, Video) and inputs is not None
    (logits,) = task.logits([replace(sample, inputs=inputs[: sample.frames])], outputs.cpu())
    return named(best_class(logits), session.data.classes)


def frames_of(sample: Sample) -> list[Sample]:
    """The frames of a clip's first view, each as an example with one image."""
    assert sample.inputs is not None
    ids = sample.image_ids
    return [
        replace(sample, id=ids[k], inputs=sample.inputs[k : k + 1], frames=1)
        for k in range(sample.frames)
    ]
