"""Heads that answer for a view of a clip from the features of its frames, and their files.

A head is trained on the features of an unreduced backbone (`asap/measure/heads/`) and serves every
method. Its file says which backbone, preprocessing, frames and classes it is for; it is refused
with others.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn

from asap.backbones.weights.load import weights_digest
from asap.core.rows import rowwise
from asap.errors import RequestError, one_line
from asap.records.disk import write_bytes

FORMAT = 1  # of the file
MLP_RATIO = 4
INIT_STD = 0.02  # of the query and the positions


@dataclass(frozen=True)
class HeadConfig:
    """What a head is for, and its size.

    kind: linear | attention; heads: of the attention. reads: class | tokens, see
    `frame_encoder.py`; width: of a frame's feature; frames: of a view. classes: how many;
    class_digest: of their names, in order. backbone: its name, for messages; weights: the digest of
    its tensors; preprocessing: of the frames, as in records; features: fp16 | fp32, the type to
    which features are rounded before the head reads them.
    """

    kind: str
    reads: str
    width: int
    frames: int
    classes: int
    class_digest: str
    backbone: str
    weights: str
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    features: str = "fp16"
    heads: int = 16


class LinearHead(nn.Module):
    """LayerNorm and a linear layer on the mean of the frames' features; blind to their order."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, classes)

    def forward(self, features: Float[Tensor, "b frames dim"]) -> Float[Tensor, "b classes"]:
        """Logits; on a CPU those of a view do not depend on the others."""
        return rowwise(lambda x: self.out(self.norm(x)), features.mean(1))


