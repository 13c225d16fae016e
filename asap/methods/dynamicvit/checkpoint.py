"""DynamicViT's predictors, read from one of its checkpoints."""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from asap.core.checkpoints import file_digest, read_state, refuse_no_floats
from asap.core.predictor import predictor_shapes
from asap.errors import RequestError

PREFIX = "score_predictor."
TRAINED = ("norm.weight", "head.weight")  # of the backbone: they identify its checkpoint
Weights = tuple[dict[str, Tensor], ...]


@dataclass(frozen=True)
class Checkpoint:
    """The predictors of a checkpoint, and what identifies its backbone."""

    predictors: Weights
    backbone: dict[str, Tensor]
    digest: str  # sha256 of the file
    placed: dict[tuple[torch.dtype, torch.device], Weights] = field(default_factory=dict)

    def at(self, like: Tensor) -> Weights:
        """The predictors in a tensor's precision, on its device; made once for each."""
        key = (like.dtype, like.device)
        if key not in self.placed:
            self.placed[key] = tuple({k: v.to(like) for k, v in p.items()} for p in self.predictors)
        return self.placed[key]


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a file. RequestError if it cannot be used or is of another method."""
    state = read_state(path, "method.weights").tensors
    own = {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}
    if not own:
        raise RequestError(
            f"weights file {path} has no {PREFIX}*: it is no checkpoint of DynamicViT; check "
            "method.weights"
        )
    refuse_no_floats({f"{PREFIX}{k}": v for k, v in own.items()}, path)
    stages = len({key.split(".")[0] for key in own})
    first = own.get("0.in_conv.0.weight", torch.empty(0))
    shapes = predictor_shapes(len(first))
    wanted = {f"{i}.{k}": s for i in range(stages) for k, s in shapes.items()}
    found = {k: tuple(v.shape) for k, v in own.items()}
    wrong = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
    if wrong:
        raise RequestError(
            f"weights file {path} does not fit DynamicViT's predictors: {PREFIX}{wrong[0]} is "
            f"{found.get(wrong[0], 'missing')}, not {wanted.get(wrong[0], 'expected')}"
        )
    predictors = tuple({k: own[f"{i}.{k}"] for k in shapes} for i in range(stages))
    if not all(torch.isfinite(v).all() for v in own.values()):
        raise RequestError(f"weights file {path} holds NaN or infinity in {PREFIX}*")
    backbone = {k: state[k] for k in TRAINED if k in state}
    return Checkpoint(predictors, backbone, file_digest(path))
