"""Reads the config.json beside a weights file, as timm does.

timm's `save_for_hf` writes it, and every repository of a timm model on the hub has one. Other
libraries use the same file name with other content, which timm cannot read.
"""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from timm.models import PretrainedCfg, filter_pretrained_cfg, split_model_name_tag
from timm.models._hub import load_model_config_from_path

from asap.backbones.preprocess import check_stated
from asap.backbones.weights.hub import CONFIG
from asap.errors import RequestError, one_line

log = logging.getLogger("asap")

_FIELDS = {f.name for f in fields(PretrainedCfg)}
# The top-level fields of timm's old config format; such a file has no other fields.
_OLD = _FIELDS | {"num_features", "labels"}
_OF_IMAGES = {"input_size", "mean", "std", "crop_pct", "interpolation"}


@dataclass(frozen=True)
class WeightsConfig:
    """The content of timm's config.json; `pretrained_cfg` is without the locations of weights."""

    path: Path
    architecture: str
    pretrained_cfg: Mapping[str, Any]
    model_args: Mapping[str, Any]

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that the position embeddings were made for."""
        given = self.model_args.get("img_size") or self.advised_size
        return (given, given) if isinstance(given, int) else (given[-2], given[-1])

    @property
    def advised_size(self) -> tuple[int, int]:
        """Height and width of the images for evaluation."""
        size = self.pretrained_cfg.get("input_size") or PretrainedCfg.input_size
        return size[-2], size[-1]


def read_config(folder: Path) -> WeightsConfig | None:
    """Read timm's config.json in a folder; None without one. RequestError if it is invalid."""
    path = folder / CONFIG
    if not path.is_file():
        return None
    content = _json(path)
    if not _is_timms(content):
        log.warning("%s is of another library than timm: it is not taken into account", path)
        return None
    try:
        known, architecture, model_args = load_model_config_from_path(folder)
        _refuse_unknown(known)
        if not isinstance(architecture, str):
            raise TypeError(f"architecture={architecture!r} is not a name")
        architecture = split_model_name_tag(architecture)[0]  # a tag would name other weights
        _refuse_no_size(known, model_args)
        known = {**known, **_of_all_channels(known)}
        check_stated(known, str(path))
        plain = filter_pretrained_cfg(known, remove_source=True)
        found = WeightsConfig(path, architecture, plain, dict(model_args))
    except RequestError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
        reason = one_line(error, kind=True)
        raise RequestError(f"{path} is not as timm writes it: {reason}: repair it") from None
    return found


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = one_line(error)
        raise RequestError(
            f"{path} describes how these weights are used, but cannot be read: {reason}: repair "
            "it, or take the weights out of its folder"
        ) from None


def _is_timms(content: Any) -> bool:
    """True for timm's own format. Configs of other libraries have other fields and are not used."""
    if not isinstance(content, dict):
        return False
    if "pretrained_cfg" in content:
        return isinstance(content["pretrained_cfg"], dict)
    named = isinstance(content.get("architecture"), str)
    return named and bool(_OF_IMAGES & content.keys()) and content.keys() <= _OLD


def _of_all_channels(known: Mapping[str, Any]) -> dict[str, list[Any]]:
    """A mean or std with a single number, repeated for three channels as timm does."""
    found = {name: known[name] for name in ("mean", "std") if known.get(name) is not None}
    lists = {k: v if isinstance(v, list) else [v] for k, v in found.items()}
    return {name: 3 * value for name, value in lists.items() if len(value) == 1}


def _refuse_unknown(known: Mapping[str, Any]) -> None:
    if unknown := sorted(known.keys() - _FIELDS):
        raise ValueError(f"pretrained_cfg has the unknown field {unknown[0]!r}")


def _refuse_no_size(known: Mapping[str, Any], model_args: Mapping[str, Any]) -> None:
    sizes = {"input_size": known.get("input_size"), "img_size": model_args.get("img_size")}
    for name, size in sizes.items():
        if size is None or (name == "img_size" and type(size) is int and size > 0):
            continue
        numbers = size if isinstance(size, list | tuple) else []
        dimensions = 3 if name == "input_size" else 2
        if len(numbers) != dimensions or not all(type(n) is int and n > 0 for n in numbers):
            raise ValueError(f"{name}={size!r} is not an image size")