class AttentionHead(nn.Module):
    """A learned query over the frames' features, with learned positions in time: one block.

    LayerNorm, attention of several heads, MLP, each with its residual, then LayerNorm and a linear
    layer. ValueError if the heads do not divide the width.
    """

    def __init__(self, width: int, frames: int, classes: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide features of width {width}")
        self.heads = heads
        self.query = nn.Parameter(INIT_STD * torch.randn(width))
        self.positions = nn.Parameter(INIT_STD * torch.randn(frames, width))
        self.norm1 = nn.LayerNorm(width)
        self.to_query = nn.Linear(width, width)
        self.to_keys_values = nn.Linear(width, 2 * width)
        self.proj = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, MLP_RATIO * width), nn.GELU(), nn.Linear(MLP_RATIO * width, width)
        )
        self.norm3 = nn.LayerNorm(width)
        self.out = nn.Linear(width, classes)

    def forward(self, features: Float[Tensor, "b frames dim"]) -> Float[Tensor, "b classes"]:
        """Logits; on a CPU those of a view do not depend on the others."""
        b, frames, width = features.shape
        rows = (features + self.positions).flatten(0, 1)
        both = rowwise(lambda x: self.to_keys_values(self.norm1(x)), rows)
        keys, values = both.view(b, frames, 2, self.heads, -1).unbind(2)
        query = self.to_query(self.query).view(self.heads, -1)
        # One query: sums of products of each view alone, where a matrix product's bits may depend
        # on the number of views.
        scores = (keys * query).sum(-1) / math.sqrt(width // self.heads)
        shares = scores.transpose(1, 2).contiguous().softmax(-1).transpose(1, 2)
        seen = (shares[..., None] * values).sum(1).reshape(b, width)
        return rowwise(self._answer, seen)

    def _answer(self, seen: Float[Tensor, "b dim"]) -> Float[Tensor, "b classes"]:
        x = self.query + self.proj(seen)
        x = x + self.mlp(self.norm2(x))
        return self.out(self.norm3(x))


def build_head(config: HeadConfig) -> nn.Module:
    """A head with torch's random weights, in evaluation mode.

    RequestError if its attention's heads do not divide the width.
    """
    if config.kind == "linear":
        return LinearHead(config.width, config.classes).eval()
    try:
        head = AttentionHead(config.width, config.frames, config.classes, config.heads)
    except ValueError as error:
        raise RequestError(f"head.heads={config.heads} is not possible: {error}") from None
    return head.eval()


def head_macs(config: HeadConfig) -> int:
    """Multiply-accumulates of a head for one view: its matrix products and the attention's."""
    width, frames = config.width, config.frames
    out = width * config.classes
    if config.kind == "linear":
        return out
    keys_values, attention = 2 * frames * width**2, 2 * frames * width
    query_and_projection, mlp = 2 * width**2, 2 * MLP_RATIO * width**2
    return keys_values + attention + query_and_projection + mlp + out


# ---- the file


def head_digest(head: nn.Module, config: HeadConfig) -> str:
    """SHA-256 of a head's weights and of what it is for."""
    return sha256(f"{weights_digest(head)}:{_text(config)}".encode()).hexdigest()


def head_bytes(head: nn.Module, config: HeadConfig) -> bytes:
    """The content of a head's file: the same head gives the same bytes."""
    stated = {"format": FORMAT, "config": asdict(config), "digest": head_digest(head, config)}
    # One entry: the library writes several in any order.
    metadata = {"head": json.dumps(stated, sort_keys=True)}
    tensors = {k: v.detach().cpu().contiguous() for k, v in head.state_dict().items()}
    return safetensors.torch.save(tensors, metadata)


def save_head(path: Path, head: nn.Module, config: HeadConfig) -> None:
    """Write a head's file, whole or not at all; RequestError if the disk does not take it."""
    write_bytes(path, head_bytes(head, config))


def load_head(path: Path) -> tuple[nn.Module, HeadConfig]:
    """The head in a file, in evaluation mode, float32, on the CPU, and what it is for.

    RequestError if the file is missing, damaged, or not the file of a head.
    """
    if not path.is_file():
        what = "is not a file" if path.exists() else "does not exist"
        raise RequestError(f"head file {path} {what}: check head.file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            stated = json.loads((file.metadata() or {}).get("head", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except Exception as error:  # damaged files may fail in any way
        reason = one_line(error, kind=True)[:200]
        raise RequestError(f"head file {path} cannot be read: {reason}: make it again") from None
    config = _config_of(stated, path)
    head = build_head(config)
    try:
        head.load_state_dict(tensors)
    except RuntimeError as error:
        raise RequestError(
            f"head file {path} does not hold the head that it states: {one_line(error)[:200]}: "
            "make it again"
        ) from None
    if head_digest(head, config) != stated.get("digest"):
        raise RequestError(f"head file {path} is damaged (its digest differs): make it again")
    return head, config


def refuse_other(path: Path, found: HeadConfig, wanted: HeadConfig) -> None:
    """RequestError, naming the difference, if a head is not for this backbone, data and spec.

    `heads` is the head's own affair.
    """
    for name, what, remedy in (
        ("weights", "other backbone weights", "use the backbone that it was trained with"),
        ("preprocessing", "other preprocessing", "use the one that it was trained with"),
        ("frames", "clips of another number of frames", f"set data.frames={found.frames}"),
        ("classes", "another number of classes", "use a head trained on these classes"),
        ("class_digest", "other classes, or in another order", "use a head trained on these"),
        ("kind", "another kind", f"set head={found.kind}"),
        ("reads", "other features", f"set head.reads={found.reads}"),
        ("width", "features of another width", "use the backbone that it was trained with"),
        ("features", "features of another type", f"set head.features={found.features}"),
    ):
        has, needs = getattr(found, name), getattr(wanted, name)
        if has == needs:
            continue
        both = f"{has} and not {needs}"
        if name == "weights":
            both = f"of {found.backbone}, {has[:12]}, and not of {wanted.backbone}, {needs[:12]}"
        if name == "class_digest":
            both = f"{has[:12]} and not {needs[:12]}"
        raise RequestError(f"head file {path} is for {what}: {both}: {remedy}")


def class_digest(classes: tuple[str, ...]) -> str:
    """The digest of the names of classes, in their order."""
    return sha256(json.dumps(list(classes)).encode()).hexdigest()


def _config_of(stated: Any, path: Path) -> HeadConfig:
    if not isinstance(stated, dict) or stated.get("format") != FORMAT:
        raise RequestError(
            f"{path} is no head file of format {FORMAT}: give a head.safetensors of this project"
        )
    config = stated.get("config")
    known = {f.name for f in fields(HeadConfig)}
    if not isinstance(config, dict) or config.keys() != known:
        raise RequestError(f"head file {path} is damaged (its settings are not complete)")
    return HeadConfig(**config)


def _text(config: HeadConfig) -> str:
    return json.dumps(asdict(config), sort_keys=True)
