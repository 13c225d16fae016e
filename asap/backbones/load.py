"""Build a backbone by its timm name (or one of ours) and load its weights, safely and strictly."""

import argparse
import hashlib
import os
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import safetensors
import safetensors.torch
import timm
import torch
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from asap.backbones.digits_vit import SHA256 as DIGITS_VIT_SHA256
from asap.backbones.digits_vit import digits_vit
from asap.errors import RequestError

OURS: dict[str, Callable[[], nn.Module]] = {"digits_vit": digits_vit}
BUNDLED = {"digits_vit": DIGITS_VIT_SHA256}
BUNDLED_FOLDER = Path(__file__).parent / "weights"


def load_backbone(
    name: str,
    weights: str = "hub",
    sha256: str | None = None,
    model_args: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> nn.Module:
    """A backbone in evaluation mode, float32, on the CPU.

    name: a timm model name with its tag ("deit_base_patch16_224.fb_in1k"), or "digits_vit".
    weights: "hub" (downloaded by timm, or from its cache), "bundled" (ours, in this package),
    "random" (initialised from `seed`), or the path of a .safetensors, .pth or .pt file. Files are
    loaded without executing code, strictly, and with `sha256` only if they have that digest.
    Raises RequestError for an unknown name and for weights that are missing or do not fit.
    """
    if weights == "hub" and name in OURS:
        weights = "bundled"
    if weights == "hub" and sha256 is not None:
        raise RequestError(
            f"sha256={sha256!r} is of a file, and weights='hub' is none: set it null"
        )
    torch.manual_seed(seed)
    model = _build(name, weights == "hub", dict(model_args or {}))
    if weights not in ("hub", "random"):
        path, sha256 = _file(name, weights, sha256)
        load_weights(model, path, sha256)
    _refuse_nan(model, name)
    return model.eval().requires_grad_(False)


def _file(name: str, weights: str, sha256: str | None) -> tuple[Path, str | None]:
    """The weights file and the digest it must have."""
    if weights != "bundled":
        return Path(weights), sha256
    if name not in BUNDLED:
        raise RequestError(
            f"weights='bundled' is not possible for {name!r}: only {', '.join(BUNDLED)} comes with "
            "this package; use backbone.weights=hub and backbone.sha256=null, or a file"
        )
    return BUNDLED_FOLDER / f"{name}.safetensors", sha256 or BUNDLED[name]


def _build(name: str, pretrained: bool, model_args: dict[str, Any]) -> nn.Module:
    try:
        if name in OURS:
            return OURS[name](**model_args)
        return timm.create_model(name, pretrained=pretrained, **model_args)
    except (TypeError, AssertionError) as error:
        raise RequestError(f"backbone {name!r} with {model_args}: {error}") from None
    except (RuntimeError, OSError, ValueError) as error:
        if timm.is_model(name.split(".")[0]) and pretrained:
            raise RequestError(_no_hub(name, error)) from None
        raise RequestError(_unknown(name)) from None


def _unknown(name: str) -> str:
    near = timm.list_models(f"*{name.split('.')[0]}*")[:3]
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    ours = ", ".join(OURS)
    return f"backbone name={name!r} is neither a timm model nor one of ours ({ours}){hint}"


def _no_hub(name: str, error: Exception) -> str:
    offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") == "1" else ""
    return (
        f"weights of {name!r} could not be had from the hub{offline}: {type(error).__name__}. "
        "Connect once, copy a hub cache (HF_HOME), or give backbone.weights=/path/to/file"
    )


def load_weights(model: nn.Module, path: Path, sha256: str | None = None) -> None:
    """Load a file's weights into a model, strictly. Raises RequestError."""
    if not path.is_file():
        raise RequestError(f"weights file {path} does not exist: check backbone.weights")
    if sha256 is not None and (found := file_digest(path)) != sha256:
        raise RequestError(
            f"weights file {path} has sha256 {found}, not {sha256}: it is damaged or another file"
        )
    state = _converted(_read(path), model)
    problems = _mismatches(state, model)
    if problems:
        raise RequestError(f"weights file {path} does not fit the backbone: {problems}")
    model.load_state_dict({k: v.to(model.state_dict()[k].dtype) for k, v in state.items()})


def _read(path: Path) -> dict[str, Tensor]:
    """A state dict from a file, wrappers and a `module.` prefix removed."""
    try:
        if path.suffix == ".safetensors":
            state: Any = safetensors.torch.load_file(path)
        else:
            allowed = torch.serialization.safe_globals([argparse.Namespace])
            with allowed, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that it may fail: then it says so below
                state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise RequestError(
            f"weights file {path} holds more than tensors (it may be a pickle that would run "
            "code) or is no weights file: save the weights as .safetensors"
        ) from None
    except Exception as error:  # damaged bytes fail in any way
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise RequestError(
            f"weights file {path} cannot be read: {reason}: it is damaged or no weights file"
        ) from None
    for wrapper in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise RequestError(f"weights file {path} holds no state dict of tensors")
    return {k.removeprefix("module."): v for k, v in state.items()}


def _converted(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The authors' original key names changed to timm's, if that is all that differs."""
    expected = model.state_dict()
    if state.keys() == expected.keys():
        return state
    position = state.get("pos_embed")
    if position is None or position.shape != expected["pos_embed"].shape:
        return state  # timm would resample it without a word
    return checkpoint_filter_fn(dict(state), cast(VisionTransformer, model))


def _mismatches(state: Mapping[str, Tensor], model: nn.Module) -> str:
    expected = model.state_dict()
    missing = sorted(expected.keys() - state.keys())
    extra = sorted(state.keys() - expected.keys())
    shapes = [
        f"{k} is {tuple(state[k].shape)}, not {tuple(v.shape)}"
        for k, v in expected.items()
        if k in state and state[k].shape != v.shape
    ]
    parts = [
        f"{len(names)} {what}, first {names[0]}"
        for what, names in (("missing", missing), ("unexpected", extra), ("of other shape", shapes))
        if names
    ]
    return "; ".join(parts)


def _refuse_nan(model: nn.Module, name: str) -> None:
    for key, value in model.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise RequestError(f"weights of {name!r} hold NaN or infinity in {key}")


def file_digest(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def weights_digest(model: nn.Module) -> str:
    """sha256 over a model's tensors and their names: what was loaded, wherever it came from."""
    digest = hashlib.sha256()
    for key, value in sorted(model.state_dict().items()):
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
