"""P and its column mass over all blocks of a run's backbone."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from asap.engine.executor import ReducedViT
from asap.measure.session import Session
from asap.methods import Method
from asap.publish.pictures.explain import walk_per_block
from asap.publish.pictures.panels import on_device, readable
from asap.report.figures.walks import WalkPicture, draw_walk, largest_mass, selected_blocks


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
