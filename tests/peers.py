"""Helpers for the tests of the peer methods: models, checkpoints, comparison with a reference."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import torch
from draws import models, randomise
from places import Place
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

import asap
from asap.core.predictor import predictor_shapes
from asap.methods import Method

CPU = torch.device("cpu")  # where the references are computed
KEYS = sorted(models())
CLASS_KEYS = [key for key in KEYS if not key.startswith("average-")]
NEAR = 1e-5  # decisions with a margin under this may fall either way in float32
IMAGE_ID = 5  # of an image whose method draws at random
TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4}
_folder = tempfile.TemporaryDirectory(prefix="asap-peers-")


@functools.cache
def model(key: str, dtype: torch.dtype, device: torch.device = CPU) -> nn.Module:
    return models()[key]().to(device, dtype)


def picture(key: str, seed: int) -> Tensor:
    size = model(key, torch.float64).patch_embed.img_size
    return torch.randn(3, *size, generator=torch.Generator().manual_seed(seed))


@functools.cache
def deit(width: int, heads: int, depth: int = 12, patches: int = 196) -> nn.Module:
    """A DeiT of that width with random weights and one small patch embedding."""
    side = round(patches**0.5) * 16
    net = VisionTransformer(
        img_size=side, embed_dim=width, depth=depth, num_heads=heads, num_classes=1000
    )
    randomise(net, 0)
    return net.eval()


@functools.cache
def predictors(dim: int, stages: int = 3, seed: int = 0) -> tuple[dict[str, Tensor], ...]:
    """Random weights of score predictors, under their names within one predictor."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(stages):
        one = {}
        for name, shape in predictor_shapes(dim).items():
            noise = torch.randn(shape, generator=generator)
            gain = 0.1 if len(shape) == 1 else (0.5 if shape[0] == 2 else 2) / shape[1] ** 0.5
            one[name] = gain * noise + float(name == "in_conv.0.weight")
        found.append(one)
    return tuple(found)


def checkpoint(weights: tuple[dict[str, Tensor], ...], backbone: nn.Module | None = None) -> dict:
    """A checkpoint in the authors' layout."""
    state = {} if backbone is None else dict(backbone.state_dict())
    for index, one in enumerate(weights):
        state |= {f"score_predictor.{index}.{name}": value for name, value in one.items()}
    return {"model": state}


@functools.cache
def predictor_file(dim: int, stages: int = 3) -> str:
    """A file with predictors alone, which any backbone of that width may be used with."""
    path = Path(_folder.name) / f"predictors-{dim}-{stages}.pth"
    torch.save(checkpoint(predictors(dim, stages)), path)
    return str(path)


def difference(ours: Tensor, theirs: Tensor) -> float:
    theirs = theirs.double().flatten()
    return float((ours.cpu().double().flatten() - theirs).abs().max() / theirs.abs().max())


def compare(
    place: Place, key: str, method: Method, image: Tensor, expected: Any, near: float = NEAR
) -> int:
    """The engine in float64 and float32 against a reference's result; how many were compared.

    near: smaller margins may fall either way in float32 on the CPU, elsewhere those under `NEAR`.
    """
    compared, near = 0, near if place.backend.looks else NEAR
    for dtype, tolerance in TOLERANCE.items():
        if dtype == torch.float32 and expected.margin < near:
            continue
        compared += 1
        net = model(key, dtype, place.device)
        reduced = asap.ReducedViT(net, method, backend=place.backend)
        logits, trace = reduced(image[None].to(place.device, dtype), [IMAGE_ID], return_trace=True)
        where = f"{key} {method} {dtype}"
        assert trace.tokens[0].tolist() == expected.tokens, where
        assert trace.assignment[0].tolist() == expected.assignment, where
        assert difference(logits, expected.logits) < tolerance, where
        assert int(trace.macs_backbone) == expected.macs_backbone, where
        assert int(trace.macs_method) == expected.macs_method, where
    return compared
