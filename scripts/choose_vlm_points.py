"""Choose tau and K of ASAP before a language model, on questions that are not evaluated.

    python scripts/choose_vlm_points.py experiment=demo_vlm data.split=calibration data.pictures=100
    python scripts/choose_vlm_points.py experiment=llava15 model=FOLDER data.path=FILE

1. tau, without labels. On LLaVA-1.5 the sink emerges "typically" in layers 11 to 13 of 24: tau is
   the threshold by which half of the pictures have stopped in block 12 of 23, or at that share of
   the depth. It is midway between the median over pictures of the largest column mass up to that
   block and of that up to the block before.
2. K, with labels. Some K answer the questions, with a budget of 128 of 576 rows in proportion; the
   best average over the categories is chosen, of equally good ones the first. The same for the
   quiet anchor, which is ours.

Other depths are tried too and printed, but not chosen: a later stop costs more. So are the rows
that pooling leaves without a budget, 230 of 576 in the paper.
Records go to the run's results folder. Pictures that do not stop are reduced in the last block but
one (miss=force).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from asap.cli.command import command, one_by_one
from asap.cli.console import set_up_logging
from asap.data.base import DataSet, Sample
from asap.engine.executor import ReducedViT
from asap.engine.trace import Trace
from asap.experiment.job import Job
from asap.experiment.pipeline import run
from asap.measure.session import Session
from asap.methods import Asap
from asap.publish.pictures.panels import on_device
from asap.spec.run_spec import MethodSpec, RunSpec

STOPS, MIDDLE, DEPTH = (8, 12, 16, 20), 12, 23  # blocks of LLaVA-1.5's tower
ROWS, BUDGET, PATCHES = 230, 128, 576  # left by pooling alone; by a budget; patches
CLUSTERS = (2, 4, 8, 16)
QUIET = {"anchor": "quiet", "distance": "self_aligned"}


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


def best(averages: dict[str, float]) -> str:
    """The setting with the highest average, of equal ones the first."""
    return max(averages, key=lambda name: averages[name])


def answered(spec: RunSpec, settings: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The average of each setting over the categories of the questions, by its text."""
    rows = [MethodSpec.of("asap", one, label=told(one)) for one in settings]
    _, results = run(replace(spec, rows=tuple(rows)))
    for one in results:
        if one.accuracy is None:
            raise RuntimeError(f"{one.label}: {one.reason}")
    return {one.label: one.measured["questions"]["average"] for one in results}


def told(setting: dict[str, Any]) -> str:
    return f"tau={setting['tau']:g} K={setting['clusters']}"


@torch.no_grad()
def choose(spec: RunSpec, job: Job) -> None:
    session, wide = Session(spec), Asap(tau=1e9)
    samples = pictures(session.data)
    anatomy = ReducedViT(session.backbone, wide).adapter.anatomy
    mass = np.stack([t.mass[0].numpy() for t in traces(session, wide, samples)])
    print(f"{len(mass)} pictures; pooling is to leave {anatomy.patches * ROWS / PATCHES:.1f} rows")
    budget = round(anatomy.patches * BUDGET / PATCHES)
    settings, middle = [], []
    for depth in STOPS:
        stop = math.ceil(anatomy.depth * depth / DEPTH)
        tau = chosen_tau(mass, stop)
        forced = 100 * float((np.nan_to_num(mass).max(1) <= tau).mean())
        print(f"half have stopped by block {stop}: tau={tau:g}, {forced:.1f} % never do")
        for k in CLUSTERS:
            setting = {"tau": tau, "clusters": k, "miss": "force"}
            found = traces(session, Asap(**setting), samples)
            rows = np.mean([int(t.tokens[0, -1]) - anatomy.prefix for t in found])
            print(f"  {told(setting)}: {rows:.1f} rows")
            settings.append(setting | {"max_tokens": budget})
            middle += [told(setting)] if depth == MIDDLE else []
    for name, more in (("pooling", {}), ("quiet anchor (ours)", QUIET)):
        averages = answered(spec, [one | more for one in settings])
        print(f"{name}, {budget} rows:")
        print("\n".join(f"  {label}: {average:.2f}" for label, average in averages.items()))
        print(f"  chosen: {best({label: averages[label] for label in middle})}")


if __name__ == "__main__":
    set_up_logging()
    command(one_by_one(choose), __doc__)
