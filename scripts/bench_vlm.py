"""How long a LLaVA of 7B takes for a question, under several methods, without its weights.

    python scripts/bench_vlm.py                       # about 2 minutes on one GPU with 24 GB
    python scripts/bench_vlm.py --next                # LLaVA-NeXT, whose pictures are five crops
    python scripts/bench_vlm.py --dry                 # a rehearsal on CPU with tiny sizes, seconds

Tower (CLIP ViT-L/14-336), projector and language model (Vicuna-7B's sizes) are drawn at random on
the device, in half precision. Times of rows whose number does not depend on the picture are those
of the trained model; ASAP's block is forced, so the block in which it would stop is not measured.
Every candidate answers a question before the next one comes, in shuffled order, one question at a
time, with 35 ids before the picture and 27 behind, as two passes: the prompt, then one token,
whatever the model says. Pictures and ids are on the device beforehand.

The timing is that of `measure=latency` (asap/measure/question_latency.py); here the weights are
random, there they are a checkpoint's and the questions a benchmark's.

vlm.csv, or vlm-next.csv, in results/bench/<device>/: medians and quartiles over questions of the
tower (the reduction and the trace of it included), the projector, the prefill (pruning included, up
to the first logits), the first token (the three together, from the same events), one decoded token,
and the whole; ratios paired by question with the full model, with 95 % intervals; peak memory
beside the weights; MACs and rows. Printed at the end: whether the times agree with one another.
"""

import argparse
import csv
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

import asap  # noqa: F401  # first: transformers imports torchvision
from asap.backbones.llava.anyres import FIXED, AnyRes
from asap.backbones.llava.extra import require_transformers
from asap.backbones.llava.language import LanguageModel
from asap.backbones.llava.parts import Projector, clip_trunk
from asap.backbones.llava.pictures import PictureSettings
from asap.data.base import Sample
from asap.engine.backend import backend_of
from asap.engine.decoder import Decoder
from asap.engine.executor import ReducedViT
from asap.measure.device import device_name
from asap.measure.latency_summary import summary_of
from asap.measure.question_latency import Candidate, TimedQuestion, ask_all, peaks
from asap.measure.questions import PictureEncoder, visual_rows
from asap.measure.record_parts import describe
from asap.measure.spans import spans_on
from asap.methods import Asap, Dense, Method
from asap.methods.language.base import Pruner
from asap.methods.language.fastv import FastV
from asap.methods.language.sparsevlm import SparseVLM
from asap.methods.prunesid import PruneSID
from asap.methods.visionzip import VisionZip
from asap.methods.vispruner import VisPruner
from asap.report.latency_checks import checks
from asap.spec.answer_spec import AnswerSpec
from asap.spec.run_spec import LANGUAGE, VISION

