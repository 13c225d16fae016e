"""Choose the demo's operating points on calibration digits, and print them as YAML.

    python scripts/find_demo_points.py                     # a few minutes

The rule, the same for every method: among the settings of its grid whose mean MACs (backbone and
method) are at or below the budget and within 3 points of it, the one with the best accuracy on
calibration scenes; ties go to the setting nearest to the budget. Evaluation digits are never seen.
"""

import argparse
import itertools
import json
import sys
from dataclasses import dataclass

import torch
from tqdm import tqdm

import asap
from asap.backbones.preprocess import preprocessing_of
from asap.data.digit_scenes import DigitScenes
from asap.methods import Asap, Dense, Method, RandomDrop, ToMe

TAUS = (1.6, 1.8, 2.0, 2.25, 2.5, 2.75, 3.0, 3.5, 4.0, 5.0)
CLUSTERS = (2, 3, 4, 5, 6, 8)
WINDOW = 3.0  # points


@dataclass(frozen=True)
class Point:
    """A setting, its MACs against dense in % and its accuracy in %."""

    options: dict
    macs_pct: float
    top1: float


def grids() -> dict[str, list[tuple[dict, Method]]]:
    """The settings tried for each method."""
    pairs = [{"tau": t, "clusters": k} for t, k in itertools.product(TAUS, CLUSTERS)]
    return {
        "asap": [(o, Asap(**o)) for o in pairs],
        "pruning": [(o, Asap(**o, pool=False)) for o in pairs],
        "tome": [({"r": r}, ToMe(r)) for r in range(1, 9)],
        "random": [
            ({"keep": k / 20, "block": 3}, RandomDrop(k / 20, 3)) for k in range(4, 20)
        ],
    }  # fmt: skip


class Bench:
    """The calibration scenes, and the dense cost."""

    def __init__(self, images: int, weights: str) -> None:
        self.backbone = asap.load_backbone("digits_vit", weights)
        pre = preprocessing_of(self.backbone)
        data = DigitScenes("calibration", images, 0, pre.transform)
        samples = [data[i] for i in range(images)]
        self.images = torch.stack([s.image for s in samples])
        self.labels = torch.tensor([s.label for s in samples])
        self.dense_macs, self.dense_top1 = self.measure(Dense())

    def measure(self, method: Method) -> tuple[float, float]:
        """Mean MACs per image and accuracy in %."""
        model = asap.ReducedViT(self.backbone, method)
        macs = correct = 0
        for start in range(0, len(self.images), 100):
            part = slice(start, start + 100)
            ids = range(start, start + len(self.images[part]))
            logits, trace = model(self.images[part], ids, return_trace=True)
            macs += int((trace.macs_backbone + trace.macs_method).sum())
            correct += int((logits.argmax(1) == self.labels[part]).sum())
        return macs / len(self.images), 100 * correct / len(self.images)

    def points(self, name: str, grid: list[tuple[dict, Method]]) -> list[Point]:
        """Every setting of a grid, measured."""
        found = []
        for options, method in tqdm(grid, desc=name, disable=None):
            macs, top1 = self.measure(method)
            found.append(Point(options, 100 * (macs / self.dense_macs - 1), top1))
        return found


def best(points: list[Point], budget: float) -> Point | None:
    """The point that the rule chooses, None if no setting meets the budget."""
    fitting = [p for p in points if budget - WINDOW <= p.macs_pct <= budget]
    return max(fitting, key=lambda p: (p.top1, p.macs_pct), default=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--budget", type=float, default=-35.0, help="MACs against dense, in %%")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--weights", default="bundled")
    parser.add_argument("--all", action="store_true", help="print every point as well")
    given = parser.parse_args()
    bench = Bench(given.images, given.weights)
    out = sys.stdout.write
    out(f"# dense {bench.dense_top1:.2f} % on {given.images} calibration scenes\n")
    for name, grid in grids().items():
        points = bench.points(name, grid)
        if given.all:
            for p in points:
                out(f"#   {json.dumps(p.options)}: {p.macs_pct:+.2f} % MACs, {p.top1:.2f} %\n")
        chosen = best(points, given.budget)
        if chosen is None:
            near = min(points, key=lambda p: abs(p.macs_pct - given.budget))
            out(f"{name}: null  # no setting within reach; nearest {near}\n")
        else:
            out(f"{name}: {json.dumps(chosen.options)}  # {chosen.macs_pct:+.2f} % MACs, ")
            out(f"{chosen.top1:.2f} % on calibration\n")


if __name__ == "__main__":
    main()
