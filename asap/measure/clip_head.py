"""The head of a run on videos: what it has to be for, and the trained one from its file."""

from pathlib import Path

from torch import nn

from asap.backbones.frame_encoder import feature_width
from asap.backbones.preprocess import Preprocessing
from asap.backbones.video_head import (
    HeadConfig,
    class_digest,
    head_digest,
    head_macs,
    load_head,
    refuse_other,
)
from asap.data.base import DataSet, frames_per_view, images_per_example
from asap.measure.device import DTYPES
from asap.spec.run_spec import BackboneSpec, HeadSpec
from asap.tasks.video import FrameHead


def head_config(
    head: HeadSpec,
    encoder: nn.Module,
    backbone: BackboneSpec,
    weights: str,
    preprocessing: Preprocessing,
    data: DataSet,
) -> HeadConfig:
    """What a head must be for: this encoder of frames (weights: the digest of its backbone's
    tensors), these views and classes.
    """
    return HeadConfig(
        kind=head.kind,
        reads=head.reads,
        width=feature_width(encoder),
        frames=frames_per_view(data),
        classes=data.n_classes,
        class_digest=class_digest(data.classes),
        backbone=backbone.shown,
        weights=weights,
        preprocessing=preprocessing.identity,
        features=head.features,
        heads=head.heads,
    )


def frame_head(
    path: Path, wanted: HeadConfig, preprocessing: Preprocessing, data: DataSet
) -> FrameHead:
    """The head in a file. RequestError if it is damaged, or for something else than is wanted."""
    module, found = load_head(path)
    refuse_other(path, found, wanted)
    views = images_per_example(data) // found.frames
    return FrameHead(
        module,
        DTYPES[found.features],
        preprocessing.patch_grid,
        head_digest(module, found),
        views * head_macs(found),
    )
