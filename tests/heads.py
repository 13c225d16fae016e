"""What tests of heads share: a tiny encoder, clips in memory, and their features on the disk."""

from pathlib import Path

import torch
from clip_vit import clip_vit
from fake_video import FakeVideo

from asap.backbones.frame_encoder import feature_width, frame_encoder
from asap.backbones.video_head import HeadConfig
from asap.engine.executor import ReducedViT
from asap.measure.heads.extraction import Extraction, features_of, shape_of
from asap.measure.heads.features import FeatureFile, Features
from asap.measure.joint_evaluation import Evaluation
from asap.methods import Dense
from asap.spec.run_spec import HeadSpec
from asap.tasks.video import Video

CLASSES = 3


def clips(count: int = 20, views: int = 2, **more) -> FakeVideo:
    classes = tuple(f"class {i}" for i in range(CLASSES))
    return FakeVideo(clips=count, frames=4, views=views, classes=classes, **more)


def encoder(reads: str = "class", patch: int = 16) -> ReducedViT:
    return ReducedViT(frame_encoder(clip_vit(patch=patch, depth=2), reads), Dense())


def extracted(
    root: Path, data: FakeVideo, kind: str = "fp16", reads: str = "class", batch: int = 3
) -> Features:
    """The features of clips below a folder, as a run makes them."""
    model = encoder(reads)
    shape = shape_of(data, feature_width(model.backbone), kind)
    identity = {"data": data.digest, "reads": reads, "type": kind}
    how = Evaluation(batch, 0, torch.device("cpu"), torch.float32, Video())

    file = FeatureFile(root, identity, shape)
    return features_of(file, lambda: Extraction(model, data, how, file))


def config_of(features: Features, spec: HeadSpec) -> HeadConfig:
    shape = features.shape
    return HeadConfig(
        spec.kind, spec.reads, shape.width, shape.frames, CLASSES, "digest", "tiny", "weights",
        features=shape.type, heads=spec.heads,
    )  # fmt: skip
