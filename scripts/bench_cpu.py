"""What the engine costs on a CPU beside the multiply-accumulates it saves, with decisions given.

    python scripts/bench_cpu.py                                     # all six, about 15 CPU minutes
    python scripts/bench_cpu.py --backbone deit_tiny --precision bf16 --rounds 9

Weights are random, so ASAP's decisions would mean nothing: each image stops in block 5, 6 or 7 and
keeps about 64 of its 197 tokens (16 to 140, another number for each image), by a table that is the
same everywhere. Walk, anchor, distances, clusters, weights and regrouping are the method's own
work. ToMe gets the schedule whose MACs are nearest to ASAP's, at them or below. "watching": maps,
column mass and class row in all blocks, as for an image that never stops; "accumulation": P too, as
with overhead=true. Neither reduces anything.

Every model is called once a round, in shuffled order, on one thread, timed by that thread's CPU
time, so a shared machine will do; ratios are taken round by round, and their median and quartiles
written to results/bench/cpu/engine.csv, in place of the rows of the same backbone and precision.
`auto`: with engine.attention=auto, which computes attention explicitly in bfloat16.
"""

import argparse
import csv
import random
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import quantiles

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from asap.backbones.accepted import adapter_of
from asap.core.macs import backbone_macs
from asap.core.order import ranks
from asap.engine.backend import backend_of, explicit_attention
from asap.engine.executor import ReducedViT
from asap.measure.baselines import EAGER, FUSED, dense_baselines
from asap.measure.device import keep_memory
from asap.methods import Asap, Decision, Dense, Observation, Site, ToMe
from asap.methods.asap.anchors import find_anchor
from asap.methods.asap.clusters import cluster
from asap.methods.asap.reduction import reduced_sequence

OUT = Path(__file__).resolve().parents[1] / "results" / "bench" / "cpu" / "engine.csv"
MODELS = {"deit_tiny": 32, "deit_small": 32, "deit_base": 8}  # images in a batch
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
SHARE = {"deit_tiny": 1.12, "deit_small": 1.05, "deit_base": 1.05}  # ratio to dense over MACs share
WATCHING = {"deit_tiny": 1.08, "deit_small": 1.08, "deit_base": 1.04}  # ratio without a reduction
MEAN, SPREAD, LEAST, MOST = 64, 20, 16, 140  # tokens after the reduction
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Given(Asap):
    """ASAP with the stop block (from 1) and the tokens left of every image of a batch given."""

    stops: Sequence[int] = ()
    tokens: Sequence[int] = ()

    def observe(self, site: Site) -> Observation:
        stops = torch.tensor(self.stops)[site.images]
        return replace(super().observe(site), chosen=stops == site.block + 1)

    def reduce(self, site: Site, chosen: Bool[Tensor, "b"] | None) -> Decision:
        matrix, spent = self.geometry(site)
        anchor, lead = find_anchor(self, site, matrix)
        found = cluster(self, matrix, anchor, site.prefix)
        removed = site.length + 1 - torch.tensor(self.tokens)[site.images]
        far = ranks(found.distance.scatter(1, anchor[:, None], -1.0)) >= removed[:, None]
        reduced = reduced_sequence(self, site, matrix, replace(found, index=far.long()), anchor)
        seen = {"sink": anchor, "margin_sink": lead, "margin_bin": found.margin}
        macs = spent + self.distance_macs(site)
        return Decision(reduced.target, reduced.left, reduced.weight, True, macs, seen)


@dataclass(frozen=True)
class Timed:
    """One candidate: its call, its MACs against dense, and what its ratio to dense may be."""

    call: Callable[[Tensor], object]
    share: float = 1.0
    limit: float | None = None


def given_table(images: int) -> tuple[list[int], list[int]]:
    """Stop block and tokens left of every image."""
    drawn = random.Random(0)
    tokens = [round(min(max(drawn.gauss(MEAN, SPREAD), LEAST), MOST)) for _ in range(images)]
    return [5 + i % 3 for i in range(images)], tokens


def share_of(model: ReducedViT, images: Tensor) -> float:
    """MACs of backbone and method against dense."""
    _, trace = model(images, range(len(images)), return_trace=True)
    full = trace.tokens.new_full(trace.tokens.shape, model.adapter.anatomy.tokens)
    dense = backbone_macs(model.adapter.cost, full.numpy(), "").sum()
    return float(trace.macs.sum()) / float(dense)


def tome_at(backbone: nn.Module, image: Tensor, share: float) -> ToMe:
    """ToMe with the number of merged tokens, over all blocks, that comes nearest to a share."""
    depth = adapter_of(backbone).anatomy.depth

    def schedule(total: int) -> ToMe:
        each, rest = divmod(total, depth)
        return ToMe([each + 1] * rest + [each] * (depth - rest))

    low, high = 0, 16 * depth
    while high - low > 1:
        middle = (low + high) // 2
        over = share_of(ReducedViT(backbone, schedule(middle)), image) > share
        low, high = (middle, high) if over else (low, middle)
    return schedule(high)


