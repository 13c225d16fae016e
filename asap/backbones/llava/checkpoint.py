"""Loads a LLaVA-1.5 or LLaVA-NeXT: strictly, from safetensors alone, never two copies in memory."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from asap.backbones.llava.anyres import AnyRes, anyres_preprocessing, check_anyres
from asap.backbones.llava.clip_names import left_out, trunk_sources
from asap.backbones.llava.extra import require_transformers
from asap.backbones.llava.language import LanguageModel
from asap.backbones.llava.parts import Newline, Projector, clip_trunk
from asap.backbones.llava.pictures import check_mode, preprocessing_for
from asap.backbones.llava.prompt import PromptFrame
from asap.backbones.llava.settings import (
    NEXT,
    content_digest,
    language_numbers,
    llava_config,
    picture_settings,
    tower_numbers,
)
from asap.backbones.llava.tensors import (
    Entry,
    digest_of,
    entries_of,
    files_of,
    fill,
    problems_of,
    refuse_quantised,
)
from asap.backbones.llava.tokenizer import frame_of
from asap.backbones.preprocess import Preprocessing
from asap.backbones.weights.fit import listed_problems
from asap.backbones.weights.load import weights_digest
from asap.backbones.weights.locate import WeightsFile, snapshot
from asap.errors import RequestError
from asap.spec.paths import given_path

# The parts of a checkpoint by the beginnings of their names: the hub's older files have the
# language model inside `language_model`, newer ones everything inside `model`.
_PARTS = {
    "tower": r"(?:model\.)?vision_tower\.(?:vision_model\.)?",
    "projector": r"(?:model\.)?multi_modal_projector\.",
    "newline": r"(?:model\.)?(?=image_newline$)",
    "head": r"(?:language_model\.)?lm_head\.",
    "language": r"(?:model\.language_model|language_model\.model)\.",
}


@dataclass
class Llava:
    """A LLaVA in its parts, in evaluation mode, on the CPU, in the file's precision.

    name: of the checkpoint, for people. tower: all of CLIP's blocks but the last. projector: tower
    rows (m, vision width) -> (m, language width). frame: questions to token ids and ids to answers.
    newline: LLaVA-NeXT's row (language width,) that ends a line of patches; None for LLaVA-1.5.
    digests: SHA-256 of "tower", "projector", "language", "tokenizer" and "template", of LLaVA-NeXT
    of "newline" too, by which a record names the model. Each covers the settings that change its
    numbers too.
    """

    name: str
    tower: VisionTransformer
    projector: Projector
    language: LanguageModel
    frame: PromptFrame
    preprocessing: Preprocessing
    digests: Mapping[str, str]
    file: WeightsFile
    newline: Tensor | None = None

    @property
    def anyres(self) -> AnyRes | None:
        """What cuts pictures into crops; None for LLaVA-1.5, which does not."""
        cut = self.preprocessing.transform
        return cut if isinstance(cut, AnyRes) else None

    @property
    def crops(self) -> int:
        """The most images of a picture."""
        return 1 if self.anyres is None else self.anyres.crops

    def parameters(self) -> Iterator[Tensor]:
        """All weights."""
        for part in (self.tower, self.projector, self.language):
            yield from part.parameters()
        if self.newline is not None:
            yield self.newline

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "Llava":
        """Move the weights in place, one after the other, so that memory holds each once."""
        for part in (self.tower, self.projector, self.language):
            part.to(device, dtype)
        if self.newline is not None:
            self.newline = self.newline.to(device, dtype)
        return self


def load_llava(
    place: str, *, sha256: str | None = None, picture: str = "pad", anyres: str | None = None
) -> Llava:
    """The LLaVA-1.5 or LLaVA-NeXT in a folder as Hugging Face saves it.

    place: the folder (also the folder of a repository in the hub's cache), or "bundled", the tiny
    one of this package. sha256: the digest that the weights must have; of several files, that of
    `sha256sum`'s lines for them. picture: of LLaVA-1.5, pad | crop, see `pictures.py`. anyres: of
    LLaVA-NeXT, fixed | native, see `anyres.py`; None: fixed.

    No code of the folder runs and nothing is fetched. Raises RequestError, one line, for a folder
    that is incomplete, for another model, and for weights that do not fit, naming the tensor.
    """
    check_mode(picture)
    require_transformers()
    folder, origin = _folder(place)
    config = llava_config(folder)
    settings = picture_settings(folder, config)
    frame, digests = frame_of(folder, config)
    _refuse_modes(config, picture, anyres)
    tower, projector, language, newline = _parts(config, folder)
    grid: tuple[int, int] = tuple(tower.patch_embed.grid_size)
    extra = {} if newline is None else {"newline": weights_digest(newline)}
    return Llava(
        name=folder.name,
        tower=tower,
        projector=projector,
        language=language,
        frame=frame,
        preprocessing=preprocessing_for(settings, grid, picture)
        if newline is None
        else anyres_preprocessing(settings, grid, config.image_grid_pinpoints, anyres or "fixed"),
        digests={
            "tower": content_digest([weights_digest(tower), tower_numbers(config)]),
            "projector": weights_digest(projector),
            "language": content_digest([weights_digest(language), language_numbers(config)]),
            **digests,
            **extra,
        },
        file=_file(folder, origin, sha256),
        newline=None if newline is None else newline.image_newline,
    )


def _refuse_modes(config: Any, picture: str, anyres: str | None) -> None:
    """RequestError for a mode of pictures that the model does not have."""
    if anyres is not None:
        check_anyres(anyres)
    if config.model_type == NEXT and picture != "pad":
        raise RequestError(
            f"backbone.preprocess.picture={picture!r} is for LLaVA-1.5, and model= is a "
            "LLaVA-NeXT: leave it out"
        )
    if config.model_type != NEXT and anyres is not None:
        raise RequestError(
            f"backbone.preprocess.anyres={anyres!r} is for LLaVA-NeXT, and model= is a LLaVA-1.5: "
            "leave it out (experiment=llava15 is the table of LLaVA-1.5), or give a LLaVA-NeXT"
        )


def _folder(place: str) -> tuple[Path, str]:
    """The folder of a checkpoint, and in words where it comes from."""
    if place == "bundled":
        from asap.backbones.llava.bundled import BUNDLED

        return BUNDLED, "bundled"
    folder = snapshot(Path(given_path("model", place)))
    if not folder.is_dir():
        raise RequestError(
            f"model={place!r} is not a folder: give that of a LLaVA-1.5 or LLaVA-NeXT checkpoint "
            "as Hugging Face saves it, such as llava-hf/llava-1.5-7b-hf"
        )
    return folder, "folder"


def _file(folder: Path, origin: str, wanted: str | None) -> WeightsFile:
    """The weights files with their digest. RequestError if it is not the wanted one."""
    files = files_of(folder)
    found = digest_of(files)
    if origin == "bundled":
        from asap.backbones.llava.bundled import SHA256

        wanted = wanted or SHA256
    if wanted is not None and found != wanted.lower():
        raise RequestError(
            f"the weights in {folder} have sha256 {found}, not {wanted}: they are damaged or "
            "others (backbone.sha256=null takes any)"
        )
    return WeightsFile(files[0] if len(files) == 1 else folder, origin, found)


def _parts(
    config: Any, folder: Path
) -> tuple[VisionTransformer, Projector, LanguageModel, Newline | None]:
    """The modules with the folder's weights. RequestError names what does not fit, before reading.

    The modules are built without memory (`meta`) and take the tensors that are read.
    """
    with torch.device("meta"):
        tower, projector, model, head = modules_of(config)
        next_ = config.model_type == NEXT
        newline = Newline(config.text_config.hidden_size) if next_ else None
    depth = config.vision_config.num_hidden_layers - tower.blocks_left_out
    entries, unknown = _by_part(folder)
    if newline is None:
        unknown += [one.name for one in entries["newline"].values()]
    layers = config.vision_config.num_hidden_layers
    for name in left_out(entries["tower"], depth, layers):
        del entries["tower"][name]
    told = config.tie_word_embeddings or model.config.tie_word_embeddings
    tied = told and not entries["head"]
    if tied:
        entries["head"]["weight"] = entries["language"]["embed_tokens.weight"]
    modules = {"tower": tower, "projector": projector, "language": model, "head": head}
    if newline is not None:
        modules["newline"] = newline
    sources: dict[str, dict[str, tuple[str, ...]]] = {
        part: {key: (key,) for key in one.state_dict()} for part, one in modules.items()
    }
    sources["tower"] = trunk_sources(depth)
    _refuse_misfits(folder, modules, sources, entries, unknown)
    for part, module in modules.items():
        refuse_quantised(entries[part])
        fill(module, sources[part], entries[part])
    if tied:
        head.weight = model.embed_tokens.weight
    model.rotary_emb = type(model.rotary_emb)(model.config)  # computed, not read
    return tower, projector, LanguageModel(model.config, model, head).eval(), newline


def modules_of(config: Any) -> tuple[Any, Projector, Any, nn.Linear]:
    """Tower, projector, language model and its output layer, as the config sizes them."""
    from transformers import LlamaModel, MistralModel

    text = config.text_config
    width, bias = text.hidden_size, config.multimodal_projector_bias
    return (
        clip_trunk(config.vision_config),
        Projector(config.vision_config.hidden_size, width, bias),
        {"llama": LlamaModel, "mistral": MistralModel}[text.model_type](text),
        nn.Linear(width, text.vocab_size, bias=False),
    )


def _by_part(folder: Path) -> tuple[dict[str, dict[str, Entry]], list[str]]:
    """The entries of each part, by their names in it, and the names that belong to no part."""
    found: dict[str, dict[str, Entry]] = {part: {} for part in _PARTS}
    unknown = []
    for name, entry in entries_of(files_of(folder)).items():
        if name.endswith("rotary_emb.inv_freq"):  # of old checkpoints; it follows from the config
            continue
        for part, beginning in _PARTS.items():
            if match := re.match(beginning, name):
                found[part][name[match.end() :]] = entry
                break
        else:
            unknown.append(name)
    return found, unknown


def _refuse_misfits(
    folder: Path,
    modules: Mapping[str, nn.Module],
    sources: Mapping[str, Mapping[str, tuple[str, ...]]],
    entries: Mapping[str, Mapping[str, Entry]],
    unknown: list[str],
) -> None:
    """RequestError, naming the first tensor of each kind, unless every tensor has its place."""
    missing, extra, shapes = [], [*unknown], []
    for part, module in modules.items():
        lacking, other = problems_of(module, sources[part], entries[part])
        used = {name for names in sources[part].values() for name in names}
        missing += [f"{name} of the {part}" for name in lacking]
        shapes += [f"{text} (of the {part})" for text in other]
        extra += [entries[part][name].name for name in sorted(entries[part].keys() - used)]
    if problems := listed_problems(missing, extra, shapes):
        raise RequestError(
            f"the weights in {folder} do not fit its config.json: {'; '.join(problems)}: give "
            "files that belong together"
        )
