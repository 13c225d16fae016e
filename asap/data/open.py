"""Opens a data set by its name, with its own options."""

from dataclasses import fields, replace
from pathlib import Path

from torchvision.transforms import Compose

from asap.data.base import DataSet, PatchGrid, Transform
from asap.data.digits.clip_options import DigitClipsOptions
from asap.data.digits.scenes import DigitOptions
from asap.data.imagenet.corruptions import ImageNetCOptions
from asap.data.imagenet.validation import ImageNetOptions
from asap.data.imagenet.variants import (
    ImageNetAOptions,
    ImageNetRealOptions,
    ImageNetROptions,
    ImageNetSketchOptions,
    ImageNetV2Options,
)
from asap.data.images.folder import FolderOptions
from asap.data.kinetics.kinetics import KineticsOptions
from asap.data.options import DataOptions, Opening
from asap.data.questions.digits_qa import DigitsQaOptions
from asap.data.questions.gqa import GqaOptions
from asap.data.questions.jsonl import QuestionsOptions
from asap.data.questions.mmbench import MmbenchOptions
from asap.data.questions.mme import MmeOptions
from asap.data.questions.pope import PopeOptions
from asap.data.questions.scienceqa import ScienceQaOptions
from asap.data.questions.vizwiz import VizWizOptions
from asap.data.questions.vqav2 import Vqav2Options
from asap.data.slices import part_of
from asap.errors import RequestError, meant
from asap.spec.paths import given_path
from asap.spec.read import typed_value
from asap.spec.run_spec import DataSpec

DATA_SETS: dict[str, type[DataOptions]] = {
    "digits": DigitOptions,
    "digits_clips": DigitClipsOptions,
    "imagenet": ImageNetOptions,
    "imagenet_v2": ImageNetV2Options,
    "imagenet_a": ImageNetAOptions,
    "imagenet_r": ImageNetROptions,
    "imagenet_c": ImageNetCOptions,
    "imagenet_sketch": ImageNetSketchOptions,
    "imagenet_real": ImageNetRealOptions,
    "folder": FolderOptions,
    "kinetics": KineticsOptions,
    "digits_qa": DigitsQaOptions,
    "questions": QuestionsOptions,
    "pope": PopeOptions,
    "gqa": GqaOptions,
    "mme": MmeOptions,
    "scienceqa": ScienceQaOptions,
    "vizwiz": VizWizOptions,
    "vqav2": Vqav2Options,
    "mmbench": MmbenchOptions,
}
_FROM_A_VARIABLE = ("imagenet", "kinetics")  # an unset variable of the shell is an empty path
_NEED_A_PATH = (*_FROM_A_VARIABLE, "folder")


def open_data(
    spec: DataSpec,
    transform: Transform,
    patch_grid: PatchGrid,
    *,
    outputs: int | None = None,
    limit: int | None = None,
    index: Path | None = None,
) -> DataSet:
    """At most `limit` images of the data set, or of the part of it that the spec names.

    For outputs and index see `Opening`. Raises RequestError if the data set does not exist, and on
    options that it does not have.
    """
    options = options_of(spec)
    path, cache = spec.path, spec.cache
    if spec.name.startswith(_FROM_A_VARIABLE) and path is not None and not path.strip():
        path = None  # the data set's own error lists the layouts it expects
    spec = replace(
        spec,
        path=None if path is None else given_path("data.path", path),
        cache=None if cache is None else given_path("data.cache", cache),
    )
    opening = Opening(spec, transform, patch_grid, outputs, limit, index)
    if spec.part == "all":
        return options.open(opening)
    return part_of(options.open(replace(opening, limit=None)), spec.part, limit)


def refuse_lost(spec: DataSpec) -> None:
    """RequestError, in the data set's words, if there is nothing at its path, or no path.

    For a run that would otherwise load, or even fetch, a model first.
    """
    path = (spec.path or "").strip()
    if not Path(path).expanduser().exists() if path else spec.name.startswith(_NEED_A_PATH):
        open_data(spec, Compose([]), (1, 1))


def options_of(spec: DataSpec) -> DataOptions:
    """The data set's own options; RequestError on an unknown one and on an impossible value."""
    kind = _kind(spec.name)
    known = {f.name: f.type for f in fields(kind)}
    for option, value in spec.options.items():
        if option in known:
            continue
        if others := having(option):
            raise RequestError(
                f"data.{option}={value!r} is not for data={spec.name}: only for "
                f"{' and '.join(others)}"
            )
        hint = meant(option, known, before=": ")
        own = f"its options: {', '.join(known)}" if known else "it has no options of its own"
        raise RequestError(f"data={spec.name} has no option {option!r}{hint} ({own})")
    return kind(**{k: typed_value(v, known[k], f"data.{k}") for k, v in spec.options.items()})


def having(option: str) -> list[str]:
    """The names of the data sets that have this option of their own."""
    return [name for name, kind in DATA_SETS.items() if option in {f.name for f in fields(kind)}]


def title_of(spec: DataSpec) -> str:
    """A name for the title of a run, with the options that say which images are read."""
    shown = (spec.options.get(option) for option in _kind(spec.name).shown)
    return " ".join([spec.title or spec.name, *(str(one) for one in shown if one is not None)])


def _kind(name: str) -> type[DataOptions]:
    if name not in DATA_SETS:
        raise RequestError(f"data.name={name!r} is unknown: use one of {', '.join(DATA_SETS)}")
    return DATA_SETS[name]
