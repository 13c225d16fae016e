"""The JSON files of a LLaVA checkpoint: what its model is, how pictures are prepared.

What this project does not compute is refused by name, before any weight is read.
"""

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

from asap.backbones.llava.pictures import PictureSettings
from asap.errors import RequestError, one_line

CONFIG = "config.json"
PICTURES = ("preprocessor_config.json", "processor_config.json")
GENERATION = "generation_config.json"
LLAVA, NEXT = "llava", "llava_next"  # as config.json names LLaVA-1.5 and LLaVA-NeXT
LANGUAGE_MODELS = ("llama", "mistral")
_GIVE = (
    "give a LLaVA-1.5 or LLaVA-NeXT checkpoint, such as llava-hf/llava-1.5-7b-hf or "
    "llava-hf/llava-v1.6-vicuna-7b-hf"
)
BICUBIC = 3  # Pillow's number
# Where a wrong value would give other numbers without any error: (place, name, the one value).
_FIXED = (
    ("", "vision_feature_layer", -2),
    ("", "vision_feature_select_strategy", "default"),
    ("", "projector_hidden_act", "gelu"),
    ("vision_config", "hidden_act", "quick_gelu"),
    ("vision_config", "num_channels", 3),
    ("text_config", "hidden_act", "silu"),
)
_LEAST = (
    *(("vision_config", name, 1) for name in ("image_size", "patch_size", "num_attention_heads")),
    ("vision_config", "num_hidden_layers", 2),  # the last one is not run
    *(("text_config", f"num_{name}", 1) for name in ("attention_heads", "key_value_heads")),
)
# What CLIP's processor does to every picture, where its file may say that it does not.
_STEPS = (("resample", BICUBIC), ("do_normalize", True), ("do_rescale", True))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; RequestError if there is none."""
    try:
        content = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise RequestError(
            f"folder {path.parent} has no {path.name}: give the folder of a LLaVA-1.5 or "
            "LLaVA-NeXT checkpoint as Hugging Face saves it, such as llava-hf/llava-1.5-7b-hf"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise RequestError(f"{path} cannot be read: {one_line(error)}: repair it") from None
    if not isinstance(content, dict):
        raise RequestError(f"{path} holds no JSON object: repair it")
    return content


def llava_config(folder: Path) -> Any:
    """transformers' `LlavaConfig` or `LlavaNextConfig` of a checkpoint.

    RequestError for a checkpoint of another model, and for settings under which this project would
    compute something else than the checkpoint means.
    """
    path = folder / CONFIG
    stated = read_json(path)
    _refuse_others(stated, path)
    from transformers import LlavaConfig, LlavaNextConfig

    kind = LlavaNextConfig if stated["model_type"] == NEXT else LlavaConfig
    try:
        config: Any = kind.from_dict(stated)
    except Exception as error:  # values that transformers refuses may fail in any way
        reason = one_line(error, kind=True)[:200]
        raise RequestError(f"{path} is not one of a LLaVA: {reason}: repair it") from None
    _refuse_changes(config, path)
    if config.model_type == NEXT:
        _check_canvases(config, path)
    return config


def _refuse_others(stated: Mapping[str, Any], path: Path) -> None:
    """RequestError unless the config is of CLIP's tower before a Llama or Mistral."""
    vision, text = (stated.get(name) or {} for name in ("vision_config", "text_config"))
    if not isinstance(vision, dict) or not isinstance(text, dict):
        raise RequestError(f"{path}: vision_config and text_config are no objects: repair it")
    kinds = [
        ("model_type", stated.get("model_type"), (LLAVA, NEXT)),
        ("vision_config.model_type", vision.get("model_type"), ("clip_vision_model",)),
        ("text_config.model_type", text.get("model_type", "llama"), LANGUAGE_MODELS),
    ]
    for name, found, known in kinds:
        if found not in known:
            raise RequestError(
                f"{path}: {name}={found!r} is not supported (only {' and '.join(known)}): {_GIVE}"
            )
    if any(part.get("quantization_config") for part in (stated, vision, text)):
        raise RequestError(
            f"{path}: the weights are quantised (quantization_config), which is not supported: "
            "give the checkpoint in half or full precision"
        )


def _refuse_changes(config: Any, path: Path) -> None:
    for place, name, needed in _FIXED:
        found = getattr(getattr(config, place) if place else config, name)
        if found != needed:
            shown = f"{place}.{name}" if place else name
            raise RequestError(
                f"{path}: {shown}={found!r} is not supported (only {needed!r}): {_GIVE}"
            )
    vision, text = config.vision_config, config.text_config
    for part, name, least in _LEAST:
        found = getattr(getattr(config, part), name)
        if type(found) is not int or found < least:
            raise RequestError(
                f"{path}: {part}.{name}={found!r} is not a whole number of {least} or more: "
                "repair it"
            )
    if vision.image_size < vision.patch_size:
        raise RequestError(
            f"{path}: a vision tower for {vision.image_size} pixels has no patch of "
            f"{vision.patch_size}: repair it"
        )
    if not 0 <= config.image_token_index < text.vocab_size:
        raise RequestError(
            f"{path}: image_token_index={config.image_token_index} is not an id below "
            f"text_config.vocab_size={text.vocab_size}: repair it"
        )


