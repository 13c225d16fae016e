"""Compare our multiply-accumulates (MACs) in closed form with torch's counter and fvcore's.

    python scripts/check_macs.py            # make check-macs; under a minute on a CPU
    python scripts/check_macs.py --giant    # the largest backbones too; some GB of memory

Dense backbones get random weights, since their MACs do not depend on them. The decisions of methods
do, so for methods the closed form is taken from the trace of the same images. The exit code is 1 if
the closed form differs from torch's counter by a single MAC.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from tqdm import tqdm

import asap
from asap.backbones.preprocess import preprocessing_of
from asap.backbones.weights.load import load_backbone
from asap.data.digits.scenes import DigitScenes
from asap.engine.executor import ReducedViT
from asap.measure.macs_check import Conventions, conventions, fvcore_count, torch_count
from asap.methods import Asap, Dense, Method, ToMe

# Backbone -> GMACs as published, with the source's convention.
PUBLISHED = {
    "digits_vit": "-",
    "deit_tiny_patch16_224": "1.3 (paper)",
    "deit_small_patch16_224": "4.6 (paper)",
    "deit_base_patch16_224": "17.6 (paper)",
    "lvvit_s": "6.6 (paper)",
    "vit_large_patch14_clip_quickgelu_224": "-",
}
GIANT = {
    "vit_large_patch14_clip_quickgelu_336": "174.6 (paper: attention not counted)",
    "vit_giant_patch14_clip_224": "-",
}
EXPECTED = {  # exact values, which are checked
    "deit_tiny_patch16_224": 1_253_683_200,
    "deit_small_patch16_224": 4_598_882_304,
    "deit_base_patch16_224": 17_563_828_224,
    "lvvit_s": 6_551_485_440,
}
NORMS = ("layer_norm", "batch_norm")  # operators of fvcore that the convention leaves out
WHY = """\
MACs are what the papers call FLOPs: patch embedding, linear layers, both attention products, head.
- closed form = torch's counter to the integer, once that has a formula for fused attention on CPU.
- torch as shipped: counts fused attention as 0 on CPU (pytorch/pytorch#195460), so it lacks both
  attention products, and equals our convention "without attention".
- fvcore with a formula for fused attention: more, by LayerNorm at 5 a number and LV-ViT's batch
  norm at 2, which papers leave out.
- fvcore as shipped: skips fused attention and counts LayerNorm; so may published numbers: the
  paper's 174.6 G of CLIP-L at 336 pixels is without attention, its 17.6 G of DeiT-B is with it."""


@dataclass(frozen=True)
class DenseCounts:
    """MACs of one image by every way of counting."""

    ours: Conventions
    torch: int
    torch_shipped: int
    fvcore: int
    fvcore_norms: int
    fvcore_shipped: int


def count_dense(backbone: nn.Module) -> DenseCounts:
    """All counts of a dense backbone on one image."""
    embed: Any = backbone.patch_embed
    image = torch.zeros(1, 3, *embed.img_size)
    model = ReducedViT(backbone, Dense())
    shape = model.adapter.anatomy
    tokens = torch.full((1, shape.depth + 1), shape.tokens)
    by_operator = fvcore_count(backbone, image)
    total = sum(by_operator.values())
    return DenseCounts(
        ours=conventions(model.adapter.cost, tokens, "after_block"),
        torch=torch_count(backbone, image),
        torch_shipped=torch_count(backbone, image, out_of_the_box=True),
        fvcore=total,
        fvcore_norms=sum(by_operator.get(norm, 0) for norm in NORMS),
        fvcore_shipped=total - by_operator.get("scaled_dot_product_attention", 0),
    )


def dense_table(names: dict[str, str], seed: int) -> tuple[Table, list[str]]:
    """The table over backbones, and a line for each disagreement."""
    table = Table(title="GMACs of one image, dense backbones")
    for head in ("backbone", "closed form", "torch", "fvcore", "its norms"):
        table.add_column(head, justify="left" if head == "backbone" else "right")
    for head in ("closed form\nw/o attention", "torch\nas shipped", "fvcore\nas shipped"):
        table.add_column(head, justify="right")
    table.add_column("published")
    wrong = []
    for name, published in tqdm(names.items(), desc="dense", unit="backbone"):
        found = count_dense(load_backbone(name, "random", seed=seed))
        ours = round(found.ours.with_attention)
        counts = (
            ours, found.torch, found.fvcore, found.fvcore_norms,
            found.ours.without_attention, found.torch_shipped, found.fvcore_shipped,
        )  # fmt: skip
        table.add_row(name, *(f"{count / 1e9:.4f}" for count in counts), published)
        others = {"torch's counter": found.torch, "the known value": EXPECTED.get(name, ours)}
        others["fvcore without norms"] = found.fvcore - found.fvcore_norms
        wrong += [
            f"{name}: closed form {ours:,}, {what} {other:,}"
            for what, other in others.items()
            if other != ours
        ]
    return table, wrong


def methods_for(backbone: nn.Module, images: torch.Tensor) -> Iterator[tuple[str, Method]]:
    """ToMe and ASAP. tau is the images' median mass halfway, so they stop near that block."""
    _, trace = ReducedViT(backbone, Asap(tau=1e9))(images, return_trace=True)
    tau = float(trace.mass[:, trace.mass.shape[1] // 2].median())
    yield "ToMe, r = 4", ToMe(4)
    yield "ASAP", Asap(tau=tau)
    yield "ASAP, pruning", Asap(tau=tau, pool=False)
    yield "ASAP, no accumulation", Asap(tau=tau, accumulate=False)
    yield "ASAP, random anchor", Asap(tau=tau, anchor="random")
    yield "ASAP, rollout order", Asap(tau=tau, order="rollout", anchor="mass")
    yield "ASAP, accumulation only", Asap(tau=tau, overhead=True)


def method_table(seed: int, n_images: int) -> tuple[Table, list[str]]:
    """Methods on digit scenes: the closed form from the trace and the executed graph's count."""
    try:
        backbone, note = load_backbone("digits_vit", "bundled"), "trained weights"
    except asap.RequestError as error:  # a checkout without the trained file
        backbone, note = (
            load_backbone("digits_vit", "random", seed=seed),
            f"random weights ({error})",
        )
    data = DigitScenes("evaluation", n_images, seed, preprocessing_of(backbone).transform)
    images = torch.stack([data[i].whole for i in range(n_images)])
    ids = list(range(n_images))
    table = Table(title=f"MACs of {n_images} digit scenes together, digits_vit with {note}")
    table.add_column("method")
    for head in ("backbone", "method", "closed form", "torch on the executed graph", "stop blocks"):
        table.add_column(head, justify="right")
    wrong = []
    for name, method in tqdm(list(methods_for(backbone, images)), desc="methods", unit="method"):
        model = ReducedViT(backbone, method)
        _, trace = model(images, ids, return_trace=True)
        parts = int(trace.macs_backbone.sum()), int(trace.macs_method.sum())
        executed = torch_count(model, images, ids)
        stops = " ".join(str(stop) for stop in sorted(set(trace.stop_block.tolist())))
        table.add_row(name, *(f"{n:,}" for n in (*parts, sum(parts), executed)), stops)
        if sum(parts) != executed:
            wrong.append(f"{name}: closed form {sum(parts):,}, torch's counter {executed:,}")
    return table, wrong


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", nargs="+", help="timm names instead of the usual six")
    parser.add_argument("--giant", action="store_true", help=f"also {', '.join(GIANT)}")
    parser.add_argument("--images", type=int, default=8, help="digit scenes for the methods")
    parser.add_argument("--seed", type=int, default=0, help="of weights and scenes")
    given = parser.parse_args(arguments)
    names = dict.fromkeys(given.backbone, "-") if given.backbone else dict(PUBLISHED)
    names |= GIANT if given.giant else {}
    if given.images < 1:
        parser.error(f"--images {given.images}: give at least 1")

    console = Console(width=None if sys.stdout.isatty() else 160)
    try:
        dense, wrong = dense_table(names, given.seed)
        methods, also_wrong = method_table(given.seed, given.images)
    except asap.RequestError as error:
        parser.error(str(error))
    console.print(dense, WHY, "", methods, sep="\n", markup=False, highlight=False)
    for line in wrong + also_wrong:
        console.print(f"DIFFERS  {line}", markup=False, highlight=False)
    if not wrong + also_wrong:
        console.print("All closed forms equal the executed graph's count to the integer.")
    return 1 if wrong + also_wrong else 0


if __name__ == "__main__":
    sys.exit(main())
