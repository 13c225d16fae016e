"""Builds a backbone by its timm name (or one of ours) and loads its weights, strictly."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
from timm.models import PretrainedCfg, get_pretrained_cfg
from torch import nn

from asap.backbones.accepted import OURS
from asap.backbones.preprocess import apart_from, overrides, size_of
from asap.backbones.weights.config_json import WeightsConfig
from asap.backbones.weights.fit import Fitted, load_weights
from asap.backbones.weights.locate import (
    BUNDLED,
    BUNDLED_FOLDER,
    WeightsFile,
    WeightsSource,
    find_source,
)
from asap.core.checkpoints import file_digest, tensors_digest
from asap.errors import RequestError, one_line

__all__ = [
    "BUNDLED", "BUNDLED_FOLDER", "Loaded", "file_digest", "load", "load_backbone", "load_weights",
    "weights_digest",
]  # fmt: skip

log = logging.getLogger("asap")

# Arguments of timm that do not describe a model, and the option to use instead.
_NO_MODEL_ARGS = {
    **dict.fromkeys(("pretrained", "checkpoint_path", "cache_dir"), "backbone.weights"),
    **dict.fromkeys(("pretrained_cfg", "pretrained_cfg_overlay"), "backbone.preprocess"),
    "pretrained_model_args": "backbone.weights", "device": "device", "dtype": "precision",
}  # fmt: skip


@dataclass(frozen=True)
class Loaded:
    """A backbone and its origin.

    file: of its weights, None for random ones. fitted: what was loaded from it. args: the arguments
    that the model was built with, also those from the config.json beside the weights.
    preprocessing_from: the origin of its preprocessing, None if it is the architecture's own.
    """

    model: nn.Module
    file: WeightsFile | None
    fitted: Fitted
    args: Mapping[str, Any]
    preprocessing_from: str | None


def load_backbone(
    name: str,
    weights: str = "hub",
    sha256: str | None = None,
    model_args: Mapping[str, Any] | None = None,
    seed: int = 0,
    preprocess: Mapping[str, Any] | None = None,
    ema: bool | None = None,
) -> nn.Module:
    """A backbone in evaluation mode, float32, on the CPU.

    name: a timm model name with its tag ("deit_base_patch16_224.fb_in1k"), "digits_vit", "lvvit_s",
    or, as in timm, "local-dir:/folder" or "hf-hub:owner/name[@revision]": a folder or repository
    with weights and timm's config.json.

    weights: "hub" (from the hub's cache, else downloaded, which fails within seconds without a
    network; for a local-dir: or hf-hub: name, the weights in that place), "bundled" (those in this
    package), "random" (initialised from `seed`), or the path of a .safetensors, .pth, .pt, .bin or
    .pth.tar file, or of a folder with one, such as a snapshot of a hub repository. "lvvit_s" needs
    a file (`lvvit.RELEASE` is the address of its authors' file). Files are loaded strictly and
    without executing code. With `sha256`, any file, also from the hub, must have that digest.
    timm's config.json in the folder of the weights is used as timm uses it: model arguments,
    classes, preprocessing.

    model_args: arguments of the model; they take precedence over those in the config.json.

    preprocess: mean, std, crop_pct, crop_mode, interpolation, img_size in place of the weights' own
    (see `preprocess.overrides`); with img_size the model is built for that size, and nothing is
    resampled.

    ema: if a checkpoint has both, load the averaged weights (True) or the others (False). None does
    the same as timm: the averaged ones if there is a config.json (its local-dir:), the others if
    there is only a file (its validate.py --checkpoint). A warning names the choice.

    The model's `pretrained_cfg` holds the resulting preprocessing, for
    `timm.data.resolve_model_data_config(model)`. Raises RequestError for an unknown name and for
    weights that are missing or do not fit.
    """
    return load(name, weights, sha256, model_args, seed, preprocess, ema).model


def load(
    name: str,
    weights: str = "hub",
    sha256: str | None = None,
    model_args: Mapping[str, Any] | None = None,
    seed: int = 0,
    preprocess: Mapping[str, Any] | None = None,
    ema: bool | None = None,
) -> Loaded:
    """The same as `load_backbone`, with the backbone's origin."""
    wanted, given = overrides(preprocess), dict(model_args or {})
    _refuse_no_model_args(given, "backbone.model_args")
    if given.get("img_size") is not None:
        size_of(given["img_size"], "backbone.model_args.img_size")
    if ema and weights == "random":
        raise RequestError("backbone.ema=true is of a file, and backbone.weights=random reads none")
    # Before building the model, so that a missing file is reported at once.
    source = find_source(name, weights, sha256)
    size = wanted.pop("input_size", None)
    _refuse_two_sizes(size, given)
    model, args = _at_size(source, _args(source.config, given), size, seed)
    _check_patches(model, name, by_hand=bool(size) or "img_size" in given)
    fitted = Fitted()
    if source.file is not None:
        has_config = source.config is not None
        fitted = load_weights(model, source.file.path, ema, source.image_size, has_config)
    _refuse_nan(model, name)
    # Where each setting of the preprocessing comes from, for the record.
    reasons = dict.fromkeys(wanted, "backbone.preprocess")
    if size or "img_size" in given:
        reasons["input_size"] = "backbone.preprocess" if size else "backbone.model_args"
    else:
        _refuse_other_size(model, source.config)
    own = _prepared(model, source, wanted, reasons)
    return Loaded(model.eval().requires_grad_(False), source.file, fitted, args, own)


def _prepared(
    model: Any, source: WeightsSource, wanted: Mapping[str, Any], reasons: Mapping[str, str]
) -> str | None:
    """Write the preprocessing into the model.

    Returns its origin, None if it is the architecture's own.
    """
    if (size := _built_size(model)) is None:
        return None
    model.pretrained_cfg = {**model.pretrained_cfg, **wanted, "input_size": (3, *size)}
    model.default_cfg = model.pretrained_cfg
    return apart_from(_own_cfg(source), model, reasons, "config.json beside the weights")


def _refuse_no_model_args(args: Mapping[str, Any], place: str) -> None:
    for name in args.keys() & _NO_MODEL_ARGS.keys():
        raise RequestError(
            f"{place}.{name} is not an argument of a model: use {_NO_MODEL_ARGS[name]}"
        )


def _args(config: WeightsConfig | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The model's arguments: given ones take precedence over those in the config.json."""
    if config is None or config.architecture in OURS:
        return dict(given)
    _refuse_no_model_args(config.model_args, f"{config.path}: model_args")
    for name in given.keys() & config.model_args.keys():
        ours, theirs = given[name], config.model_args[name]
        if ours != theirs and not (name == "img_size" and [ours, ours] == theirs):
            log.warning(
                "backbone.model_args.%s=%s is taken, %s says %s", name, ours, config.path, theirs
            )
    return {**config.model_args, **given}


def _refuse_two_sizes(size: tuple[int, int, int] | None, given: Mapping[str, Any]) -> None:
    built = given.get("img_size")
    if size and built not in (None, size[1:], list(size[1:])) and (built, built) != size[1:]:
        raise RequestError(
            f"backbone.preprocess.img_size={_text(size[1:])} and backbone.model_args.img_size="
            f"{built} are two sizes: leave one of them out"
        )


def _at_size(
    source: WeightsSource, args: dict[str, Any], wanted: tuple[int, int, int] | None, seed: int
) -> tuple[nn.Module, dict[str, Any]]:
    """The model, built for images of the wanted size, and its arguments."""
    model = _build(source, args, seed)
    if wanted is not None and _built_size(model) != wanted[1:]:
        args = {**args, "img_size": wanted[1] if wanted[1] == wanted[2] else wanted[1:]}
        model = _build(source, args, seed)
    return model, args


def _built_size(model: Any) -> tuple[int, int] | None:
    """Height and width of the images a model was built for, None for one without patches."""
    size = getattr(getattr(model, "patch_embed", None), "img_size", None)
    return size and (size[0], size[1])


def _check_patches(model: Any, name: str, by_hand: bool) -> None:
    """RequestError if the images are smaller than a patch.

    If the user chose a size that is not a multiple of the patch size, a warning tells that the
    model does not see the pixels beyond the last whole patch.
    """
    size, embed = _built_size(model), getattr(model, "patch_embed", None)
    if size is None or embed is None:
        return
    across = embed.patch_size if isinstance(embed.patch_size, tuple) else (embed.patch_size,) * 2
    if not all(embed.grid_size):
        raise RequestError(
            f"backbone {name!r}: images of {_text(size)} pixels have no whole patch of "
            f"{_text(across)}: give a larger img_size"
        )
    if by_hand and any(n % p for n, p in zip(size, across, strict=True)):
        whole = tuple(n - n % p for n, p in zip(size, across, strict=True))
        log.warning(
            "backbone %r: images of %s pixels are not a multiple of the patch size %s: the model "
            "does not see the pixels beyond %s", name, _text(size), _text(across), _text(whole),
        )  # fmt: skip


def _build(source: WeightsSource, args: dict[str, Any], seed: int) -> nn.Module:
    torch.manual_seed(seed)
    name, config, own = source.model, source.config, OURS.get(source.model)
    try:
        if own:
            model: Any = own.build(**args)
            if config is not None:
                own_cfg = PretrainedCfg(**config.pretrained_cfg).to_dict(remove_source=True)
                model.pretrained_cfg = {**own_cfg, "architecture": name}
            return model
        if config is not None:
            return timm.create_model(
                config.architecture,
                pretrained=False,
                pretrained_cfg=dict(config.pretrained_cfg),
                **args,
            )
        return timm.create_model(name, pretrained=False, **args)
    except Exception as error:  # arguments that timm does not check may fail in any way
        reason = one_line(error)
        raise RequestError(f"backbone {name!r} with {args}: {reason}") from None


def _refuse_other_size(model: nn.Module, config: WeightsConfig | None) -> None:
    """RequestError if the config.json asks for images of another size than the model's.

    timm would resample the position embeddings, as in models of flexible size (dynamic_img_size).
    """
    built = _built_size(model)
    if config is None or built is None or built == config.advised_size:
        return
    raise RequestError(
        f"{config.path} is of a model for images of {_text(built)} pixels and wants "
        f"{_text(config.advised_size)}, for which its positions would have to be resampled: set "
        f"backbone.preprocess.img_size={_text(built)}, or give weights for that size"
    )


def _text(size: tuple[int, int]) -> str:
    return str(size[0]) if size[0] == size[1] else f"[{size[0]},{size[1]}]"


def _own_cfg(source: WeightsSource) -> Mapping[str, Any]:
    """The pretrained_cfg of the architecture itself, without a config.json."""
    if own := OURS.get(source.model):
        return own.preprocessing
    known = get_pretrained_cfg(source.model)
    return known.to_dict() if known else {}


def _refuse_nan(model: nn.Module, name: str) -> None:
    for key, value in model.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise RequestError(f"weights of {name!r} hold NaN or infinity in {key}")


def weights_digest(model: nn.Module) -> str:
    """sha256 over a model's tensors and their names, which does not depend on the file format."""
    return tensors_digest(model.state_dict())
