"""Random (model, image, options) draws, with the stop block of each chosen beforehand.

The models are small and random, but not plain: q and k are scaled up and nearly shared by all
blocks, so that attention is peaked, the column mass grows with depth and sinks emerge. The
threshold of a draw is set from the image's own trajectory of column masses, halfway between the
largest mass before the wanted block and the mass at it, so every block gets its share of stops and
no threshold is close to a mass by accident.
"""

import functools
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from reference.asap_ref import reference_asap
from reference.vit import as_float64
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from asap.backbones.lvvit import LVViT

# Where the small models and their images are: `make test-gpu` runs the contract tests on CUDA.
WANTED = os.environ.get("ASAP_TEST_DEVICE", "cpu")
DEVICE = torch.device(WANTED if torch.cuda.is_available() else "cpu")
DEPTH = 8
WIDTH = 24
CLASSES = 7
ATTENTION_GAIN = 2.0  # on q and k each, so 4 on the logits
TRIES = 12  # images and options tried for a wanted stop block before taking what there is

# Every way of building the backbone that changes what a method must do.
VARIANTS: dict[str, dict] = {
    "plain": {},
    "distilled": {},
    "registers": {"reg_tokens": 4, "init_values": 0.5},
    "layerscale": {"init_values": 0.5, "no_embed_class": True},
    "qk_norm": {"qk_norm": True, "scale_attn_norm": True},
    "clip": {"pre_norm": True, "act_layer": "quick_gelu"},
    "average": {"class_token": False, "global_pool": "avg"},
    "average_with_class": {"global_pool": "avg"},
    "lvvit": {"mlp_ratio": 3.0, "stem_width": 8},
}
# Image and patch size: 64, 25 and 36 patches.
SIZES = {"p64": (32, 4), "p25": (40, 8), "p36": (36, 6)}


@dataclass(frozen=True)
class Draw:
    """One comparison to make."""

    model_key: str  # key of `models()`
    image: Tensor  # (3, h, w) float32
    options: dict  # arguments of the engine's class, and of `reference_asap`
    target_block: int  # where the image stops, from 1; 0 = never
    image_id: int  # names the image where the anchor is drawn at random


def models() -> dict[str, Callable[[], nn.Module]]:
    """Builders of the small models, float32, evaluation mode, the same weights at every call."""
    keys = [(variant, size) for variant in VARIANTS for size in SIZES]
    return {
        f"{variant}-{size}": functools.partial(build, variant, size, seed)
        for seed, (variant, size) in enumerate(keys)
    }


@functools.cache
def in_float64() -> dict[str, nn.Module]:
    """All of them, as the references take them: look at them, do not change them."""
    return {key: as_float64(make().cpu().double()) for key, make in models().items()}


def build(variant: str, size: str, seed: int) -> nn.Module:
    """A small random model whose attention has sinks."""
    img_size, patch_size = SIZES[size]
    kind = {"distilled": VisionTransformerDistilled, "lvvit": LVViT}.get(variant, VisionTransformer)
    own = VARIANTS[variant] | ({} if kind is LVViT else {"weight_init": "skip"})
    model = kind(
        img_size=img_size,
        patch_size=patch_size,
        embed_dim=WIDTH,
        depth=DEPTH,
        num_heads=3,
        num_classes=CLASSES,
        **own,
    )
    generator = randomise(model, seed)
    with torch.no_grad():
        _sharpen(model, generator)
    return model.eval().to(DEVICE)