def candidates(name: str, backbone: nn.Module, images: Tensor) -> dict[str, Timed]:
    """All models to time, by name; fused dense first."""
    stops, tokens = given_table(len(images))
    dense = dense_baselines(backbone)
    method = Given(tau=1e9, stops=stops, tokens=tokens)
    auto = backend_of(CPU, eager=explicit_attention("auto", CPU, images.dtype))
    pooling = ReducedViT(backbone, method)
    share = share_of(pooling, images)
    tome = tome_at(backbone, images[:1], share)
    found = {FUSED: Timed(dense[FUSED]), EAGER: Timed(dense[EAGER])}
    found["engine dense"] = Timed(ReducedViT(backbone, Dense()))
    found["asap"] = Timed(pooling, share, SHARE[name] * share)
    watching = {"watching": Asap(tau=1e9, max_block=pooling.adapter.anatomy.depth)}
    watching["accumulation"] = Asap(overhead=True)
    for row, model in watching.items():
        found[row] = Timed(ReducedViT(backbone, model), 1.0, WATCHING[name])
    same = ReducedViT(backbone, tome)
    found["tome"] = Timed(same, share_of(same, images[:1]))
    if auto.eager:
        again = {"engine dense": Dense(), "asap": method, "tome": tome, **watching}
        for row, model in again.items():
            quick = ReducedViT(backbone, model, backend=auto)
            found[f"{row}, auto"] = replace(found[row], call=quick)
    return found


def timed(found: Mapping[str, Timed], images: Tensor, rounds: int) -> dict[str, list[float]]:
    """CPU seconds of every candidate in every round; one round before them does not count."""
    order, took = list(found), {name: [] for name in found}
    shuffled = random.Random(1)
    for number in range(rounds + 1):
        shuffled.shuffle(order)
        for name in order:
            start = time.thread_time()
            found[name].call(images)
            if number:
                took[name].append(time.thread_time() - start)
    return took


def rows_of(name: str, precision: str, rounds: int) -> list[dict[str, str]]:
    """The measured rows of a backbone in a precision."""
    from timm import create_model  # after asap: its guard

    torch.manual_seed(0)
    dtype, batch = DTYPES[precision], MODELS[name]
    backbone = create_model(f"{name}_patch16_224", pretrained=False).eval().to(dtype)
    images = torch.randn(batch, 3, 224, 224).to(dtype)
    with torch.inference_mode():
        found = candidates(name, backbone, images)
        took = timed(found, images, rounds)
    rows = []
    for row, one in found.items():
        ratios = [a / b for a, b in zip(took[row], took[FUSED], strict=True)]
        low, middle, high = quantiles(ratios, n=4)
        rows.append({
            "backbone": name, "precision": precision, "batch": str(batch), "model": row,
            "rounds": str(rounds), "macs_share": f"{one.share:.4f}", "ratio": f"{middle:.4f}",
            "ratio_q1": f"{low:.4f}", "ratio_q3": f"{high:.4f}",
            "over_share": f"{middle / one.share:.4f}",
            "limit": "" if one.limit is None else f"{one.limit / one.share:.2f}",
            "cpu_seconds": f"{quantiles(took[row], n=4)[1]:.3f}",
            "torch": torch.__version__,
        })  # fmt: skip
    return rows


def main(arguments: list[str] | None = None) -> int:
    commands = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands.add_argument("--backbone", nargs="+", default=list(MODELS), choices=MODELS)
    commands.add_argument("--precision", nargs="+", default=list(DTYPES), choices=DTYPES)
    commands.add_argument("--rounds", type=int, default=15)
    commands.add_argument("--out", type=Path, default=OUT)
    given = commands.parse_args(arguments)
    if given.rounds < 2:
        commands.error("--rounds: give at least 2, so that there are quartiles")
    torch.set_num_threads(1)
    keep_memory(CPU)
    for name in given.backbone:
        for precision in given.precision:
            rows = rows_of(name, precision, given.rounds)
            for row in rows:
                print(
                    f"{name} {precision} {row['model']:<20} MACs {row['macs_share']}  ratio "
                    f"{row['ratio']} [{row['ratio_q1']}, {row['ratio_q3']}]  over MACs "
                    f"{row['over_share']}" + (f" (at most {row['limit']})" if row["limit"] else "")
                )
            write(given.out, name, precision, rows)
    return 0


def write(path: Path, name: str, precision: str, rows: list[dict[str, str]]) -> None:
    """The rows into the file, in place of those of the same backbone and precision."""
    held = list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []
    held = [r for r in held if (r["backbone"], r["precision"]) != (name, precision)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(held + rows)


if __name__ == "__main__":
    sys.exit(main())
