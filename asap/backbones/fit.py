"""Put a file's tensors into a model, strictly: every key, every shape, nothing resampled."""

from collections.abc import Mapping
from pathlib import Path
from typing import cast

import torch
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from asap.checkpoints import read_state, without_companions
from asap.errors import RequestError

HEAD = ("head.weight", "head.bias")
SIZED = ("pos_embed", "patch_embed.proj.weight")  # what timm resamples when shapes differ


def load_weights(model: nn.Module, path: Path) -> None:
    """Load a file's weights into a model, strictly. Raises RequestError naming the key.

    A method's own networks beside them (`COMPANIONS`) are the method's to load. A model that was
    built without a head (num_classes=0) leaves the file's head out.
    """
    state = _converted(without_companions(read_state(path, "backbone.weights")), model, path)
    if isinstance(getattr(model, "head", None), nn.Identity):
        state = {k: v for k, v in state.items() if k not in HEAD}
    problems = _mismatches(state, model)
    if problems:
        raise RequestError(f"weights file {path} does not fit the backbone: {problems}")
    kinds = {k: v.dtype for k, v in model.state_dict().items()}
    model.load_state_dict({k: v.to(kinds[k]) for k, v in state.items()})


def _converted(state: dict[str, Tensor], model: nn.Module, path: Path) -> dict[str, Tensor]:
    """The authors' original names (CLIP's, DINOv2's, DeiT III's) changed to timm's."""
    expected = model.state_dict()
    if state.keys() == expected.keys() or not isinstance(model, VisionTransformer):
        return state
    if any(k in state and state[k].shape != expected[k].shape for k in SIZED if k in expected):
        return state  # timm would resample it without a word; so it is named as not fitting
    try:
        vit = cast(VisionTransformer, model)
        converted = checkpoint_filter_fn(dict(state), vit, adapt_layer_scale=True)
    except Exception:  # keys of no layout that timm knows: they are named as not fitting
        return state
    for key in SIZED:
        if key in converted and not _is_among(converted[key], state):
            raise RequestError(
                f"weights file {path} does not fit the backbone: {key} would have to be resampled "
                f"to {tuple(converted[key].shape)}: take the model of these weights' image size"
            )
    return converted


def _is_among(value: Tensor, state: Mapping[str, Tensor]) -> bool:
    """Whether one of the file's tensors holds these numbers, in whatever shape."""
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
    parts = [
        f"{len(names)} {what}, first {names[0]}"
        for what, names in (("missing", missing), ("unexpected", extra), ("of other shape", shapes))
        if names
    ]
    return "; ".join([*parts, *_classes(state, expected)])


def _classes(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """In words, a head for another number of classes."""
    head = HEAD[0]
    if head not in state or head not in expected or len(state[head]) == len(expected[head]):
        return []
    return [
        f"the weights have {len(state[head])} classes and the backbone was built for "
        f"{len(expected[head])}: check backbone.model_args.num_classes"
    ]
