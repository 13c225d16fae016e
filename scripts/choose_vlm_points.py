"""Choose tau and K of ASAP before a language model, without labels, by the paper's words.

    python scripts/choose_vlm_points.py experiment=demo_vlm data.split=calibration
    python scripts/choose_vlm_points.py experiment=llava15 model=FOLDER data.path=FILE

On LLaVA-1.5 the sink emerges "typically" in layers 11 to 13 of 24, and pooling without a budget
keeps 230 of 576 rows. So tau is the threshold by which half of the pictures have stopped in block
12 of the 23 that are run, in other towers in the block at that share of the depth: midway between
the median over pictures of the largest column mass up to that block and of that up to the block
before. K is the number of clusters with which pooling leaves the mean number of rows that is
nearest to that share of the patches; of two equally near ones the smaller. The pictures are those
of the run's data, each once: choose some that no benchmark has. Prints both, and the rows for
every K.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from asap.cli.command import command, one_by_one
from asap.cli.console import set_up_logging
from asap.data.base import DataSet, Sample
from asap.engine.executor import ReducedViT
from asap.engine.trace import Trace
from asap.experiment.job import Job
from asap.measure.session import Session
from asap.methods import Asap
from asap.publish.pictures.panels import on_device
from asap.spec.run_spec import RunSpec

STOP, DEPTH, ROWS, PATCHES = 12, 23, 230, 576  # of LLaVA-1.5, in the paper
CLUSTERS = range(2, 25)


def pictures(data: DataSet) -> list[Sample]:
    """One sample of each picture that can be read."""
    found: dict[int, Sample] = {}
    for i in range(len(data)):
        sample = data[i]
        if sample.inputs is not None:
            found.setdefault(sample.cluster, sample)
    return list(found.values())


def traces(session: Session, method: Asap, samples: Sequence[Sample]) -> list[Trace]:
    """The trace of each picture."""
    model = ReducedViT(session.backbone, method, backend=session.backend())
    return [
        model(on_device(session, one)[None], one.image_ids, return_trace=True)[1] for one in samples
    ]


def chosen_tau(mass: np.ndarray, stop: int) -> float:
    """tau by the masses (pictures, blocks) of pictures that never stop; `stop`: a block from 1."""
    largest = np.maximum.accumulate(np.nan_to_num(mass), axis=1)
    before = float(np.median(largest[:, stop - 2])) if stop > 1 else 0.0
    return round((before + float(np.median(largest[:, stop - 1]))) / 2, 3)


def nearest(rows: dict[int, float], wanted: float) -> int:
    """The K whose rows are nearest to `wanted`; of equally near ones the smallest."""
    return min(rows, key=lambda k: (abs(rows[k] - wanted), k))


@torch.no_grad()
def choose(spec: RunSpec, job: Job) -> None:
    session = Session(spec)
    samples = pictures(session.data)
    wide = Asap(tau=1e9)
    anatomy = ReducedViT(session.backbone, wide).adapter.anatomy
    depth = anatomy.depth
    stop = math.ceil(depth * STOP / DEPTH)
    wanted = anatomy.patches * ROWS / PATCHES
    mass = np.stack([t.mass[0].numpy() for t in traces(session, wide, samples)])
    tau = chosen_tau(mass, stop)
    print(f"{len(mass)} pictures, block {stop} of {depth}: tau = {tau:g}")
    stops = 1 + np.argmax(np.nan_to_num(mass) > tau, axis=1)
    forced = ~(np.nan_to_num(mass) > tau).any(1)
    print(f"median stop: block {np.median(stops[~forced]):g}; forced: {forced.mean():.1%}")
    rows = {}
    for k in CLUSTERS:
        found = traces(session, replace(wide, tau=tau, clusters=k, miss="force"), samples)
        rows[k] = float(np.mean([int(t.tokens[0, -1]) - anatomy.prefix for t in found]))
        print(f"K = {k}: {rows[k]:.2f} rows")
    print(f"K = {nearest(rows, wanted)}, for {wanted:.1f} rows")


if __name__ == "__main__":
    set_up_logging()
    command(one_by_one(choose), __doc__)
