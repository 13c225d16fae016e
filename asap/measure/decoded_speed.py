"""How many clips a second come from the files to their features: what a user waits for."""

import time

import torch

from asap.data.base import DataSet, evenly, images_per_example
from asap.data.loading import loader
from asap.engine.executor import ReducedViT
from asap.measure.joint_evaluation import Evaluation, halving
from asap.records.schema import ClipSpeeds

FEW = 16  # clips of a demonstration


def clip_speeds(
    model: ReducedViT, data: DataSet, how: Evaluation, frames: int, short: bool
) -> ClipSpeeds:
    """One pass over clips worth `frames` images, by wall time, with the run's batches and workers.

    Reading, decoding, resizing, the copy to the device, the backbone, and the start of the workers;
    not the head. Files may be in the system's cache. Clips that cannot be read count as decoded.
    """
    images = images_per_example(data)
    chosen = evenly(len(data), min(max(1, frames // images), FEW if short else len(data)))
    started = time.monotonic()
    with torch.inference_mode():
        for samples in loader(data, chosen, how.batch_size, how.workers):
            readable = [s for s in samples if s.inputs is not None]
            for _ in halving(lambda batch, ids: model(batch, ids).cpu(), readable, how):
                pass
    speed = len(chosen) / (time.monotonic() - started)
    return ClipSpeeds(
        images=images, per_s_with_decoding=speed, decoded=len(chosen), workers=how.workers
    )
