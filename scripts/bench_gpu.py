"""Everything that a GPU has to answer about this project, as one command: tests, decisions, speed.

    python scripts/bench_gpu.py                       # at most 13 minutes on one GPU
    python scripts/bench_gpu.py --parts speed --backbones deit_base --batches 256
    python scripts/bench_gpu.py --seconds 560         # the same, cut off after so long
    python scripts/bench_gpu.py --dry                 # a rehearsal on CPU, a minute

Each part, and of "speed" each model, is a process of its own with a time limit, so that a crash or
a hang costs that one alone. Each writes what it has as soon as it has it, and a method that fails
is left out with its reason. The order is that of what is worth most, should the time not suffice.
In results/bench/<device>/:

speed       speed.csv: time of a batch over that of the fused dense model and of the best dense
            model, interleaved, for DeiT in half precision. ASAP's stop blocks (5 to 7) are given,
            64 tokens are left, and all else is the method's own work; ToMe and the other methods
            at about the same MACs. Then the embedded model with the decisions it makes itself.
decisions   decisions.csv: what stop blocks, sinks and token sets differ from the CPU's in float32,
            for the methods of the demo on scenes, in three precisions; whether a repeat has the
            same bits; whether `engine.strict` makes a batch's cuts invisible, and what it costs.
kernels     kernels.csv, by bench_kernels.py
questions   vlm.csv, by bench_vlm.py: a LLaVA of 7B with random weights; needs the extra vlm
tests       tests.txt: what `make test-gpu` says

summary.json says which part ended how, and which targets were met; log.txt has all that was said.
"""

import argparse
import copy
import csv
import faulthandler
import json
import os
import random
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median, quantiles
from typing import Any, TypeVar

import torch
from bounded_part import run_part
from torch import Tensor, nn

import asap
from asap.backbones.preprocess import preprocessing_of
from asap.core.macs import backbone_macs
from asap.data.digits.scenes import DigitScenes
from asap.engine.backend import Backend, backend_of
from asap.engine.executor import ReducedViT
from asap.engine.trace import Trace
from asap.measure.baselines import BEST, EAGER, FUSED, dense_baselines
from asap.measure.device import measuring_alone, stopwatch
from asap.methods import (
    ATS,
    Asap,
    Dense,
    EViT,
    Method,
    Observation,
    RandomDrop,
    Site,
    ToMe,
    ZeroTPrune,
)
from asap.methods.registry import build
from asap.records.schema import environment
from asap.spec.configs import read_method
from asap.spec.read import read_spec

