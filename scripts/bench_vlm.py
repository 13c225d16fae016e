"""How long a LLaVA-1.5 of 7B takes for a question, under six methods, without its weights.

    python scripts/bench_vlm.py                       # about 2 minutes on one GPU with 24 GB
    python scripts/bench_vlm.py --dry                 # a rehearsal on CPU with tiny sizes, seconds

Tower (CLIP ViT-L/14-336), projector and language model (Vicuna-7B's sizes) are drawn at random on
the device, in half precision. Times of rows whose number does not depend on the picture are those
of the trained model; ASAP's block is forced, so the block in which it would stop is not measured.
Every candidate answers a question before the next one comes, in shuffled order, one question at a
time, with 35 ids before the picture and 27 behind, as two passes: the prompt, then one token,
whatever the model says. Pictures and ids are on the device beforehand.

vlm.csv in results/bench/<device>/: medians and quartiles over questions of the tower (the reduction
and the trace of it included), the projector, the prefill (pruning included, up to the first
logits), the first token (the three together, from the same events), one decoded token, and the
whole; ratios paired by question with the full model; peak memory; MACs and rows beside them.
"""

import argparse
import csv
import random
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor

import asap  # noqa: F401  # first: transformers imports torchvision
from asap.backbones.llava.extra import require_transformers
from asap.backbones.llava.language import LanguageModel
from asap.backbones.llava.parts import Projector, clip_trunk
from asap.engine.backend import backend_of
from asap.engine.decoder import Decoder, Prefilled
from asap.engine.executor import ReducedViT
from asap.engine.trace import Trace
from asap.engine.visual_rows import VisualTower
from asap.measure.device import device_name, measuring_alone
from asap.methods import Asap, Dense, Method
from asap.methods.language.base import Pruner
from asap.methods.language.fastv import FastV
from asap.methods.language.sparsevlm import SparseVLM
from asap.methods.prunesid import PruneSID
from asap.methods.visionzip import VisionZip
from asap.methods.vispruner import VisPruner

ROOT = Path(__file__).resolve().parents[1]
LABEL = "random weights, block {block} forced"
FULL = "full"
PREFIX, SUFFIX = 35, 27  # ids before and behind the picture of a short question in Vicuna's frame
SPANS: tuple[str, ...] = ("tower", "projector", "prefill", "decode")