def _check_canvases(config: Any, path: Path) -> None:
    """RequestError unless LLaVA-NeXT's canvases are pairs of whole numbers of tiles."""
    tile, canvases = config.vision_config.image_size, config.image_grid_pinpoints

    def whole(one: Any) -> bool:
        pair = isinstance(one, list | tuple) and len(one) == 2
        return pair and all(type(side) is int and side > 0 and side % tile == 0 for side in one)

    if not isinstance(canvases, list) or not canvases or not all(map(whole, canvases)):
        raise RequestError(
            f"{path}: image_grid_pinpoints={canvases!r} are not pairs of multiples of {tile}, the "
            "pixels of a tile: repair it"
        )
    if config.vision_config.image_size % config.vision_config.patch_size:
        raise RequestError(
            f"{path}: tiles of {tile} pixels are not cut into whole patches of "
            f"{config.vision_config.patch_size}: repair it"
        )


def tower_numbers(config: Any) -> dict[str, Any]:
    """What changes the numbers of a vision tower and is in none of its tensors."""
    vision = config.vision_config
    return {"heads": vision.num_attention_heads, "eps": vision.layer_norm_eps}


def language_numbers(config: Any) -> dict[str, Any]:
    """What changes the answers of a language model and is in none of its tensors."""
    text = config.text_config
    return {
        "heads": text.num_attention_heads,
        "kv_heads": text.num_key_value_heads,
        "eps": text.rms_norm_eps,
        "theta": text.rope_parameters["rope_theta"],
        "positions": text.max_position_embeddings,
    }


def content_digest(content: Any) -> str:
    """SHA-256 of plain data, in which the order of keys does not count."""
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def picture_settings(folder: Path, config: Any) -> PictureSettings:
    """How the checkpoint's pictures are prepared, for the tower of a config.

    RequestError if the processor's file is missing, or for another size or other canvases, or asks
    for steps that LLaVA's does not have.
    """
    size = config.vision_config.image_size
    name = next((name for name in PICTURES if (folder / name).is_file()), PICTURES[0])
    path = folder / name
    stated = read_json(path)
    stated = stated.get("image_processor", stated)
    try:
        found = _pixels(stated.get("crop_size")), _pixels(stated["size"])
        mean, std = (_three(stated[f"image_{name}"]) for name in ("mean", "std"))
        if not all(std):
            raise ValueError(f"image_std={list(std)} divides by 0")
    except (KeyError, TypeError, ValueError) as error:
        reason = one_line(error, kind=True)
        raise RequestError(f"{path} is not one of CLIP's pictures: {reason}: repair it") from None
    if any(side not in (None, size) for side in found):
        raise RequestError(
            f"{path} is for pictures of {found[0] or found[1]} pixels and the vision tower for "
            f"{size}: give files that belong together"
        )
    canvases = getattr(config, "image_grid_pinpoints", None)
    listed = stated.get("image_grid_pinpoints", canvases)
    if canvases is not None and listed != canvases:
        raise RequestError(
            f"{path} has image_grid_pinpoints={listed!r} and {CONFIG} {canvases!r}: give files "
            "that belong together"
        )
    for step, needed in _STEPS:
        if (asked := stated.get(step, needed)) not in (needed, None):
            raise RequestError(
                f"{path}: {step}={asked!r} is not supported (only {needed}): give the "
                "checkpoint's own file"
            )
    return PictureSettings(size, mean, std)


def _pixels(stated: Any) -> int | None:
    """The side of a square in pixels, in any of the forms that processors write; None: unstated.

    ValueError for anything else.
    """
    sides = set(stated.values()) if isinstance(stated, dict) else {stated}
    sides.discard(None)
    if len(sides) > 1 or not all(type(side) is int for side in sides):
        raise ValueError(f"{stated!r} is not the side of a square")
    return sides.pop() if sides else None


def _three(stated: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in stated)
    if not all(0 <= value <= 1 for value in (red, green, blue)):
        raise ValueError(f"{stated!r} are not three numbers from 0 to 1")
    return red, green, blue


def ends_of(folder: Path, config: Any, tokenizer: Any) -> tuple[int, ...]:
    """The ids that end an answer: of the generation config, else of the model, of the tokenizer.

    RequestError if none is stated.
    """
    path = folder / GENERATION
    stated = read_json(path).get("eos_token_id") if path.is_file() else None
    for ids in (stated, config.text_config.eos_token_id, tokenizer.eos_token_id):
        if ids is None:
            continue
        found = tuple(ids) if isinstance(ids, list | tuple) else (ids,)
        if not found or not all(type(one) is int for one in found):
            raise RequestError(
                f"folder {folder} states eos_token_id={ids!r}, which is no token id and no list of "
                f"them: repair {GENERATION}"
            )
        return found
    raise RequestError(
        f"folder {folder} states no eos_token_id, so that no answer would end: add it to "
        f"{GENERATION}"
    )
