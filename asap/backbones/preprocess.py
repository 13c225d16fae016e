"""The preprocessing that a backbone's weights were made for, as timm states it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image
from timm.data.config import resolve_model_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn


@dataclass(frozen=True)
class Preprocessing:
    """timm's evaluation transform, RGB picture -> (3, h, w) float32, and what defines it."""

    transform: Callable[[Image.Image], Tensor]
    patch_grid: tuple[int, int]  # patches down and across
    identity: dict[str, Any]


def preprocessing_of(backbone: nn.Module) -> Preprocessing:
    """timm's evaluation preprocessing of a model, at the size it was built for."""
    config = resolve_model_data_config(backbone)
    embed: Any = backbone.patch_embed
    config["input_size"] = (3, *embed.img_size)
    identity = {k: list(v) if isinstance(v, tuple) else v for k, v in sorted(config.items())}
    transform: Any = create_transform(**config, is_training=False)
    return Preprocessing(transform, tuple(embed.grid_size), identity)
