"""Files of weights, read without executing code from them."""

import argparse
import hashlib
import pickle
import warnings
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from asap.errors import RequestError

# Networks of methods that lie beside the backbone in a checkpoint: DynamicViT's predictors.
COMPANIONS = ("score_predictor.",)


def read_state(path: Path, option: str) -> dict[str, Tensor]:
    """A state dict from a .safetensors, .pth or .pt file, wrappers and a `module.` prefix removed.

    `option` is what the user set to this path. Raises RequestError for a file that is missing, that
    would run code, that cannot be read, or that holds no tensors.
    """
    if not path.is_file():
        raise RequestError(f"weights file {path} does not exist: check {option}")
    state = _load(path)
    for wrapper in ("model", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in state.items()
    ):
        raise RequestError(f"weights file {path} holds no state dict of tensors")
    plain = {k.removeprefix("module."): v for k, v in state.items()}
    if len(plain) < len(state):
        raise RequestError(f"weights file {path} has keys both with and without `module.`")
    return plain


def _load(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        allowed = torch.serialization.safe_globals([argparse.Namespace])
        with allowed, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that it may fail: then it says so below
            return torch.load(path, map_location="cpu", weights_only=True)
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


def without_companions(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The backbone's part of a checkpoint."""
    return {k: v for k, v in state.items() if not k.startswith(COMPANIONS)}


def file_digest(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
