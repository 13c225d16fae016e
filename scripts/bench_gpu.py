"""Everything that a GPU has to answer about this project, as one command: tests, decisions, speed.

    python scripts/bench_gpu.py                       # about 14 minutes on one GPU
    python scripts/bench_gpu.py --parts speed --backbones deit_base --batches 256
    python scripts/bench_gpu.py --dry                 # a rehearsal on CPU, a minute

Each part is a process of its own with a time limit, so that a crash costs that part alone, and each
writes what it has as soon as it has it, into results/bench/<device>/:

speed       speed.csv: time of a batch over that of the fused dense model and of the best dense
            model, interleaved, for DeiT in half precision. ASAP's stop blocks (5 to 7) are given,
            64 tokens are left, and all else is the method's own work; ToMe and the other methods
            at about the same MACs. Then the embedded model with the decisions it makes itself.
decisions   decisions.csv: what stop blocks, sinks and token sets differ from the CPU's in float32,
            for the methods of the demo on scenes, in three precisions; whether a repeat has the
            same bits; whether `engine.strict` makes a batch's cuts invisible, and what it costs.
kernels     kernels.csv, by bench_kernels.py
questions   vlm.csv, by bench_vlm.py: a LLaVA of 7B with random weights; needs the extra vlm
tests       tests.txt: the end of `make test-gpu`, and how long it took

summary.json says which part ended how, and which targets were met.
"""

import argparse
import csv
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor, nn

import asap
from asap.backbones.preprocess import preprocessing_of
from asap.core.macs import backbone_macs
from asap.data.digits.scenes import DigitScenes
from asap.engine.backend import backend_of
from asap.engine.executor import ReducedViT
from asap.engine.trace import Trace
from asap.measure.baselines import BEST, EAGER, FUSED, dense_baselines
from asap.measure.device import measuring_alone, stopwatch
from asap.methods import ATS, Asap, EViT, Method, Observation, RandomDrop, Site, ToMe, ZeroTPrune
from asap.methods.registry import build
from asap.records.schema import environment
from asap.spec.configs import read_method
from asap.spec.read import read_spec

ROOT = Path(__file__).resolve().parents[1]
PARTS = {  # seconds that each may take
    "speed": 300, "decisions": 150, "kernels": 120, "questions": 180, "tests": 300,
}  # fmt: skip
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
BACKBONES = ("deit_base", "deit_small", "deit_tiny")
LEFT = 64  # tokens after the reduction
CLEAR = 1e-5  # a decision with a smaller margin may differ by rounding
ASAP, STATIC, TOME = "ASAP, stops given", "ASAP static", "ToMe"

# Targets in float16 (performance.md): time over best dense, over the share of MACs; over fused.
OVER_SHARE = {"deit_base": 1.13, "deit_small": 1.36, "deit_tiny": 1.63}
OVER_FUSED = {
    ("deit_base", 256): 0.60,
    ("deit_small", 256): 0.55,
    ("deit_tiny", 256): 0.55,
    ("deit_tiny", 32): 0.36,
    ("deit_base", 32): 0.75,
}


@dataclass(frozen=True)
class GivenStops(Asap):
    """ASAP whose images stop in blocks in turn; weights are random, so its own stops mean nothing.

    Everything else is the method's: maps, walk, mass, sink, distances, ranks, averages, regrouping.
    """

    first: int = 5  # blocks from 1
    blocks: int = 3

    def observe(self, site: Site) -> Observation:
        stops = self.first + site.images % self.blocks
        return replace(super().observe(site), chosen=stops == site.block + 1)


