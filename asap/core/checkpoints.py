"""Reads weights files without executing code from them."""

import argparse
import hashlib
import pickle
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from timm.models import clean_state_dict
from torch import Tensor

from asap.errors import RequestError, one_line

# Prefixes of methods' own networks in a checkpoint of a backbone: DynamicViT's predictors.
COMPANIONS = ("score_predictor.",)
# The entries in which timm looks for weights, in its order, averaged ones (EMA) first.
EMA = ("state_dict_ema", "model_ema")
PLAIN = ("state_dict", "model")
WRAPPERS = (*PLAIN, "module")  # keys in which an entry may nest its weights once more
COUNTER = "n_averaged"  # a counter that torch's AveragedModel stores with the weights
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class State:
    """The tensors of a weights file.

    entry: the entry they come from, None if the file has no entries. others: the other entries that
    hold weights.
    """

    tensors: dict[str, Tensor]
    entry: str | None = None
    others: tuple[str, ...] = ()


def read_state(
    path: Path, option: str, ema: bool | None = None, averaged_first: bool = False
) -> State:
    """The weights in a .safetensors, .pth or .pt file, without wrappers, also in the keys.

    option: the option that the user set to this path, for messages. ema: read the averaged weights
    (True) or the others (False); None reads what there is, and if there are both, the averaged ones
    only with `averaged_first`. Raises RequestError for a file that is missing, that would run code,
    that cannot be read, or that does not hold the requested tensors.
    """
    if not path.is_file():
        raise RequestError(f"weights file {path} does not exist: check {option}")
    state = _entry(_load(path), path, ema, averaged_first)
    tensors = {k: v for k, v in state.tensors.items() if k != COUNTER}
    plain = clean_state_dict(tensors)
    if len(plain) < len(tensors):
        raise RequestError(
            f"weights file {path} has keys both with and without `module.` or `_orig_mod.`: save "
            "them once"
        )
    return State(plain, state.entry, state.others)


def _entry(content: Any, path: Path, ema: bool | None, averaged_first: bool) -> State:
    """What a file's content has of the wanted kind."""
    averaged, usual = _entries(content)
    if ema is True and not averaged:
        raise RequestError(
            f"weights file {path} holds no EMA weights ({' or '.join(EMA)}): set backbone.ema=null"
        )
    if ema is False and averaged and not usual:
        raise RequestError(
            f"weights file {path} holds EMA weights alone ({averaged[0]}): set backbone.ema=true"
        )
    first = [name for name in averaged if averaged_first and name in EMA]  # that timm looks for
    order = {True: averaged, False: usual, None: [*first, *usual, *averaged]}[ema]
    if not order:
        if not _is_state(content):
            raise RequestError(
                f"weights file {path} holds no state dict of tensors{_held(content)}"
            )
        return State(content)
    others = tuple(name for name in (*averaged, *usual) if name != order[0])
    return State(_inner(content[order[0]]), order[0], others)


def _entries(content: Any) -> tuple[list[str], list[str]]:
    """The entries of a checkpoint with averaged weights, and the entries with the others."""
    held = [k for k, v in content.items() if _inner(v)] if isinstance(content, dict) else []
    averaged = [k for k in held if isinstance(k, str) and is_averaged(k)]
    known = [name for name in EMA if name in averaged]
    return (
        [*known, *(name for name in averaged if name not in known)],
        [name for name in PLAIN if name in held],
    )


def _held(content: Any) -> str:
    """Where the weights of a file may be, if it has entries under names that are not known."""
    held = [str(k) for k, v in content.items() if _inner(v)] if isinstance(content, dict) else []
    if not held:
        return ": save the model's state_dict()"
    known = ", ".join((*EMA, *PLAIN))
    return f" in an entry that is known ({known}), but in {', '.join(held)}: save that entry alone"


def is_averaged(entry: str) -> bool:
    """True if an entry's name is that of averaged weights (timm's names and similar ones)."""
    return re.search(r"(^|_)ema(_|$)", entry) is not None


def _inner(value: Any) -> dict[str, Tensor]:
    """The state dict in an entry, which may be nested once more; empty if there is none."""
    if not isinstance(value, dict):
        return {}
    inside = (value[name] for name in WRAPPERS if isinstance(value.get(name), dict))
    return next((found for found in (value, *inside) if _is_state(found)), {})


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items()
    )


def _load(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        allowed = torch.serialization.safe_globals([argparse.Namespace])
        with allowed, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a failure is reported below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise RequestError(
            f"weights file {path} holds more than tensors (it may be a pickle that would run "
            "code) or is not a weights file: save the weights as .safetensors"
        ) from None
    except Exception as error:  # damaged files may fail in any way
        reason = one_line(error, kind=True)[:200]
        raise RequestError(
            f"weights file {path} cannot be read: {reason}: it is damaged or not a weights file"
        ) from None


def refuse_no_floats(tensors: Mapping[str, Tensor], path: Path) -> None:
    """RequestError, naming key and dtype, unless all tensors are dense and of a floating-point
    dtype.

    An 8-bit tensor, for example, holds quantised codes and not the weights themselves.
    """
    for key, value in tensors.items():
        if value.layout != torch.strided or value.is_meta:
            kind = "without numbers (meta)" if value.is_meta else f"{value.layout}"
            raise RequestError(
                f"weights file {path} does not fit: {key} is {kind.removeprefix('torch.')}: save "
                "the weights as dense tensors"
            )
    odd = {k: v.dtype for k, v in tensors.items() if v.dtype not in FLOATS}
    if odd:
        key, kind = next(iter(odd.items()))
        many = f" (and {len(odd) - 1} more)" if len(odd) > 1 else ""
        raise RequestError(
            f"weights file {path} does not fit: {key}{many} is {str(kind).removeprefix('torch.')} "
            "where weights are float16, bfloat16, float32 or float64: quantised weights must be "
            "dequantised first: save them as float32 and give that file"
        )


def without_companions(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a checkpoint that belong to the backbone."""
    return {k: v for k, v in state.items() if not k.startswith(COMPANIONS)}


def file_digest(path: Path) -> str:
    """The sha256 of a file, which is read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """The sha256 of tensors and their names, in any order."""
    digest = hashlib.sha256()
    for key, value in sorted(tensors.items()):
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
