"""Choose tau and K of ASAP before a language model, on questions that are not evaluated.

    python scripts/choose_vlm_points.py experiment=demo_vlm data.split=calibration data.pictures=100
    python scripts/choose_vlm_points.py experiment=llava15 model=FOLDER data.path=FILE limit=500

experiment=composition has the points of llava15, and anchor_llava_next those of llava_next.

1. tau, without labels. On LLaVA-1.5 the sink emerges "typically" in layers 11 to 13 of 24: tau is
   the threshold by which half of the pictures have stopped in block 12 of 23, or at that share of
   the depth. It is midway between the median over pictures of the largest column mass up to that
   block and of that up to the block before. The crops of LLaVA-NeXT count as pictures.
2. K, without labels: that of `MANY` whose pooling leaves, without a budget, the number of rows that
   is nearest to the paper's, on average: 230 of 576 on LLaVA-1.5, 1,050 of 2,880 on LLaVA-NeXT.
3. Of the questions made here, data=digits_qa, also K with labels. Some K answer the questions, with
   a budget of 128 of 576 rows in proportion; the best average over the categories is chosen, of
   equally good ones the first. The same for the quiet anchor, which is ours.

Other depths are tried too and printed, but not chosen: a later stop costs more. Records go to the
run's results folder. Pictures that do not stop are reduced in the last block but one (miss=force).
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
from asap.publish.pictures.panels import images_on_device
from asap.spec.run_spec import MethodSpec, RunSpec

STOPS, MIDDLE, DEPTH = (8, 12, 16, 20), 12, 23  # blocks of LLaVA-1.5's tower
BUDGET, PATCHES = 128, 576  # rows left by a budget; patches of an image
POOLED = {False: 230 / 576, True: 1050 / 2880}  # share left by pooling alone; True: LLaVA-NeXT
CLUSTERS = (2, 4, 8, 16)
MANY = (2, 3, *range(4, 17, 2), 20, 24, 32)
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
    """The trace of each picture, of all its crops."""
    model = ReducedViT(session.backbone, method, backend=session.backend())
    return [
        model(images_on_device(session, one), one.image_ids, return_trace=True)[1]
        for one in samples
    ]


def chosen_tau(mass: np.ndarray, stop: int) -> float:
    """tau by the masses (pictures, blocks) of pictures that never stop; `stop`: a block from 1."""
    largest = np.maximum.accumulate(np.nan_to_num(mass), axis=1)
    before = float(np.median(largest[:, stop - 2])) if stop > 1 else 0.0
    return round((before + float(np.median(largest[:, stop - 1]))) / 2, 3)


def mean_rows(session: Session, samples: Sequence[Sample], setting: dict[str, Any]) -> float:
    """The rows of a picture that a setting leaves, over all its crops: the mean over pictures."""
    method = Asap(**setting)
    prefix = session.model(method).adapter.anatomy.prefix
    found = traces(session, method, samples)
    return float(np.mean([int((one.tokens[:, -1] - prefix).sum()) for one in found]))


def nearest(rows: dict[int, float], wanted: float) -> int:
    """The K that leaves the number of rows nearest to the wanted one, of equally near ones the
    first."""
    return min(rows, key=lambda k: abs(rows[k] - wanted))


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


def setting_of(tau: float, k: int) -> dict[str, Any]:
    return {"tau": tau, "clusters": k, "miss": "force"}


def told(setting: dict[str, Any]) -> str:
    return f"tau={setting['tau']:g} K={setting['clusters']}"


@torch.no_grad()
def choose(spec: RunSpec, job: Job) -> None:
    session, wide = Session(spec), Asap(tau=1e9)
    samples = pictures(session.data)
    anatomy = session.model(wide).adapter.anatomy
    mass = np.concatenate([one.mass.numpy() for one in traces(session, wide, samples)])
    crops = len(mass) / len(samples)
    wanted = anatomy.patches * crops * POOLED[crops > 1]
    print(f"{len(samples)} pictures; pooling is to leave {wanted:.1f} rows")
    taus = {}
    for depth in STOPS:
        stop = math.ceil(anatomy.depth * depth / DEPTH)
        taus[depth] = tau = chosen_tau(mass, stop)
        forced = 100 * float((np.nan_to_num(mass).max(1) <= tau).mean())
        print(f"half have stopped by block {stop}: tau={tau:g}, {forced:.1f} % never do")
        rows = {}
        for k in MANY if depth == MIDDLE else CLUSTERS:
            rows[k] = mean_rows(session, samples, setting_of(tau, k))
            print(f"  {told(setting_of(tau, k))}: {rows[k]:.1f} rows")
        if depth == MIDDLE:
            said = f"tau: {tau:g}, clusters: {nearest(rows, wanted)}"
            print(f"  nearest to the paper's rows: points.asap='{{{said}}}'")
    if spec.data.name == "digits_qa":
        by_labels(spec, taus, round(anatomy.patches * BUDGET / PATCHES))


def by_labels(spec: RunSpec, taus: dict[int, float], budget: int) -> None:
    """Choose K by the answers, at the tau of the middle depth; taus: by depth."""
    settings = [
        setting_of(tau, k) | {"max_tokens": budget} for tau in taus.values() for k in CLUSTERS
    ]
    middle = [told(setting_of(taus[MIDDLE], k)) for k in CLUSTERS]
    for name, more in (("pooling", {}), ("quiet anchor (ours)", QUIET)):
        averages = answered(spec, [one | more for one in settings])
        print(f"{name}, {budget} rows:")
        print("\n".join(f"  {label}: {average:.2f}" for label, average in averages.items()))
        print(f"  chosen: {best({label: averages[label] for label in middle})}")


if __name__ == "__main__":
    set_up_logging()
    command(one_by_one(choose), __doc__)
