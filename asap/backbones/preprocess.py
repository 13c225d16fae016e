"""The preprocessing of a backbone: the one timm states for its weights, or the user's changes."""

import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from PIL import Image
from timm.data.config import resolve_data_config, resolve_model_data_config
from timm.data.transforms_factory import create_transform
from torch import Tensor, nn

from asap.errors import RequestError, meant

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "box", "hamming", "lanczos")
CROP_MODES = ("center", "squash", "border")
_OPTIONS = ("mean", "std", "crop_pct", "crop_mode", "interpolation", "img_size")
_STATED = ("mean", "std", "crop_pct", "crop_mode", "interpolation", "input_size")


@dataclass(frozen=True)
class Preprocessing:
    """timm's evaluation transform, RGB picture -> (3, h, w) float32, and the settings it has."""

    transform: Callable[[Image.Image], Tensor]
    patch_grid: tuple[int, int]  # patches down and across
    identity: dict[str, Any]


def preprocessing_of(backbone: nn.Module) -> Preprocessing:
    """timm's evaluation preprocessing of a model, for the image size it was built for."""
    config = resolve_model_data_config(backbone)
    embed: Any = backbone.patch_embed
    config["input_size"] = (3, *embed.img_size)
    transform: Any = create_transform(**config, is_training=False)
    return Preprocessing(transform, tuple(embed.grid_size), _plain(config))


def overrides(preprocess: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options of `backbone.preprocess` as fields of timm's pretrained_cfg, without null ones.

    mean, std: three numbers, for pixel values between 0 and 1; crop_pct: above 0, at most 1;
    interpolation: one of `INTERPOLATIONS`; crop_mode: one of `CROP_MODES`; img_size: pixels, or
    [height, width]. Raises RequestError for an unknown option and an impossible value.
    """
    given = {k: v for k, v in (preprocess or {}).items() if v is not None}
    for name in given:
        if name not in _OPTIONS:
            hint = meant(str(name), _OPTIONS, after=" ")
            raise RequestError(
                f"backbone.preprocess: unknown key {name!r}: {hint}known: {', '.join(_OPTIONS)}"
            )
    found = {k: v for k, v in given.items() if k != "img_size"}
    if "img_size" in given:
        found["input_size"] = (3, *size_of(given["img_size"], "backbone.preprocess.img_size"))
    _check(found, lambda name: f"backbone.preprocess.{name}={given[name]!r}")
    return {k: _exact(v) if k in ("mean", "std", "crop_pct") else v for k, v in found.items()}


def _exact(value: Any) -> Any:
    """Integers as floats, so that 1 and 1.0 give the same record key."""
    return tuple(map(float, value)) if isinstance(value, list | tuple) else float(value)


def check_stated(pretrained_cfg: Mapping[str, Any], place: str) -> None:
    """RequestError, naming `place`, for impossible values in a pretrained_cfg."""
    stated = {k: v for k, v in pretrained_cfg.items() if k in _STATED and v is not None}
    _check(stated, lambda name: f"{place}: {name}={pretrained_cfg[name]!r}")


def _check(found: Mapping[str, Any], named: Callable[[str], str]) -> None:
    tests: dict[str, tuple[Callable[[Any], bool], str]] = {
        "mean": (_three(0.0), "three numbers from 0 to 1, as pictures have"),
        "std": (_three(math.ulp(0.0)), "three numbers above 0 and at most 1, as pictures have"),
        "crop_pct": (lambda v: _is_number(v) and 0 < v <= 1, "a number above 0 and at most 1"),
        "interpolation": (lambda v: v in INTERPOLATIONS, f"one of {', '.join(INTERPOLATIONS)}"),
        "crop_mode": (lambda v: v in CROP_MODES, f"one of {', '.join(CROP_MODES)}"),
    }
    for name, (possible, kind) in tests.items():
        if name in found and not possible(found[name]):
            raise RequestError(f"{named(name)} is not possible: give {kind}")


def _three(least: float) -> Callable[[Any], bool]:
    def possible(value: Any) -> bool:
        three = isinstance(value, list | tuple) and len(value) == 3
        return three and all(_is_number(v) and least <= v <= 1 for v in value)

    return possible


def _is_number(value: Any) -> bool:
    """True for a finite number. Integers in Python and JSON may be larger than any float."""
    is_one = isinstance(value, int | float) and not isinstance(value, bool)
    return is_one and -sys.float_info.max <= value <= sys.float_info.max


def size_of(value: Any, option: str) -> tuple[int, int]:
    """Height and width from a number of pixels or a pair. RequestError for anything else."""
    pair = value if isinstance(value, list | tuple) else [value, value]
    if len(pair) != 2 or not all(type(n) is int and n > 0 for n in pair):
        raise RequestError(
            f"{option}={value!r} is not possible: give pixels, such as 224, or [height, width]"
        )
    return pair[0], pair[1]


def apart_from(
    own: Mapping[str, Any], backbone: nn.Module, reasons: Mapping[str, str], default: str
) -> str | None:
    """Where a backbone's preprocessing comes from, if it is not its architecture's; else None.

    own: the architecture's pretrained_cfg. reasons: for each setting that may differ, its origin;
    `default` for all others.
    """
    usual = _plain(resolve_data_config(pretrained_cfg=dict(own))) if own else {}
    found = preprocessing_of(backbone).identity
    odd = [name for name in found if found[name] != usual.get(name)]
    return " and ".join(dict.fromkeys(reasons.get(name, default) for name in odd)) or None


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in sorted(config.items())}
