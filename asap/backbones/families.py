"""The families of backbones that are known, and the backbones of our own. Add a family here."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from asap.backbones.digits_vit import SHA256 as DIGITS_VIT_SHA256
from asap.backbones.digits_vit import digits_vit
from asap.backbones.lvvit import RELEASE as LVVIT_S_RELEASE
from asap.backbones.lvvit import LVViTTrunk, lvvit_s
from asap.backbones.trunk import Trunk, accept
from asap.backbones.vit import ViTTrunk


@dataclass(frozen=True)
class Own:
    """A backbone that timm has not: how it is built, and where its weights come from."""

    build: Callable[..., nn.Module]
    bundled: str | None = None  # sha256 of its file in this package
    released: str | None = None  # address of its authors' file


TRUNKS: tuple[type[Trunk], ...] = (ViTTrunk, LVViTTrunk)
OURS: dict[str, Own] = {
    "digits_vit": Own(digits_vit, bundled=DIGITS_VIT_SHA256),
    "lvvit_s": Own(lvvit_s, released=LVVIT_S_RELEASE),
}


def trunk_of(backbone: nn.Module) -> Trunk:
    """A backbone's parts. Raises ValueError, naming the type, for one that is not supported."""
    accept("backbone", backbone, tuple(model for trunk in TRUNKS for model in trunk.models))
    (family,) = (trunk for trunk in TRUNKS if type(backbone) in trunk.models)
    return family(backbone)
