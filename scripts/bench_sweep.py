"""Time a shared-trunk sweep against separate evaluations, and keep the record.

    OMP_NUM_THREADS=1 python scripts/bench_sweep.py [--images 64] [--rounds 5]

Embedded model, one thread, CPU time of this process. In every round, in shuffled order: a 5 x 5
sweep of tau and K over one trunk, the same 25 settings one after the other, the sweep of one alpha
after the other for 9 values, and all 225 settings over one trunk. Ratios are paired per round.

The closed form counts multiply-accumulates of backbone and method, in units of one dense block of
one image: of the separate runs from their traces; of the shared one every image's blocks up to
where its last setting leaves, plus every distinct rest once. A time is compared with the closed
form through the time of the separate runs: measured ratio over closed-form ratio.
Before anything is timed, all results are compared bit by bit.
"""

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import torch
from rich.console import Console

import asap
from asap.backbones.preprocess import preprocessing_of
from asap.core.macs import backbone_macs
from asap.data.digits.scenes import DigitScenes
from asap.engine.trace import Trace
from asap.methods import Asap, Method
from asap.records.schema import environment
from asap.shared_prefix import SharedPrefix

ROOT = Path(__file__).resolve().parents[1]
TAUS, CLUSTERS = (2.0, 2.5, 3.0, 3.5, 4.0), (2, 3, 4, 6, 8)
HIGH = (6.0, 7.0, 8.0, 9.0, 10.0)  # where calibration finds the embedded model's settings
ALPHAS = tuple(i / 10 for i in range(1, 10))


def settings(alpha: float, taus: Sequence[float], **options: object) -> list[Method]:
    return [
        Asap(tau=tau, clusters=k, alpha=alpha, **options)  # type: ignore[arg-type]
        for tau, k in product(taus, CLUSTERS)
    ]


@dataclass
class Work:
    """Images, and what is done with them."""

    backbone: torch.nn.Module
    images: torch.Tensor
    batch: int

    def parts(self) -> list[tuple[torch.Tensor, list[int]]]:
        starts = range(0, len(self.images), self.batch)
        return [
            (self.images[i : i + self.batch], list(range(i, min(i + self.batch, len(self.images)))))
            for i in starts
        ]

    def separate(self, methods: Sequence[Method]) -> list[list[tuple[torch.Tensor, Trace]]]:
        """Per method and batch: logits and trace of a run of its own."""
        models = [asap.ReducedViT(self.backbone, method) for method in methods]
        return [[m(x, ids, return_trace=True) for x, ids in self.parts()] for m in models]

    def shared(self, methods: Sequence[Method]) -> list[list[tuple[torch.Tensor, Trace]]]:
        """Per batch and method: the same over one trunk."""
        model, every = SharedPrefix(self.backbone, methods), range(len(methods))
        found = []
        for x, ids in self.parts():
            answers = model(x, ids)
            found.append([answers[i] for i in every])
        return [list(column) for column in zip(*found, strict=True)]


def equal(
    left: list[list[tuple[torch.Tensor, Trace]]], right: list[list[tuple[torch.Tensor, Trace]]]
) -> int:
    """How many methods have the same bits in logits and trace."""

    def same(a: torch.Tensor, b: torch.Tensor) -> bool:
        return torch.equal(a.nan_to_num(-7.0), b.nan_to_num(-7.0))

    return sum(
        all(
            same(x[0], y[0])
            and all(same(value, y[1].values()[name]) for name, value in x[1].values().items())
            for x, y in zip(mine, theirs, strict=True)
        )
        for mine, theirs in zip(left, right, strict=True)
    )


@dataclass(frozen=True)
class Cost:
    """Dense blocks per image: of separate runs, of the trunk, of the distinct rests."""

    separate: float
    prefix: float
    rests: float

    @property
    def shared(self) -> float:
        return self.prefix + self.rests


def closed_form(
    work: Work, methods: list[Method], results: list[list[tuple[torch.Tensor, Trace]]]
) -> Cost:
    """From the traces of separate runs; a pooled token differs between alphas, what is left not."""
    adapter = SharedPrefix(work.backbone, []).adapter
    cost, depth, dense = adapter.cost, adapter.anatomy.depth, adapter.anatomy.tokens
    full = torch.full((1, depth + 1), dense)
    outside = cost.embed + cost.head
    block = (int(backbone_macs(cost, full.numpy(), "after_attention")[0]) - outside) / depth
    separate, last, seen = 0.0, {}, {}  # the shared walk's own MACs are left out
    for method, batches in zip(methods, results, strict=True):
        assert isinstance(method, Asap)
        for part, (_, trace) in enumerate(batches):
            total = trace.macs_backbone + trace.macs_method
            separate += float(total.sum())
            for i, stop in enumerate(trace.stop_block.tolist()):
                image = (part, i)
                left = stop or method.last_block(depth)
                half = cost.blocks[0].mlp * dense if stop else 0  # stops before its MLP
                last[image] = max(last.get(image, 0), left - half / block)
                inside = int(trace.macs_backbone[i]) - cost.embed  # what comes after leaving
                rest = inside - left * block + half
                one = (image, stop or -left, tuple(trace.assignment[i].tolist()))
                pooled = method.pool and stop and int((trace.assignment[i] == int(
                    trace.tokens[i, -1]) - 1).sum()) > 1  # fmt: skip
                seen[(*one, method.alpha if pooled else None)] = rest
    count = sum(len(x) for x, _ in work.parts())
    trunk_blocks = sum(last.values()) / count + cost.embed / block
    return Cost(separate / block / count, trunk_blocks, sum(seen.values()) / block / count)


