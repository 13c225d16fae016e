"""The supported families of backbones, and the backbones of this package. Add a family here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from asap.backbones import digits_vit, lvvit
from asap.backbones.adapter import BackboneAdapter, accept
from asap.backbones.vit import ViTAdapter


@dataclass(frozen=True)
class Own:
    """A backbone that timm does not have: its constructor, preprocessing and weights."""

    build: Callable[..., nn.Module]
    preprocessing: Mapping[str, Any]
    bundled: str | None = None  # sha256 of the weights file in this package
    released: str | None = None  # address of the authors' weights file


ADAPTERS: tuple[type[BackboneAdapter], ...] = (ViTAdapter, lvvit.LVViTAdapter)
OURS: dict[str, Own] = {
    "digits_vit": Own(digits_vit.digits_vit, digits_vit.PREPROCESSING, bundled=digits_vit.SHA256),
    "lvvit_s": Own(lvvit.lvvit_s, lvvit.PREPROCESSING, released=lvvit.RELEASE),
}


def adapter_of(backbone: nn.Module) -> BackboneAdapter:
    """A backbone's parts. Raises ValueError, naming the type, for one that is not supported."""
    accept("backbone", backbone, tuple(model for adapter in ADAPTERS for model in adapter.models))
    (family,) = (adapter for adapter in ADAPTERS if type(backbone) in adapter.models)
    return family(backbone)
