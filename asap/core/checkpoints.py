"""Files of weights, read without executing code from them."""

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

# Networks of methods that lie beside the backbone in a checkpoint: DynamicViT's predictors.
COMPANIONS = ("score_predictor.",)
# The entries under which timm looks for weights, in its order, averaged ones (EMA) first.
EMA = ("state_dict_ema", "model_ema")
PLAIN = ("state_dict", "model")
WRAPPERS = (*PLAIN, "module")  # what an entry may wrap its weights in once more
COUNTER = "n_averaged"  # torch's AveragedModel keeps it beside the averaged weights
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class State:
    """The tensors of a file of weights, the entry of the file that they are from (None: the file
    is these tensors), and the other entries that hold weights.
    """

    tensors: dict[str, Tensor]
    entry: str | None = None
    others: tuple[str, ...] = ()


def read_state(
    path: Path, option: str, ema: bool | None = None, averaged_first: bool = False
) -> State:
    """The weights in a .safetensors, .pth or .pt file, wrappers removed, also from the keys.

    `option` is what the user set to this path. ema: take the running averages (True) or not
    (False); None: what there is, of both the averages with `averaged_first` only. Raises
    RequestError for a file that is missing, that would run code, that cannot be read, or that does
    not hold the tensors that are asked for.
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
            raise RequestError(f"weights file {path} holds no state dict of tensors")
        return State(content)
    others = tuple(name for name in (*averaged, *usual) if name != order[0])
    return State(_inner(content[order[0]]), order[0], others)


def _entries(content: Any) -> tuple[list[str], list[str]]:
    """The entries of a checkpoint that hold averaged weights, and that hold usual ones."""
    held = [k for k, v in content.items() if _inner(v)] if isinstance(content, dict) else []
    averaged = [k for k in held if isinstance(k, str) and is_averaged(k)]
    known = [name for name in EMA if name in averaged]
    return (
        [*known, *(name for name in averaged if name not in known)],
        [name for name in PLAIN if name in held],
    )


def is_averaged(entry: str) -> bool:
    """Whether an entry's name is one of averaged weights: timm's names, and others' like them."""
    return re.search(r"(^|_)ema(_|$)", entry) is not None


def _inner(value: Any) -> dict[str, Tensor]:
    """The state dict that an entry is or wraps once more; empty if it is none."""
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
            warnings.simplefilter("ignore")  # that it may fail: then it says so below
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise RequestError(
            f"weights file {path} holds more than tensors (it may be a pickle that would run "
            "code) or is no weights file: save the weights as .safetensors"
        ) from None
    except Exception as error:  # damaged bytes fail in any way
        reason = one_line(error, kind=True)[:200]
        raise RequestError(
            f"weights file {path} cannot be read: {reason}: it is damaged or no weights file"
        ) from None


def refuse_no_floats(tensors: Mapping[str, Tensor], path: Path) -> None:
    """RequestError, naming key and type, unless all are of the types that weights have: an 8-bit
    tensor is a code for weights, and its numbers are others.
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
    """The backbone's part of a checkpoint."""
    return {k: v for k, v in state.items() if not k.startswith(COMPANIONS)}


def file_digest(path: Path) -> str:
    """sha256 of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