ROOT = Path(__file__).resolve().parents[1]
LABEL = "random weights, block {block} forced"
FULL = "full"
PREFIX, SUFFIX = 35, 27  # ids before and behind the picture of a short question in Vicuna's frame
PICTURES = 50


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
    rows: int = 64  # visual rows that are left, of each crop
    crops: int = 1  # images of a picture; 5: LLaVA-NeXT's

    @property
    def patches(self) -> int:
        return (self.image // self.patch) ** 2


TINY = Sizes(56, 14, 32, 6, 32, 48, 6, 4, 64, block=3, rows=8)
NEXT = {"rows": 32, "crops": 5}  # the paper's 160 of 2,880


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
    """The full model, and methods at about as many visual rows; of a picture in crops without the
    pruners, which cannot leave so few on average over the layers.
    """
    rows = sizes.rows
    contextual = round(rows * 10 / 64)
    forced = Asap(
        tau=1e9, min_block=None, max_block=sizes.block, miss="force", binning="rank",
        max_tokens=rows, plugin="diffusion",
    )  # fmt: skip
    fastv = FastV(2, round(30 * sizes.patches / 576))
    pruners = {"FastV": (Dense(), fastv), "SparseVLM": (Dense(), SparseVLM())}
    return {
        FULL: (Dense(), None),
        "ASAP": (forced, None),
        "VisionZip": (VisionZip(rows - contextual, contextual), None),
        "VisPruner": (VisPruner(rows), None),
        "PruneSID": (PruneSID(rows), None),
        **(pruners if sizes.crops == 1 else {}),
    }


def candidate(parts: Parts, sizes: Sizes, method: Method, pruner: Pruner | None) -> Candidate:
    """A LLaVA under a method in each stage."""
    reduced = ReducedViT(parts.tower, method, backend=backend_of(parts.language.device))
    if pruner is not None:
        pruner.check(len(parts.language.layers), reduced.adapter.anatomy.patches)
    cut = None
    if sizes.crops > 1:
        settings = PictureSettings(sizes.image, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        cut = AnyRes(settings, (FIXED,), sizes.image // sizes.patch, unpads=False)
    encoder = PictureEncoder(reduced, AnswerSpec(), cut)
    visual = partial(visual_rows, parts.projector)
    return Candidate(encoder, visual, Decoder(parts.language, pruner))


def stages(model: Candidate) -> dict[str, Any]:
    """The methods by stage, as the identity of a record has them."""
    found = {VISION: describe(model.encoder.method)}
    pruner = model.decoder.pruner
    return found if pruner is None else found | {LANGUAGE: describe(pruner)}


def row_of(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """A line of vlm.csv from the fields of a record, without what is the same in all of them."""
    line: dict[str, Any] = {"model": name, "visual_rows": f"{found['visual_rows']:g}"}
    layers = found["layer_rows"]
    line["mean_layer_rows"] = f"{sum(layers) / len(layers):.1f}"
    for span, ms in found["times_ms"].items():
        line |= {f"{span}_ms": f"{ms['median']:.3f}"}
        line |= {f"{span}_q1": f"{ms['q1']:.3f}", f"{span}_q3": f"{ms['q3']:.3f}"}
    for span, ratio in found["ratios"].items():
        for key in ("median", "lo", "hi"):
            said = "" if ratio is None else f"{ratio[key]:.4f}"
            line[f"{span}_over_full" + ("" if key == "median" else f"_{key}")] = said
    parts = ("tower", "projector", "prefill", "vision_method", "language_method")
    line |= {f"{part}_gmacs": f"{found['gmacs'][part]:.3f}" for part in parts}
    return line | {"kv_mib": f"{found['kv_mib']:.1f}", "dropped": found["dropped"]}


def run(given: argparse.Namespace) -> Path:
    """Measure and write the file; returns its path."""
    device = torch.device("cpu" if given.dry else "cuda")
    sizes, dtype = (TINY, torch.float32) if given.dry else (Sizes(), torch.float16)
    if given.next:
        sizes = replace(sizes, **(NEXT | ({"rows": TINY.rows} if given.dry else {})))
    parts = random_parts(sizes, device, dtype)
    models = {name: candidate(parts, sizes, *both) for name, both in candidates(sizes).items()}
    shape = (min(given.questions, PICTURES), sizes.crops, 3, sizes.image, sizes.image)
    pictures = torch.randn(shape, device=device, dtype=dtype)
    ids = torch.randint(sizes.vocabulary, (PREFIX + SUFFIX,), device=device)
    asked = [
        TimedQuestion(
            Sample(i, i, f"question {i}", at, None, extras={"size": (sizes.image, sizes.image)}),
            pictures[at], tuple(range(at * sizes.crops, (at + 1) * sizes.crops)), ids[:PREFIX],
            ids[PREFIX:],
        )
        for i, at in enumerate(number % len(pictures) for number in range(given.questions))
    ]  # fmt: skip
    spans = spans_on(device, torch.get_num_threads())
    held = peaks(models, asked[0], spans)
    found = ask_all(models, asked, given.warm, spans)
    same = {
        "label": LABEL.format(block=sizes.block), "questions": given.questions,
        "precision": str(dtype).removeprefix("torch."), "device": device_name(device),
        "clock": spans.clock, "torch": torch.__version__,
    }  # fmt: skip
    rows, judged = [], []
    cost, element = parts.language.cost, parts.language.dtype.itemsize
    shown = ("visual_rows", "tower_ms", "prefill_ms", "decode_ms", "total_ms", "total_over_full")
    for name, own in found.items():
        summary = summary_of(own, found[FULL], spans.clock, cost, element)
        judged.append((name, summary | {"identity": {"methods": stages(models[name])}}))
        line = row_of(name, summary)
        peak = held[name]
        line["peak_mib"] = "" if peak is None else f"{peak / 2**20:.0f}"
        rows.append(line | same)
        print(f"{name:<10}", *(f"{key} {line[key]}" for key in shown), flush=True)
    print(*checks(judged), sep="\n", flush=True)
    folder = re.sub(r"[^a-z0-9]+", "-", "dry" if given.dry else same["device"].lower()).strip("-")
    out = given.out or ROOT / "results" / "bench" / folder
    out.mkdir(parents=True, exist_ok=True)
    path = out / ("vlm-next.csv" if given.next else "vlm.csv")
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def main(arguments: list[str] | None = None) -> int:
    commands = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands.add_argument("--questions", type=int, default=300)
    commands.add_argument("--warm", type=int, default=20, help="questions that do not count")
    commands.add_argument("--next", action="store_true", help="LLaVA-NeXT in place of LLaVA-1.5")
    commands.add_argument("--dry", action="store_true", help="rehearse on CPU with tiny sizes")
    commands.add_argument("--out", type=Path, help="folder; default: results/bench/<device>")
    given = commands.parse_args(arguments)
    if not given.dry and not torch.cuda.is_available():
        commands.error("there is no CUDA device: give --dry to rehearse on CPU")
    if given.questions < 2:
        commands.error(f"--questions={given.questions} has no quartiles: give 2 or more")
    run(given)
    return 0


if __name__ == "__main__":
    sys.exit(main())