@dataclass(frozen=True)
class Sizes:
    """Of the tower (blocks of the whole encoder) and of the language model."""

    image: int = 336
    patch: int = 14
    tower_width: int = 1024
    tower_blocks: int = 24
    width: int = 4096
    mlp: int = 11008
    layers: int = 32
    heads: int = 32
    vocabulary: int = 32064
    block: int = 12  # where ASAP is made to stop
    rows: int = 64  # visual rows that are left

    @property
    def patches(self) -> int:
        return (self.image // self.patch) ** 2


TINY = Sizes(56, 14, 32, 6, 32, 48, 6, 4, 64, block=3, rows=8)


@dataclass(frozen=True)
class Parts:
    """A LLaVA of random weights, on the device."""

    tower: Any
    projector: Projector
    language: LanguageModel


def random_parts(sizes: Sizes, device: torch.device, dtype: torch.dtype) -> Parts:
    """Built where it is used: nothing is loaded or moved. Matrices have a deviation of 0.02."""
    require_transformers()
    from transformers import CLIPVisionConfig, LlamaConfig, LlamaModel

    vision = CLIPVisionConfig(
        hidden_size=sizes.tower_width, intermediate_size=4 * sizes.tower_width,
        num_hidden_layers=sizes.tower_blocks, num_attention_heads=max(1, sizes.tower_width // 64),
        image_size=sizes.image, patch_size=sizes.patch, hidden_act="quick_gelu",
    )  # fmt: skip
    text = LlamaConfig(
        hidden_size=sizes.width, intermediate_size=sizes.mlp, num_hidden_layers=sizes.layers,
        num_attention_heads=sizes.heads, num_key_value_heads=sizes.heads,
        vocab_size=sizes.vocabulary, max_position_embeddings=4096,
    )  # fmt: skip
    torch.manual_seed(0)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device("meta"):
            tower, projector = clip_trunk(vision), Projector(sizes.tower_width, sizes.width)
            model = LlamaModel(text)
            head = torch.nn.Linear(sizes.width, sizes.vocabulary, bias=False)
    finally:
        torch.set_default_dtype(usual)
    for part in (tower, projector, model, head):
        part.to_empty(device=device)
        for name, value in part.named_parameters():
            value.requires_grad_(False)
            if value.dim() > 1:
                value.normal_(0, 0.02)
            else:
                value.fill_(float("norm" in name and name.endswith("weight")))
    return Parts(tower.eval(), projector.eval(), LanguageModel(text, model.eval(), head))


def candidates(sizes: Sizes) -> dict[str, tuple[Method, Pruner | None]]:
    """The full model, and six methods at about as many visual rows."""
    rows = sizes.rows
    contextual = round(rows * 10 / 64)
    forced = Asap(
        tau=1e9, min_block=None, max_block=sizes.block, miss="force", binning="rank",
        max_tokens=rows, plugin="diffusion",
    )  # fmt: skip
    fastv = FastV(2, round(30 * sizes.patches / 576))
    return {
        FULL: (Dense(), None),
        "ASAP": (forced, None),
        "VisionZip": (VisionZip(rows - contextual, contextual), None),
        "VisPruner": (VisPruner(rows), None),
        "PruneSID": (PruneSID(rows), None),
        "FastV": (Dense(), fastv),
        "SparseVLM": (Dense(), SparseVLM()),
    }


class Clock:
    """Marks on the device's own time line; on a CPU, of the wall clock."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.marks: list[Any] = []

    def start(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.marks = []
        self.mark()

    def mark(self) -> None:
        if self.device.type == "cuda":
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    def seconds(self) -> list[float]:
        """Between each mark and the next; waits for the device once."""
        pairs = zip(self.marks, self.marks[1:], strict=False)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return [a.elapsed_time(b) / 1e3 for a, b in pairs]
        return [b - a for a, b in pairs]


@dataclass(frozen=True)
class Answered:
    """What one question took: seconds by span, and what there was to compute."""

    seconds: dict[str, float]
    trace: Trace
    found: Prefilled
    visual: int


class Candidate:
    """A LLaVA under a method in each stage."""

    def __init__(self, parts: Parts, method: Method, pruner: Pruner | None) -> None:
        reduced = ReducedViT(parts.tower, method, backend=backend_of(parts.language.device))
        self.tower = VisualTower(reduced)
        self.projector = parts.projector
        if pruner is not None:
            patches = reduced.adapter.anatomy.patches
            pruner.check(len(parts.language.layers), patches)
        self.decoder = Decoder(parts.language, pruner)
        self.clock = Clock(parts.language.device)

    def answer(self, picture: Tensor, image_id: int, prefix: Tensor, suffix: Tensor) -> Answered:
        """Two passes of the language model; the second reads the best token of the first."""
        self.clock.start()
        rows, trace, _ = self.tower(picture, [image_id])
        self.clock.mark()
        visual = self.projector(rows.of(0))
        self.clock.mark()
        found = self.decoder.prefill(visual, prefix, suffix, room=1)
        self.clock.mark()
        self.decoder.step(found, found.logits.argmax())
        self.clock.mark()
        took: dict[str, float] = dict(zip(SPANS, self.clock.seconds(), strict=True))
        return Answered(took, trace, found, len(visual))


def measure(
    models: Mapping[str, Candidate],
    ask: Callable[[Candidate, int], Answered],
    questions: int,
    warm: int,
) -> dict[str, list[Answered]]:
    """The answers of every candidate to every question; those of `warm` more come first."""
    found: dict[str, list[Answered]] = {name: [] for name in models}
    order, shuffled = list(models), random.Random(0)
    for question in range(-warm, questions):
        shuffled.shuffle(order)
        for name in order:
            answered = ask(models[name], question)
            if question >= 0:
                found[name].append(answered)
    return found


def peak_mib(device: torch.device, call: Callable[[], object]) -> str:
    """MiB that a call allocates at most, weights included; empty on a CPU."""
    if device.type != "cuda":
        return ""
    torch.cuda.reset_peak_memory_stats(device)
    call()
    return f"{torch.cuda.max_memory_allocated(device) / 2**20:.0f}"


def times_of(answers: Sequence[Answered]) -> dict[str, list[float]]:
    """Seconds of each span, of the first token, and of the whole, question by question."""
    spans = {name: [one.seconds[name] for one in answers] for name in SPANS}
    first = [sum(one.seconds[k] for k in SPANS[:3]) for one in answers]
    return spans | {"first_token": first, "total": [sum(a.seconds.values()) for a in answers]}


def row_of(name: str, answers: Sequence[Answered], full: Sequence[Answered], parts: Parts) -> dict:
    """A line of vlm.csv, without what is the same in all of them."""
    one, cost = answers[0], parts.language.cost
    line: dict[str, Any] = {"model": name, "visual_rows": one.visual}
    line["mean_layer_rows"] = f"{sum(one.found.rows) / len(one.found.rows):.1f}"
    times, base = times_of(answers), times_of(full)
    for span, seconds in times.items():
        q1, _, q3 = quantiles(seconds, n=4)
        line |= {f"{span}_ms": f"{1e3 * median(seconds):.3f}"}
        line |= {f"{span}_q1": f"{1e3 * q1:.3f}", f"{span}_q3": f"{1e3 * q3:.3f}"}
    for span in ("first_token", "total"):
        ratios = [a / b for a, b in zip(times[span], base[span], strict=True)]
        line[f"{span}_over_full"] = f"{median(ratios):.4f}"
    tower = int(one.trace.macs.sum())
    projector = cost.projector(one.visual, parts.projector.linear_1.in_features)
    return line | {
        "tower_gmacs": f"{tower / 1e9:.3f}",
        "projector_gmacs": f"{projector / 1e9:.3f}",
        "prefill_gmacs": f"{(one.found.macs + one.found.macs_pruner) / 1e9:.3f}",
        "kv_mib": f"{cost.kv_bytes(one.found.rows, parts.language.dtype.itemsize) / 2**20:.1f}",
    }


def run(given: argparse.Namespace) -> Path:
    """Measure and write vlm.csv; returns its path."""
    device = torch.device("cpu" if given.dry else "cuda")
    sizes, dtype = (TINY, torch.float32) if given.dry else (Sizes(), torch.float16)
    parts = random_parts(sizes, device, dtype)
    models = {name: Candidate(parts, *both) for name, both in candidates(sizes).items()}
    shape = (min(given.questions, 50), 3, sizes.image, sizes.image)
    pictures = torch.randn(shape, device=device, dtype=dtype)
    ids = torch.randint(sizes.vocabulary, (PREFIX + SUFFIX,), device=device)

    def ask(model: Candidate, question: int) -> Answered:
        at = question % len(pictures)
        return model.answer(pictures[at : at + 1], at, ids[:PREFIX], ids[PREFIX:])

    found = measure(models, ask, given.questions, given.warm)
    same = {
        "label": LABEL.format(block=sizes.block), "questions": given.questions,
        "precision": str(dtype).removeprefix("torch."), "device": device_name(device),
        "torch": torch.__version__,
    }  # fmt: skip
    rows = []
    for name, answers in found.items():
        peak = peak_mib(device, lambda name=name: ask(models[name], 0))
        rows.append(row_of(name, answers, found[FULL], parts) | {"peak_mib": peak} | same)
        shown = (
            "visual_rows",
            "tower_ms",
            "prefill_ms",
            "decode_ms",
            "total_ms",
            "total_over_full",
        )
        print(f"{name:<10}", *(f"{key} {rows[-1][key]}" for key in shown), flush=True)
    folder = re.sub(r"[^a-z0-9]+", "-", "dry" if given.dry else same["device"].lower()).strip("-")
    out = given.out or ROOT / "results" / "bench" / folder
    out.mkdir(parents=True, exist_ok=True)
    with (out / "vlm.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return out / "vlm.csv"


def main(arguments: list[str] | None = None) -> int:
    commands = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands.add_argument("--questions", type=int, default=300)
    commands.add_argument("--warm", type=int, default=20, help="questions that do not count")
    commands.add_argument("--dry", action="store_true", help="rehearse on CPU with tiny sizes")
    commands.add_argument("--out", type=Path, help="folder; default: results/bench/<device>")
    given = commands.parse_args(arguments)
    if not given.dry and not torch.cuda.is_available():
        commands.error("there is no CUDA device: give --dry to rehearse on CPU")
    if given.questions < 2:
        commands.error(f"--questions={given.questions} has no quartiles: give 2 or more")
    with measuring_alone("cpu" if given.dry else "cuda"), torch.inference_mode():
        run(given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
