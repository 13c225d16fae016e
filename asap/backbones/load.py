"""Build a backbone by its timm name (or one of ours) and load its weights, safely and strictly."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from torch import nn

from asap.backbones.families import OURS
from asap.backbones.fit import load_weights
from asap.backbones.source import BUNDLED, BUNDLED_FOLDER, WeightsFile, find_weights, unknown
from asap.checkpoints import file_digest
from asap.errors import RequestError

__all__ = [
    "BUNDLED", "BUNDLED_FOLDER", "Loaded", "file_digest", "load", "load_backbone", "load_weights",
    "weights_digest",
]  # fmt: skip


@dataclass(frozen=True)
class Loaded:
    """A backbone, and the file its weights are from; None for random ones."""

    model: nn.Module
    file: WeightsFile | None


def load_backbone(
    name: str,
    weights: str = "hub",
    sha256: str | None = None,
    model_args: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> nn.Module:
    """A backbone in evaluation mode, float32, on the CPU.

    name: a timm model name with its tag ("deit_base_patch16_224.fb_in1k"), "digits_vit" or
    "lvvit_s".
    weights: "hub" (from the hub's cache, else downloaded; without a network that fails within
    seconds), "bundled" (ours, in this package), "random" (initialised from `seed`), or the path of
    a .safetensors, .pth, .pt, .bin or .pth.tar file or of a folder with one, such as a snapshot of
    a hub repository. A file is the only source of "lvvit_s" (`lvvit.RELEASE` is its authors'
    address). Files are loaded without executing code, strictly, and with `sha256` only if they
    have that digest, those of the hub too.
    Raises RequestError for an unknown name and for weights that are missing or do not fit.
    """
    return load(name, weights, sha256, model_args, seed).model


def load(
    name: str,
    weights: str = "hub",
    sha256: str | None = None,
    model_args: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> Loaded:
    """`load_backbone`, and which file the weights came from."""
    file = find_weights(name, weights, sha256)  # first: a missing file must not cost a large model
    torch.manual_seed(seed)
    model = _build(name, dict(model_args or {}))
    if file is not None:
        load_weights(model, file.path)
    _refuse_nan(model, name)
    return Loaded(model.eval().requires_grad_(False), file)


def _build(name: str, model_args: dict[str, Any]) -> nn.Module:
    own = OURS.get(name)
    try:
        if own:
            return own.build(**model_args)
        if not timm.is_model(name.split(".")[0]):  # else timm may go and look for it on the hub
            raise RequestError(unknown(name))
        return timm.create_model(name, pretrained=False, **model_args)
    except (TypeError, AssertionError, RuntimeError, OSError, ValueError) as error:
        if "Invalid pretrained tag" in str(error):
            raise RequestError(unknown(name)) from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise RequestError(f"backbone {name!r} with {model_args}: {reason}") from None


def _refuse_nan(model: nn.Module, name: str) -> None:
    for key, value in model.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise RequestError(f"weights of {name!r} hold NaN or infinity in {key}")


def weights_digest(model: nn.Module) -> str:
    """sha256 over a model's tensors and their names: what was loaded, wherever it came from."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