T = TypeVar("T")
Outcome = tuple[Tensor, dict[str, Tensor]]  # logits, values of the trace by name
ROOT = Path(__file__).resolve().parents[1]
OWN = "digits_vit"  # the embedded model, with its own decisions
PARTS = {  # seconds that each may take; in this order
    "speed": {"deit_base": 110, "deit_small": 60, "deit_tiny": 60, OWN: 60},
    "decisions": {"": 130}, "kernels": {"": 80}, "questions": {"": 120}, "tests": {"": 160},
}  # fmt: skip
FILES = {"speed": "speed.csv", "decisions": "decisions.csv"}  # to which rows are added
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
BACKBONES = tuple(PARTS["speed"])
LEFT = 64  # tokens after the reduction
# Compiling kernels takes the processor most of the time; each process has a context on the GPU.
SHARED = ["-n", "auto", "--maxprocesses", "12", "--dist", "worksteal"]
LEAST = 10  # seconds with which a part is worth beginning
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

    def add(self, part: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write further rows at once; a part that is stopped leaves what it had."""
        self.out.mkdir(parents=True, exist_ok=True)
        path, fields = self.out / FILES[part], list(rows[0])
        begins = not path.exists()
        if not begins:
            fields = path.read_text("utf-8").splitlines()[0].split(",")
        with path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, fields, lineterminator="\n")
            if begins:
                writer.writeheader()
            writer.writerows(rows)


def guarded(what: str, call: Callable[[], T]) -> T | None:
    """What the call gives; None, and the reason is printed, if it fails."""
    try:
        return call()
    except Exception:  # whatever a method, a kernel or the device raises: the others go on
        print(f"left out: {what}:\n{traceback.format_exc(limit=-6)}", flush=True)
        return None


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


def first_pass(
    backbone: nn.Module, method: Method, backend: Backend, images: Tensor
) -> tuple[ReducedViT, float]:
    """The model, and the MACs of backbone and method over those of dense on these images.

    Its second and third pass record work and replay it, so that what cannot be timed fails here.
    """
    model, ids = ReducedViT(backbone, method, backend=backend), range(len(images))
    for _ in range(2):
        model(images, ids, return_trace=True)
    _, trace = model(images, ids, return_trace=True)
    full = trace.tokens.new_full(trace.tokens.shape, model.adapter.anatomy.tokens)
    dense = backbone_macs(model.adapter.cost, full.numpy(), "").sum()
    return model, float(trace.macs.sum()) / float(dense)


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
    dense = dense_baselines(backbone)
    asked = {name: (method, backend) for name, method in {BEST: Dense(), **methods}.items()}
    if not where.dry:
        strict = backend_of(where.device, strict=True)
        alike = (name for name in (ASAP, TOME, "ASAP (pool.)") if name in methods)
        asked |= {f"{name}, strict": (methods[name], strict) for name in alike}
    models: dict[str, ReducedViT] = {}
    shares: dict[str, float] = {}
    for name, (method, how) in asked.items():
        made = guarded(name, partial(first_pass, backbone, method, how, images))
        if made is not None:
            models[name], shares[name] = made
    calls: dict[str, Callable[[], object]] = {k: lambda m=m: m(images) for k, m in dense.items()}
    calls |= {k: lambda m=m: m(images, ids) for k, m in models.items()}
    took = timed(calls, where, rounds)
    rows = []
    for name in calls:
        over = {
            other: [a / b for a, b in zip(took[name], took[base], strict=True)]
            for other, base in (("fused", FUSED), ("eager", EAGER), ("best", BEST))
            if base in took
        }
        model, share, best = models.get(name), shares.get(name, 1.0), over.get("best")
        q1, _, q3 = [None] * 3 if best is None else quantiles(best, n=4)
        ratios = {k: median(over[k]) if k in over else None for k in ("fused", "eager", "best")}
        numbers = {f"over_{k}": v for k, v in ratios.items()}
        numbers |= {"over_best_q1": q1, "over_best_q3": q3}
        numbers["over_best_over_share"] = None if best is None else median(best) / share
        rows.append({
            **about, "batch": len(images), "model": name, "rounds": rounds,
            "path": "" if model is None else model.path,
            "unrecorded": "" if model is None else model.unrecorded or "",
            "macs_share": f"{share:.4f}", "ms": f"{1e3 * median(took[name]):.3f}",
            **{k: "" if v is None else f"{v:.4f}" for k, v in numbers.items()},
            "device": name_of(where), "torch": torch.__version__,
        })  # fmt: skip
    return rows


def speed(where: Where, name: str, batches: Sequence[int], rounds: int) -> None:
    """Rows of speed.csv for a model, after each batch or precision."""
    if name == OWN:
        own, scenes = embedded(where, max(batches))
        for precision in ("fp32",) if where.dry else ("fp16", "bf16", "fp32"):
            kind = DTYPES[precision]  # of a copy: a precision before must not have rounded it
            net, images = copy.deepcopy(own).to(kind), scenes.to(kind)
            about = {"backbone": name, "precision": precision, "decisions": "its own"}
            found = compared(net, images, demo_methods(), where, rounds, about)
            where.add("speed", found)
            show(found)
        return
    from timm.models.vision_transformer import VisionTransformer

    torch.manual_seed(0)
    precision = "fp32" if where.dry else "fp16"
    width = {"deit_base": 768, "deit_small": 384, "deit_tiny": 192}[name]
    size: dict[str, Any] = {"embed_dim": width, "depth": 12, "num_heads": width // 64}
    if where.dry:
        size = {"embed_dim": 64, "depth": 6, "num_heads": 1, "img_size": 64}
    net = VisionTransformer(**size).eval().to(where.device, DTYPES[precision])
    side = size.get("img_size", 224)
    for batch in batches:
        images = torch.randn(batch, 3, side, side).to(where.device, DTYPES[precision])
        about = {"backbone": name, "precision": precision, "decisions": "given stops"}
        found = compared(net, images, methods_for(net), where, rounds, about)
        where.add("speed", found)
        show(found)


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    for row in rows:
        print(
            f"{row['backbone']} {row['precision']} b={row['batch']} {row['model']:<34} "
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
    """Rows of decisions.csv, after each method and precision: first all in float32."""
    net, images = embedded(Where(torch.device("cpu"), where.dry, where.out), scenes)
    here, ids = images.to(where.device), list(range(scenes))
    methods = demo_methods()
    expected = {k: in_batches(ReducedViT(net, one), images, ids, 64) for k, one in methods.items()}
    for precision in ("fp32",) if where.dry else DTYPES:
        placed = asap.load_backbone("digits_vit", "bundled").eval()
        placed = placed.to(where.device, DTYPES[precision])
        x = here.to(DTYPES[precision])
        for label, method in methods.items():
            asked = partial(decided, placed, method, x, ids, expected[label], where)
            row = guarded(f"{label} in {precision}", asked)
            if row is not None:
                about = {"method": label, "precision": precision, "scenes": scenes}
                where.add("decisions", [about | row])
                print(about | row, flush=True)


def decided(
    net: nn.Module,
    method: Method,
    images: Tensor,
    ids: Sequence[int],
    expected: Outcome,
    where: Where,
) -> dict[str, Any]:
    """What a method decides on the device, against what it should; on repeat; and in strict."""
    ours = ReducedViT(net, method, backend=backend_of(where.device))
    strict = ReducedViT(net, method, backend=backend_of(where.device, strict=True))
    found = [in_batches(ours, images, ids, 64) for _ in range(3)]
    cut = [in_batches(strict, images, ids, size) for size in (64, 48)]
    return {
        "path": ours.path, "unrecorded": ours.unrecorded or "", **flips(found[-1], expected),
        "same_bits_on_repeat": alike(found[1], found[2]) and alike(found[0], found[1]),
        "strict_path": strict.path, "strict_same_in_other_batches": alike(*cut),
    }  # fmt: skip


def in_batches(model: ReducedViT, images: Tensor, ids: Sequence[int], size: int) -> Outcome:
    """Logits and trace values of all images, on the CPU."""
    parts: list[tuple[Tensor, Trace]] = []
    for start in range(0, len(images), size):
        logits, trace = model(images[start : start + size], ids[start : start + size], True)
        parts.append((logits.float().cpu(), trace))
    names = (*parts[0][1].values(),)
    values = {name: torch.cat([trace.values()[name] for _, trace in parts]) for name in names}
    return torch.cat([logits for logits, _ in parts]), values


def alike(one: Outcome, other: Outcome) -> bool:
    """Whether two runs have the same bits."""
    pairs = [(one[0], other[0]), *((one[1][k], other[1][k]) for k in one[1])]
    return all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)


def flips(ours: Outcome, theirs: Outcome) -> dict[str, Any]:
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
    """tests.txt: what `make test-gpu` says, test by test."""
    command = [sys.executable, "-m", "pytest", "-v", "--tb=short", "-p", "no:cacheprovider"]
    command.append("--continue-on-collection-errors")  # tests of packages that are not there
    command += ["--timeout", "90", "--timeout-method", "thread"]  # a kernel that hangs
    command += ["-p", "failures_at_once"]
    command += ["-n", "0", "--co", "-m", "gpu"] if where.dry else ["-m", "gpu", *SHARED]
    paths = [str(ROOT / "scripts"), str(ROOT), os.environ.get("PYTHONPATH", "")]
    env = {
        **os.environ, "ASAP_TEST_DEVICE": "cpu" if where.dry else "cuda", "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }  # fmt: skip
    where.out.mkdir(parents=True, exist_ok=True)
    path = where.out / "tests.txt"
    with path.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            command, cwd=ROOT, env=env, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    print(path.read_text("utf-8", errors="replace")[-3000:])
    return done.returncode


def kernels(where: Where) -> int:
    import bench_kernels

    given = ["--dry", "--models", "tiny"] if where.dry else []
    return bench_kernels.main([*given, "--out", str(where.out)])


def questions(where: Where) -> int:
    import bench_vlm

    given = ["--dry", "--questions", "4", "--warm", "1"] if where.dry else ["--questions", "100"]
    return bench_vlm.main([*given, "--out", str(where.out)])


def targets(rows: Sequence[Mapping[str, str]]) -> list[dict[str, Any]]:
    """Each target in float16 with what was measured; None where nothing was."""

    def of(backbone: str, batch: int, column: str) -> float | None:
        for row in rows:
            place = (row["backbone"], row["precision"], row["batch"], row["model"])
            if place == (backbone, "fp16", str(batch), ASAP) and row[column]:
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
    made.add_argument(
        "--seconds", type=float, help="for all parts together; the last gets the rest"
    )
    made.add_argument("--dry", action="store_true", help="rehearse on CPU with tiny models")
    made.add_argument("--out", type=Path, help="folder; default: results/bench/<device>")
    made.add_argument("--here", type=float, help="one part in this process, for so many seconds")
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
        dry = {"deit_tiny", OWN} & set(given.backbones)
        given.backbones, given.batches = [one for one in BACKBONES if one in dry], [4]
        given.rounds, given.scenes = 2, min(given.scenes, 8)
    if given.here is not None:
        faulthandler.dump_traceback_later(max(1.0, given.here - 5))  # where it hangs
        return one_part(given.parts[0], where, given)
    where.out.mkdir(parents=True, exist_ok=True)
    (where.out / "log.txt").write_text("", "utf-8")
    for part in given.parts:
        if part in FILES:
            (where.out / FILES[part]).unlink(missing_ok=True)
    todo = [
        (part, model, PARTS[part][model])
        for part in PARTS
        if part in given.parts
        for model in PARTS[part]
        if not model or model in given.backbones
    ]
    ended = ended_before(where, given.parts)
    end = None if given.seconds is None else time.monotonic() + given.seconds
    for number, (part, model, most) in enumerate(todo):
        name = f"{part} {model}".strip()
        left = None if end is None else end - time.monotonic()
        seconds = most if left is None else left if number + 1 == len(todo) else min(most, left)
        if seconds < LEAST:
            ended[name] = "no time was left"
        else:
            print(f"== {name}, at most {seconds:.0f} s", flush=True)
            words = command_of(part, model, seconds, where, given)
            ended[name] = run_part(words, seconds, where.out / "log.txt")
        _summary(where, ended)
    print(json.dumps(ended, indent=1))
    return 0 if all(how.startswith("done") for how in ended.values()) else 1


def ended_before(where: Where, parts: Sequence[str]) -> dict[str, str]:
    """How the other parts ended in an earlier call, of which the files are still there."""
    path = where.out / "summary.json"
    if not path.exists():
        return {}
    kept = json.loads(path.read_text("utf-8"))["parts"]
    return {name: how for name, how in kept.items() if name.split()[0] not in parts}


def command_of(
    part: str, model: str, seconds: float, where: Where, given: argparse.Namespace
) -> list[str]:
    """The command line of a part as a process of its own."""
    words = [sys.executable, "-u", __file__, "--here", f"{seconds:.0f}", "--parts", part]
    words += ["--out", str(where.out), "--backbones", model or BACKBONES[0]]
    words += ["--batches", *map(str, given.batches), "--scenes", str(given.scenes)]
    return [*words, "--rounds", str(given.rounds), *(["--dry"] if given.dry else [])]


def _summary(where: Where, ended: Mapping[str, str]) -> None:
    path = where.out / "speed.csv"
    text = path.read_text("utf-8") if path.exists() else ""
    rows = list(csv.DictReader(text.splitlines()))
    found = {"device": name_of(where), "environment": environment(), "parts": dict(ended)}
    where.out.mkdir(parents=True, exist_ok=True)
    summary = json.dumps({**found, "targets": targets(rows)}, indent=1)
    (where.out / "summary.json").write_text(summary + "\n", "utf-8")


def one_part(part: str, where: Where, given: argparse.Namespace) -> int:
    if part == "tests":
        return tests(where)
    if part == "questions":
        return questions(where)
    # As in every run: convolutions in float32 are not rounded to 11 bits.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with measuring_alone(where.device), torch.inference_mode():
        if part == "kernels":
            return kernels(where)
        if part == "speed":
            speed(where, given.backbones[0], given.batches, given.rounds)
        else:
            decisions(where, given.scenes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