@torch.no_grad()
def randomise(model: nn.Module, seed: int) -> torch.Generator:
    """Fill every parameter so that each part of the model matters; returns the generator used.

    Batch norms get statistics too.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        _fill(name, parameter, generator)
    for name, buffer in model.named_buffers():  # of batch norms
        if name.endswith("running_mean"):
            buffer.copy_(0.3 * torch.randn(buffer.shape, generator=generator))
        elif name.endswith("running_var"):
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return generator


def _fill(name: str, parameter: Tensor, generator: torch.Generator) -> None:
    """Weights of about unit gain; residual branches small enough to keep deep blocks alike."""
    noise = torch.randn(parameter.shape, generator=generator)
    if ".ls1." in name or ".ls2." in name:
        parameter.copy_(0.3 + 0.7 * torch.rand(parameter.shape, generator=generator))
    elif "norm" in name or ".bn" in name:
        parameter.copy_(0.1 * noise + (1.0 if name.endswith("weight") else 0.0))
    elif name.endswith("bias"):
        parameter.copy_(0.1 * noise)
    elif name.endswith("weight"):
        gain = 0.3 if name.endswith(("attn.proj.weight", "mlp.fc2.weight")) else 1.0
        parameter.copy_(gain * noise / parameter[0].numel() ** 0.5)
    else:  # class, distillation and register tokens, positions
        parameter.copy_(0.5 * noise)


def _sharpen(model: nn.Module, generator: torch.Generator) -> None:
    """Give all blocks nearly the same q and k, and large ones."""
    n_query_key = 2 * WIDTH
    weight = torch.randn((n_query_key, WIDTH), generator=generator) / WIDTH**0.5
    bias = torch.randn(n_query_key, generator=generator)
    for block in model.blocks:
        own = block.attn.qkv.weight[:n_query_key]
        own.copy_(ATTENTION_GAIN * (weight + 0.3 * own))
        if block.attn.qkv.bias is not None:
            block.attn.qkv.bias[:n_query_key] = bias


def draws(n: int, seed: int = 0) -> list[Draw]:
    """`n` draws, their wanted stop blocks running through never, 1, 2, ... L - 1 in turn."""
    rng = random.Random(seed)
    built = in_float64()
    keys = list(built)
    found = []
    for i in range(n):
        key = keys[i % len(keys)]
        found.append(_draw(key, built[key], wanted=i % DEPTH, rng=rng))
        if (i + 1) % len(keys) == 0:
            rng.shuffle(keys)  # so that a model does not always want the same blocks
    return found


def _draw(key: str, model: nn.Module, wanted: int, rng: random.Random) -> Draw:
    height, width = model.patch_embed.img_size
    fallback = None
    for _ in range(TRIES):
        image_id = rng.randrange(2**31)
        generator = torch.Generator().manual_seed(image_id)
        image = torch.randn((3, height, width), generator=generator)
        options = draw_options(model, rng)
        reachable = dict(stops(model, image, options))
        if wanted in reachable:
            stop, tau = wanted, reachable[wanted]
        else:
            stop, tau = rng.choice(list(reachable.items()))
        expected = _expected(options, stop)
        fallback = Draw(key, image, {**options, "tau": tau}, expected, image_id)
        if wanted in reachable:
            break
    return fallback


def _expected(options: dict, stop: int) -> int:
    if options.get("overhead"):
        return 0
    if stop == 0 and options.get("miss") == "force":
        return options.get("max_block") or DEPTH - 1
    return stop


def stops(model: nn.Module, image: Tensor, options: dict) -> Iterator[tuple[int, float]]:
    """Each stop block this image can have under these options, with a threshold that gives it."""
    walking = {name: options[name] for name in ("alpha", "order", "columns") if name in options}
    mass = reference_asap(model, image, anchor="mass", overhead=True, **walking).mass
    first, last = options.get("min_block", 1), options.get("max_block") or DEPTH - 1
    highest = 0.9 * mass[first - 1]
    for block in range(first, last + 1):
        if mass[block - 1] > highest * 1.001:
            yield block, (highest + mass[block - 1]) / 2
            highest = mass[block - 1]
    yield 0, 1.1 * highest


def draw_options(model: nn.Module, rng: random.Random) -> dict:
    """Options of one draw without `tau`: those not named keep the class's default."""

    def sometimes(name: str, *values: object, share: float = 0.25) -> None:
        if rng.random() < share:
            options[name] = rng.choice(values)

    options: dict = {"alpha": rng.choice([0.5, 0.5, 0.4, 0.6, 0.9, 1.0])}
    options["clusters"] = rng.choice([2, 3, 4, 6, 10])
    if not model.has_class_token:
        options["anchor"] = rng.choice(["mass", "random", "pca", "quiet"])
    else:
        sometimes("anchor", "mass", "random", "pca", "quiet", share=0.45)
    if options["clusters"] > 2:
        sometimes("background", 2)
    sometimes("pool", False)
    sometimes("accumulate", False)
    sometimes("order", "rollout")
    sometimes("columns", "all")
    sometimes("min_block", 2, 3)
    sometimes("max_block", DEPTH - 3, DEPTH - 2, DEPTH)
    sometimes("miss", "force", share=0.5)
    sometimes("position", "after_block")
    sometimes("normalise", "max")
    sometimes("binning", "rank")
    sometimes("distance_columns", "patches")
    sometimes("temperature", 0.1, 0.01)
    sometimes("weights", "normalised")
    sometimes("proportional_attention", True)
    sometimes("overhead", True, share=0.03)
    sometimes("seed", 1, 2)
    sometimes("distance", "self_aligned")
    _draw_budget(options, sometimes, model.has_class_token)
    if options.get("binning", "width") == "width":
        sometimes("clusters", "auto", share=0.15)
    return options


def _draw_budget(options: dict, sometimes: Callable, class_token: bool) -> None:
    """Budgets from the smallest possible to more than there is; plug-ins where there is one."""
    sometimes("max_tokens", 2, 3, 5, 8, 12, 16, 24, 40, share=0.5)
    if "max_tokens" not in options or not class_token:
        return
    sometimes("plugin", "diffusion", "features", "keys", share=0.6)
    if "plugin" in options:
        room = options["max_tokens"] - options.get("pool", True)
        sometimes("kappa", 0, 1, room, room // 3)
        sometimes("per_round", 1, 3, share=0.3)
        sometimes("scores", "attention", share=0.4)
        sometimes("pair_order", "attention", share=0.4)