def timed(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


def rounds(
    candidates: dict[str, Callable[[], object]], count: int, seed: int
) -> list[dict[str, float]]:
    """CPU seconds of every candidate, in shuffled order in every round; the first is warm-up."""
    shuffle, found = random.Random(seed), []
    for number in range(count + 1):
        order = list(candidates)
        shuffle.shuffle(order)
        seconds = {name: timed(candidates[name]) for name in order}
        if number:
            found.append(seconds)
    return found


def spread(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.3f}"
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{middle:.3f} [quartiles {low:.3f}, {high:.3f}]"


def report(
    work: Work, name: str, given: argparse.Namespace, taus: Sequence[float], **options: object
) -> list[str]:
    """The lines about one kind of setting."""
    grid = settings(0.5, taus, **options)
    by_alpha = [settings(alpha, taus, **options) for alpha in ALPHAS]
    every = [method for part in by_alpha for method in part]
    candidates: dict[str, Callable[[], object]] = {
        "shared": lambda: work.shared(grid),
        "separate": lambda: work.separate(grid),
        "alphas apart": lambda: [work.shared(part) for part in by_alpha],
        "alphas together": lambda: work.shared(every),
    }
    parts_alone = [work.separate(part) for part in by_alpha]
    costs = [closed_form(work, *part) for part in zip(by_alpha, parts_alone, strict=True)]
    one, alone = costs[ALPHAS.index(0.5)], parts_alone[ALPHAS.index(0.5)]
    together = work.shared(grid)
    all_alone = [row for part in parts_alone for row in part]
    union = closed_form(work, every, all_alone)
    same = equal(all_alone, work.shared(every))
    seconds = rounds(candidates, given.rounds, given.seed)
    against = [s["shared"] / s["separate"] for s in seconds]
    over = [ratio / (one.shared / one.separate) for ratio in against]
    alphas = [s["alphas together"] / s["alphas apart"] for s in seconds]
    apart = sum(cost.shared for cost in costs)
    return [
        f"{name}:",
        f"  5 x 5 grid, bitwise equal to separate runs: {equal(alone, together)} of {len(grid)}",
        f"  closed form, dense blocks per image: separate {one.separate:.1f}, shared "
        f"{one.shared:.1f} (trunk {one.prefix:.1f}, distinct rests {one.rests:.1f}), "
        f"ratio {one.shared / one.separate:.3f}",
        f"  measured, shared / separate: {spread(against)}; "
        f"{1 / statistics.median(against):.2f} times cheaper",
        f"  measured ratio / closed-form ratio: {spread(over)} (wanted: at most 1.15)",
        f"  9 alphas x 25, bitwise equal to separate runs: {same} of {len(every)}",
        f"  closed form: one trunk {union.shared:.1f} blocks per image, 9 sweeps {apart:.1f}, "
        f"ratio {union.shared / apart:.3f}",
        f"  measured, one trunk / 9 shared sweeps: {spread(alphas)} (wanted: at most 0.7)",
        "  CPU seconds, medians: "
        + ", ".join(f"{k} {statistics.median(s[k] for s in seconds):.2f}" for k in candidates),
        "",
    ]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--late", type=int, default=8, help="min_block of the second part")
    parser.add_argument("--out", type=Path, default=ROOT / "results/bench/cpu/sweep.txt")
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    backbone = asap.load_backbone("digits_vit")
    p = preprocessing_of(backbone)
    data = DigitScenes("evaluation", given.images, 0, p.transform, p.patch_grid)
    images = [data[i].image for i in range(given.images)]
    work = Work(backbone, torch.stack([x for x in images if x is not None]), given.batch_size)
    known = environment()
    lines = [
        f"scripts/bench_sweep.py --images {given.images} --batch-size {given.batch_size} "
        f"--rounds {given.rounds} --seed {given.seed} --late {given.late}",
        f"digits_vit, fp32, {data.description}; 1 thread, CPU time, torch {known['torch']}",
        f"K {CLUSTERS}, alpha 0.5; then alpha {ALPHAS}",
        "",
        *report(work, f"Defaults, tau {TAUS}", given, TAUS),
        *report(work, f"The same with pruning, tau {TAUS}", given, TAUS, pool=False),
        *report(work, f"As this model is calibrated, tau {HIGH}", given, HIGH),
        *report(work, f"The same with pruning, tau {HIGH}", given, HIGH, pool=False),
        *report(
            work,
            f"Late stops, tau {TAUS}, min_block={given.late} (DeiT-Base's sink in the paper)",
            given,
            TAUS,
            min_block=given.late,
        ),
    ]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text("\n".join(lines), "utf-8")
    Console(soft_wrap=True).print("\n".join(lines), markup=False, highlight=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
