"""Loads a file's tensors into a model, strictly: every key and shape must fit; no resampling."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from asap.core.checkpoints import (
    is_averaged,
    read_state,
    refuse_no_floats,
    without_companions,
)
from asap.errors import RequestError

log = logging.getLogger("asap")

HEAD = ("head.weight", "head.bias")
SIZED = ("pos_embed", "patch_embed.proj.weight")  # tensors that timm resamples if shapes differ


@dataclass(frozen=True)
class Fitted:
    """What was loaded from a file.

    entry: the entry of the file (None: the file has no entries). others: the other entries with
    weights. assumed: an assumption about the order of the position embeddings, if one was needed.
    """

    entry: str | None = None
    others: tuple[str, ...] = ()
    assumed: str | None = None


def load_weights(
    model: nn.Module,
    path: Path,
    ema: bool | None = None,
    image_size: tuple[int, int] | None = None,
    averaged_first: bool = False,
) -> Fitted:
    """Load a file's weights into a model, strictly. Raises RequestError, which names the key.

    ema, averaged_first: see `read_state`. image_size: size of the images that the weights were made
    for, if known; it detects another grid of patches that has the same number of positions.
    Networks of a method in the same file (`COMPANIONS`) are skipped; the method loads them. If the
    model was built without a head (num_classes=0), the file's head is skipped.
    """
    found = read_state(path, "backbone.weights", ema, averaged_first)
    if found.others:
        asked = any(is_averaged(entry) for entry in (*found.others, str(found.entry)))
        choose = " (backbone.ema=true or false chooses)" if asked else ""
        others = " and ".join(found.others)
        said = "weights file %s: %s is taken, beside it lies %s%s"
        log.warning(said, path, found.entry, others, choose)
    state = _converted(without_companions(found.tensors), model, path)
    if isinstance(getattr(model, "head", None), nn.Identity):
        state = {k: v for k, v in state.items() if k not in HEAD}
    # Compare everything before loading anything, so that one error names all problems.
    kinds = {k: v.dtype for k, v in model.state_dict().items()}
    floats = (k for k, kind in kinds.items() if kind.is_floating_point and k in state)
    refuse_no_floats({k: state[k] for k in floats}, path)
    problems = _mismatches(state, model)
    if problems:
        raise RequestError(f"weights file {path} does not fit the backbone: {problems}")
    assumed = _arrangement(state, model, path, image_size)
    model.load_state_dict({k: _cast(k, v, kinds[k], path) for k, v in state.items()})
    return Fitted(found.entry, found.others, assumed)


def _cast(key: str, value: Tensor, kind: torch.dtype, path: Path) -> Tensor:
    """The value in the model's dtype. RequestError if that would change an integer value."""
    cast_value = value.to(kind)
    if not kind.is_floating_point and not torch.equal(cast_value.to(value.dtype), value):
        raise RequestError(
            f"weights file {path} does not fit: {key} is {value.dtype} with values that are not "
            f"{kind}: save it as the model has it"
        )
    return cast_value


def _arrangement(
    state: Mapping[str, Tensor], model: Any, path: Path, image_size: tuple[int, int] | None
) -> str | None:
    """The assumption about the order of the position embeddings, if one is needed, else None.

    An assumption is needed if the image size of the weights is unknown and the model's grid of
    patches is not square. RequestError if the weights were made for images with another grid of
    patches.
    """
    embed = getattr(model, "patch_embed", None)
    if "pos_embed" not in state or embed is None:
        return None
    rows, columns = embed.grid_size
    if image_size is not None:
        height, width = (n // p for n, p in zip(image_size, embed.patch_size, strict=True))
        if height * width == rows * columns:  # otherwise the size is not that of these positions
            if (height, width) != (rows, columns):
                raise RequestError(
                    f"weights file {path} does not fit the backbone: its positions are those of "
                    f"{height} x {width} patches and the backbone has {rows} x {columns}: set "
                    f"backbone.model_args.img_size=[{image_size[0]},{image_size[1]}]"
                )
            return None
    if rows == columns:
        return None
    assumed = f"positions of {rows} x {columns} patches, row by row"
    log.warning("weights file %s does not say how its positions lie: taken as %s", path, assumed)
    return assumed


def _converted(state: dict[str, Tensor], model: nn.Module, path: Path) -> dict[str, Tensor]:
    """The tensors under timm's names, converted from the authors' (CLIP, DINOv2, DeiT III)."""
    expected = model.state_dict()
    if state.keys() == expected.keys() or not isinstance(model, VisionTransformer):
        return state
    if any(k in state and state[k].shape != expected[k].shape for k in SIZED if k in expected):
        return state  # timm would silently resample; instead `_mismatches` reports the shape
    try:
        vit = cast(Any, model)
        # This keeps timm from resampling. `_arrangement` checks the grid later.
        vit.pretrained_model_args = {"img_size": vit.patch_embed.img_size}
        converted = checkpoint_filter_fn(dict(state), vit, adapt_layer_scale=True)
    except Exception:  # keys in no layout that timm knows; `_mismatches` reports them
        return state
    for key in SIZED:
        if key in converted and not _is_among(converted[key], state):
            raise RequestError(
                f"weights file {path} does not fit the backbone: {key} would have to be resampled "
                f"to {tuple(converted[key].shape)}: take the model of these weights' image size"
            )
    return converted


def _is_among(value: Tensor, state: Mapping[str, Tensor]) -> bool:
    """True if one of the file's tensors holds the same numbers, in any shape."""
    flat = value.flatten()
    same = (other for other in state.values() if other.numel() == flat.numel())
    return any(torch.equal(other.flatten(), flat) for other in same)


def _mismatches(state: Mapping[str, Tensor], model: nn.Module) -> str:
    expected = model.state_dict()
    missing = sorted(expected.keys() - state.keys())
    extra = sorted(state.keys() - expected.keys())
    shapes = [
        f"{k} is {tuple(state[k].shape)}, not {tuple(v.shape)}"
        for k, v in expected.items()
        if k in state and state[k].shape != v.shape
    ]
    parts = listed_problems(missing, extra, shapes) + _prefixed(state, expected)
    return "; ".join([*parts, *_classes(state, expected), *_positions(state, expected)])


def _prefixed(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """An explanation if all the model's keys are there behind the name of an outer module."""
    first = next(iter(expected))
    outer = [key.removesuffix(first) for key in state if key.endswith(f".{first}")]
    found = [name for name in outer if all(name + key in state for key in expected)]
    return (
        [f"all are there with {found[0]!r} before their names: save them without"] if found else []
    )


def listed_problems(missing: list[str], extra: list[str], shapes: list[str]) -> list[str]:
    """What keeps a file's tensors from being a model's: how many of each kind, and the first."""
    return [
        f"{len(names)} {what}, first {names[0]}"
        for what, names in (("missing", missing), ("unexpected", extra), ("of other shape", shapes))
        if names
    ]


def _classes(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """An explanation if the head is for another number of classes."""
    head = HEAD[0]
    if head not in state or head not in expected or len(state[head]) == len(expected[head]):
        return []
    return [
        f"the weights have {len(state[head])} classes and the backbone was built for "
        f"{len(expected[head])}: check backbone.model_args.num_classes"
    ]


def _positions(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """An explanation if the position embeddings are for another image size."""
    key = SIZED[0]
    if key not in state or key not in expected or state[key].shape == expected[key].shape:
        return []
    return ["nothing is resampled: take the model of these weights' image size (img_size)"]