@dataclass(frozen=True)
class Where:
    """The device, and whether this is a rehearsal on a CPU with models of two or three blocks."""

    device: torch.device
    dry: bool
    out: Path

    def write(self, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write all rows so far; a part that is stopped leaves what it had."""
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


# ---- speed


def timed(
    calls: Mapping[str, Callable[[], object]], where: Where, rounds: int
) -> dict[str, list[float]]:
    """Seconds of every call in every round, in shuffled order; three rounds before do not count."""
    watch, order = stopwatch(where.device, 1), list(calls)
    took: dict[str, list[float]] = {name: [] for name in calls}
    shuffled = random.Random(0)
    for number in range(rounds + 3):  # a recording is made by the second call of each
        shuffled.shuffle(order)
        for name in order:
            watch.start()
            calls[name]()
            seconds = watch.elapsed().seconds
            if number >= 3:
                took[name].append(seconds)
    return took


def share_of(model: ReducedViT, images: Tensor) -> float:
    """MACs of backbone and method against dense."""
    _, trace = model(images, range(len(images)), return_trace=True)
    full = trace.tokens.new_full(trace.tokens.shape, model.adapter.anatomy.tokens)
    dense = backbone_macs(model.adapter.cost, full.numpy(), "").sum()
    return float(trace.macs.sum()) / float(dense)


def schedule(each: float, depth: int) -> list[int]:
    """`each` merged tokens a block on average, in whole numbers."""
    total = round(each * depth)
    return [total // depth + (i < total % depth) for i in range(depth)]


def methods_for(backbone: nn.Module) -> dict[str, Method]:
    """Methods at about the MACs of ASAP's given stops."""
    embed: Any = backbone.patch_embed
    patches, depth = embed.num_patches, len(backbone.blocks)  # type: ignore[arg-type]
    removed = max(patches + 1 - LEFT, patches // 2) if patches > LEFT else patches // 2
    first = min(5, depth - 1)
    ranked: dict[str, Any] = {"binning": "rank", "clusters": patches, "background": removed}
    static = Asap(min_block=None, max_block=min(first + 1, depth - 1), miss="force", **ranked)
    return {
        ASAP: GivenStops(tau=1e9, first=first, blocks=min(3, depth - first), **ranked),
        STATIC: static,
        "ASAP static, quiet anchor": replace(static, anchor="quiet", distance="self_aligned"),
        TOME: ToMe(schedule(11.0 * patches / 196, depth)),
        "EViT": EViT(keep_rate=0.7),
        "Random drop": RandomDrop(keep=0.6),
        "ATS": ATS(),
        "Zero-TPrune": ZeroTPrune(),
    }


def fitting(backbone: nn.Module, methods: Mapping[str, Method]) -> dict[str, Method]:
    """Those that the backbone allows: a rehearsal's has too few blocks for some."""
    found = {}
    for name, method in methods.items():
        try:
            ReducedViT(backbone, method)
        except ValueError as error:
            print(f"left out: {name}: {error}")
        else:
            found[name] = method
    return found


def compared(
    backbone: nn.Module,
    images: Tensor,
    methods: Mapping[str, Method],
    where: Where,
    rounds: int,
    about: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """Rows of speed.csv: every model against the fused and the best dense one, round by round."""
    ids, backend = range(len(images)), backend_of(where.device)
    dense = dense_baselines(backbone, ["best"], backend)
    models = {name: ReducedViT(backbone, m, backend=backend) for name, m in methods.items()}
    if not where.dry:
        strict = backend_of(where.device, strict=True)
        models |= {
            f"{name}, strict": ReducedViT(backbone, methods[name], backend=strict)
            for name in (ASAP, TOME, "ASAP (pool.)")
            if name in methods
        }
    shares = {name: share_of(model, images) for name, model in models.items()}
    calls: dict[str, Callable[[], object]] = {k: lambda m=m: m(images) for k, m in dense.items()}
    calls |= {k: lambda m=m: m(images, ids) for k, m in models.items()}
    took = timed(calls, where, rounds)
    rows = []
    for name in calls:
        over = {
            other: [a / b for a, b in zip(took[name], took[base], strict=True)]
            for other, base in (("fused", FUSED), ("eager", EAGER), ("best", BEST))
        }
        model, share = models.get(name), shares.get(name, 1.0)
        q1, _, q3 = quantiles(over["best"], n=4)
        rows.append({
            **about, "batch": len(images), "model": name, "rounds": rounds,
            "path": "" if model is None else model.path,
            "unrecorded": "" if model is None else model.unrecorded or "",
            "macs_share": f"{share:.4f}", "ms": f"{1e3 * median(took[name]):.3f}",
            **{f"over_{k}": f"{median(v):.4f}" for k, v in over.items()},
            "over_best_q1": f"{q1:.4f}", "over_best_q3": f"{q3:.4f}",
            "over_best_over_share": f"{median(over['best']) / share:.4f}",
            "device": name_of(where), "torch": torch.__version__,
        })  # fmt: skip
    return rows


def speed(where: Where, backbones: Sequence[str], batches: Sequence[int], rounds: int) -> None:
    """speed.csv, after each backbone and batch."""
    from timm.models.vision_transformer import VisionTransformer

    rows: list[dict[str, Any]] = []
    for precision in ("fp32",) if where.dry else ("fp16",):
        for name in backbones:
            torch.manual_seed(0)
            width = {"deit_base": 768, "deit_small": 384, "deit_tiny": 192}[name]
            size: dict[str, Any] = {"embed_dim": width, "depth": 12, "num_heads": width // 64}
            if where.dry:
                size = {"embed_dim": 64, "depth": 6, "num_heads": 1, "img_size": 64}
            net = VisionTransformer(**size).eval().to(where.device, DTYPES[precision])
            for batch in batches:
                shape = (batch, 3, size.get("img_size", 224), size.get("img_size", 224))
                images = torch.randn(shape).to(where.device, DTYPES[precision])
                about = {"backbone": name, "precision": precision, "decisions": "given stops"}
                rows += compared(net, images, fitting(net, methods_for(net)), where, rounds, about)
                where.write("speed.csv", rows)
                show(rows, about, batch)
    own, scenes = embedded(where, max(batches))
    for precision in ("fp32",) if where.dry else ("fp16", "bf16", "fp32"):
        net, images = own.to(DTYPES[precision]), scenes.to(DTYPES[precision])
        about = {"backbone": "digits_vit", "precision": precision, "decisions": "its own"}
        rows += compared(net, images, demo_methods(), where, rounds, about)
        where.write("speed.csv", rows)
        show(rows, about, len(images))


def show(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any], batch: int) -> None:
    for row in rows:
        if row["batch"] == batch and all(row[k] == v for k, v in about.items()):
            print(
                f"{row['backbone']} {row['precision']} b={batch} {row['model']:<34} "
                f"{row['ms']:>9} ms  MACs {row['macs_share']}  fused {row['over_fused']}  "
                f"best {row['over_best']}  {row['path']} {row['unrecorded']}",
                flush=True,
            )


# ---- decisions


def embedded(where: Where, count: int) -> tuple[nn.Module, Tensor]:
    """The embedded model on the device in float32, and so many scenes."""
    net = asap.load_backbone("digits_vit", "bundled")
    p = preprocessing_of(net)
    data = DigitScenes("evaluation", count, 0, p.transform)
    inputs = [sample.inputs for sample in (data[i] for i in range(count))]
    images = torch.cat([x for x in inputs if x is not None])
    return net.eval().to(where.device), images.to(where.device)


def demo_methods() -> dict[str, Method]:
    """The demo's methods with its settings, by label; without the dense one."""
    import yaml

    demo = yaml.safe_load((ROOT / "configs" / "experiment" / "demo.yaml").read_text("utf-8"))
    rows = []
    for row in demo["rows"]:
        name = str(row.get("with", "")).removeprefix("${points.").removesuffix("}")
        rows.append({**row, "with": demo["points"][name]} if name else row)
    backbone = {"name": "digits_vit", "weights": "bundled"}
    spec = read_spec({"backbone": backbone, "data": {"name": "digits"}, "rows": rows}, read_method)
    return {r.label: build(r.name, r.options) for r in spec.rows if r.name != "dense"}


def decisions(where: Where, scenes: int) -> None:
    """decisions.csv, after each method and precision."""
    net, images = embedded(Where(torch.device("cpu"), where.dry, where.out), scenes)
    here, ids, rows = images.to(where.device), list(range(scenes)), []
    for label, method in demo_methods().items():
        logits, trace = in_batches(ReducedViT(net, method), images, ids, 64)
        for precision in ("fp32",) if where.dry else DTYPES:
            placed = asap.load_backbone("digits_vit", "bundled").eval()
            placed = placed.to(where.device, DTYPES[precision])
            x = here.to(DTYPES[precision])
            backends = {
                False: backend_of(where.device),
                True: backend_of(where.device, strict=True),
            }
            models = {s: ReducedViT(placed, method, backend=b) for s, b in backends.items()}
            found = [in_batches(models[False], x, ids, 64) for _ in range(3)]
            strict = [in_batches(models[True], x, ids, size) for size in (64, 48)]
            rows.append({
                "method": label, "precision": precision, "scenes": scenes,
                "path": models[False].path, **flips(found[-1], (logits, trace)),
                "same_bits_on_repeat": alike(found[1], found[2]) and alike(found[0], found[1]),
                "strict_path": models[True].path, "strict_same_in_other_batches": alike(*strict),
            })  # fmt: skip
            where.write("decisions.csv", rows)
            print({k: rows[-1][k] for k in list(rows[-1])}, flush=True)


def in_batches(
    model: ReducedViT, images: Tensor, ids: Sequence[int], size: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits and trace values of all images, on the CPU."""
    parts: list[tuple[Tensor, Trace]] = []
    for start in range(0, len(images), size):
        logits, trace = model(images[start : start + size], ids[start : start + size], True)
        parts.append((logits.float().cpu(), trace))
    names = (*parts[0][1].values(),)
    values = {name: torch.cat([trace.values()[name] for _, trace in parts]) for name in names}
    return torch.cat([logits for logits, _ in parts]), values


def alike(one: tuple[Tensor, dict[str, Tensor]], other: tuple[Tensor, dict[str, Tensor]]) -> bool:
    """Whether two runs have the same bits."""
    pairs = [(one[0], other[0]), *((one[1][k], other[1][k]) for k in one[1])]
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)


def flips(
    ours: tuple[Tensor, dict[str, Tensor]], theirs: tuple[Tensor, dict[str, Tensor]]
) -> dict[str, Any]:
    """How many images differ from the CPU's, and which of them had no decision within rounding."""
    trace, expected = ours[1], theirs[1]
    margins = [v for k, v in expected.items() if k.startswith("margin")]
    close = torch.zeros(len(ours[0]), dtype=torch.bool)
    for margin in margins:
        low = margin < CLEAR
        close |= low.flatten(1).any(1) if low.dim() > 1 else low
    differs = {
        name: (trace[key] != expected[key]).reshape(len(close), -1).any(1)
        for name, key in (("stop_block", "stop_block"), ("sink", "sink"), ("tokens", "assignment"))
        if key in expected
    }
    clear = differs["tokens"] & ~close
    return {
        **{f"other_{name}": int(found.sum()) for name, found in differs.items()},
        **({} if "sink" in differs else {"other_sink": 0}),
        "within_rounding": int(close.sum()),
        "other_and_clear": " ".join(str(int(i)) for i in clear.nonzero().flatten()[:20]),
        "other_class": int((ours[0].argmax(1) != theirs[0].argmax(1)).sum()),
        "largest_logit_difference": f"{float((ours[0] - theirs[0]).abs().max()):.3g}",
    }


# ---- the command


def name_of(where: Where) -> str:
    return "dry, on CPU" if where.dry else torch.cuda.get_device_name(where.device)


def tests(where: Where) -> int:
    """tests.txt: what `make test-gpu` says at its end."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0"]
    command += ["--co", "-m", "gpu"] if where.dry else ["-m", "gpu", "--durations=20"]
    env = {"ASAP_TEST_DEVICE": "cpu" if where.dry else "cuda"}
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    text = done.stdout[-20_000:] + done.stderr[-2_000:]
    where.out.mkdir(parents=True, exist_ok=True)
    took = f"{time.monotonic() - began:.0f} s, exit code {done.returncode}\n"
    (where.out / "tests.txt").write_text(took + text, "utf-8")
    print(took + text[-600:])
    return done.returncode


def kernels(where: Where) -> int:
    import bench_kernels

    given = ["--dry", "--models", "tiny"] if where.dry else []
    return bench_kernels.main([*given, "--out", str(where.out)])


def questions(where: Where) -> int:
    import bench_vlm

    given = ["--dry", "--questions", "4", "--warm", "1"] if where.dry else []
    return bench_vlm.main([*given, "--out", str(where.out)])


def targets(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Each target in float16 with what was measured; None where nothing was."""

    def of(backbone: str, batch: int, column: str) -> float | None:
        for row in rows:
            place = (row["backbone"], row["precision"], row["batch"], row["model"])
            if place == (backbone, "fp16", str(batch), ASAP):
                return float(row[column])
        return None

    asked = [(b, 256, "over_best_over_share", most) for b, most in OVER_SHARE.items()]
    asked += [(b, batch, "over_fused", most) for (b, batch), most in OVER_FUSED.items()]
    found = []
    for backbone, batch, column, most in asked:
        value = of(backbone, batch, column)
        met = None if value is None else value <= most
        found.append({
            "backbone": backbone, "batch": batch, "what": column, "at most": most,
            "measured": value, "met": met,
        })  # fmt: skip
    return found


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    made.add_argument("--backbones", nargs="+", choices=BACKBONES, default=list(BACKBONES))
    made.add_argument("--batches", nargs="+", type=int, default=[256, 32])
    made.add_argument("--rounds", type=int, default=11)
    made.add_argument("--scenes", type=int, default=1000)
    made.add_argument("--dry", action="store_true", help="rehearse on CPU with tiny models")
    made.add_argument("--out", type=Path, help="folder; default: results/bench/<device>")
    made.add_argument("--here", action="store_true", help="one part, in this process")
    return made


def main(arguments: list[str] | None = None) -> int:
    commands = parser()
    given = commands.parse_args(arguments)
    if not given.dry and not torch.cuda.is_available():
        commands.error("there is no CUDA device: give --dry to rehearse on CPU")
    device = torch.device("cpu" if given.dry else "cuda")
    name = "dry" if given.dry else torch.cuda.get_device_name(device)
    folder = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    where = Where(device, given.dry, given.out or ROOT / "results" / "bench" / folder)
    if given.dry:
        given.backbones, given.batches = ["deit_tiny"], [4]
        given.rounds, given.scenes = 2, min(given.scenes, 8)
    if given.here:
        return one_part(given.parts[0], where, given)
    ended: dict[str, str] = {}
    for part in given.parts:
        words = [sys.executable, __file__, "--here", "--parts", part, "--out", str(where.out)]
        words += ["--backbones", *given.backbones, "--rounds", str(given.rounds)]
        words += ["--batches", *map(str, given.batches), "--scenes", str(given.scenes)]
        began = time.monotonic()
        print(f"== {part}", flush=True)
        try:
            done = subprocess.run(
                [*words, *(["--dry"] if given.dry else [])], timeout=PARTS[part], check=False
            )
            how = "done" if done.returncode == 0 else f"exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            how = f"stopped after {PARTS[part]} s"
        ended[part] = f"{how}, {time.monotonic() - began:.0f} s"
        _summary(where, ended)
    print(json.dumps(ended, indent=1))
    return 0 if all(how.startswith("done") for how in ended.values()) else 1


def _summary(where: Where, ended: Mapping[str, str]) -> None:
    path = where.out / "speed.csv"
    rows = list(csv.DictReader(path.open(encoding="utf-8"))) if path.exists() else []
    found = {"device": name_of(where), "environment": environment(), "parts": dict(ended)}
    where.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**found, "targets": targets(rows)}, indent=1)
    (where.out / "summary.json").write_text(text + "\n", "utf-8")


def one_part(part: str, where: Where, given: argparse.Namespace) -> int:
    if part == "tests":
        return tests(where)
    if part == "questions":
        return questions(where)
    with measuring_alone(where.device), torch.inference_mode():
        if part == "kernels":
            return kernels(where)
        if part == "speed":
            speed(where, given.backbones, given.batches, given.rounds)
        else:
            decisions(where, given.scenes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
