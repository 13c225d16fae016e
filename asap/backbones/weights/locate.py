"""Finds the weights file of a backbone (bundled, hub or its cache, file, folder)."""

from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import timm
from timm.models import get_pretrained_cfg, parse_model_name, split_model_name_tag

from asap.backbones.accepted import OURS
from asap.backbones.weights.config_json import WeightsConfig, read_config
from asap.backbones.weights.hub import CONFIG, FILES, hub_file
from asap.core.checkpoints import file_digest
from asap.errors import RequestError, one_line
from asap.spec.paths import given_path

BUNDLED = {name: own.bundled for name, own in OURS.items() if own.bundled}
BUNDLED_FOLDER = Path(__file__).parent
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".pth.tar")
# If a folder has several files, timm takes the first of these.
PREFERRED = (*FILES, "pytorch_model.pth", "model.pth")


@dataclass(frozen=True)
class WeightsFile:
    """A weights file on this machine. `origin` describes in words where it came from."""

    path: Path
    origin: str
    sha256: str


@dataclass(frozen=True)
class WeightsSource:
    """The model to build and its weights.

    model: a name of timm's or ours. file: None for random weights. config: timm's config.json
    beside the weights. image_size: height and width that the weights were made for, if known.
    """

    model: str
    file: WeightsFile | None
    config: WeightsConfig | None = None
    image_size: tuple[int, int] | None = None

    @property
    def architecture(self) -> str:
        return split_model_name_tag(self.model)[0]


def find_source(name: str, weights: str, sha256: str | None = None) -> WeightsSource:
    """Find what `name` and `weights` stand for, see `load_backbone`.

    The config.json in the folder of the weights is used, else the one in the folder or repository
    that is given as the name; timm's own weights from the hub follow timm's registry. With
    `sha256`, a file of any origin must have that digest; a bundled file must always have the digest
    in this package. Raises RequestError, also if the config.json is for another architecture.
    """
    kind, place = _parsed(name)
    if kind is None:
        _refuse_unknown(name)
    path, origin = _place(name, kind, place, weights)
    named = None if kind is None else _config_of_name(name, kind, place, path, weights)
    beside = read_config(path.parent) if path and origin in ("file", "local-dir") else None
    config = beside or named
    model = name if named is None else named.architecture
    source = WeightsSource(model, None, config, _image_size(model, config, origin))
    _refuse_other_architecture(name, source)
    if path is None:
        _refuse_digest(name, sha256)
        return source
    return WeightsSource(model, _digested(name, path, origin, sha256), config, source.image_size)


def _parsed(name: str) -> tuple[str | None, str]:
    """The prefix of a name (None, "local-dir" or "hf-hub") and the rest of the name."""
    try:
        return parse_model_name(name)
    except ValueError as error:
        raise RequestError(f"{unknown(name)}: {one_line(error)}") from None


def _refuse_unknown(name: str) -> None:
    """RequestError for a name or tag that exists neither in timm nor here."""
    if name in OURS:
        return
    try:
        known = timm.is_model(name.split(".")[0])
        get_pretrained_cfg(name)
    except RuntimeError:  # a tag that timm does not have
        known = False
    if not known:
        raise RequestError(unknown(name))


def _config_of_name(
    name: str, kind: str, place: str, path: Path | None, weights: str
) -> WeightsConfig:
    """The config.json of the folder or repository that is given as the name.

    Raises RequestError if there is none.
    """
    if kind == "local-dir":
        folder = path.parent if path and weights == "hub" else snapshot(_folder(name, place))
    else:
        repository = place.partition("@")[0]
        if path and weights == "hub":  # take the config of the same commit as the weights
            place = f"{repository}@{path.parent.name}"
        folder = hub_file(name, place, (CONFIG,)).parent
    config = read_config(folder)
    if config is None:
        raise RequestError(
            f"backbone name={name!r}: {folder} has no {CONFIG} of timm, which names the model: "
            "give backbone.name=<timm name> and backbone.weights=<this folder>"
        )
    if config.architecture not in OURS and not timm.is_model(config.architecture):
        raise RequestError(f"{config.path}: {unknown(config.architecture)}")
    return config


def _folder(name: str, place: str) -> Path:
    folder = Path(place).expanduser()
    if not folder.is_dir():
        raise RequestError(
            f"backbone name={name!r}: {folder} is not a folder: give an existing one"
        )
    return folder


def _image_size(model: str, config: WeightsConfig | None, origin: str) -> tuple[int, int] | None:
    if config is not None:
        return config.image_size
    if not origin.startswith("hub"):
        return None
    known = get_pretrained_cfg(model)
    return known and known.input_size[-2:]


def _refuse_other_architecture(name: str, source: WeightsSource) -> None:
    config = source.config
    if config is not None and config.architecture != source.architecture:
        raise RequestError(
            f"backbone.name={name} is {source.architecture}, and {config.path} says that the "
            f"weights beside it are of {config.architecture}: set "
            f"backbone.name={config.architecture}, or give the weights of this backbone"
        )


def _digested(name: str, path: Path, origin: str, sha256: str | None) -> WeightsFile:
    """The file with its digest. RequestError if it does not exist or has another digest."""
    if not path.is_file():
        raise RequestError(f"weights file {path} does not exist: check backbone.weights")
    found = file_digest(path)
    wanted = sha256 or (BUNDLED[name] if origin == "bundled" else None)
    if wanted is not None and found != wanted.lower():
        raise RequestError(
            f"weights file {path} has sha256 {found}, not {wanted}: it is damaged or another file "
            "(backbone.sha256=null takes any)"
        )
    return WeightsFile(path, origin, found)


def _refuse_digest(name: str, sha256: str | None) -> None:
    """RequestError if a digest is asked for with random weights, which have no file.

    The digest of the bundled file is allowed: it comes from the backbone's config, not from the
    user.
    """
    if sha256 is not None and sha256.lower() != BUNDLED.get(name):
        raise RequestError(
            f"backbone.sha256={sha256} is the digest of a file, and backbone.weights=random reads "
            "none: leave one of them out (backbone.sha256=null)"
        )


def _place(name: str, kind: str | None, place: str, weights: str) -> tuple[Path | None, str]:
    """The path of the weights (None for random ones) and their origin."""
    if weights == "random":
        return None, "random"
    if weights == "bundled" or (weights == "hub" and name in OURS):
        return _bundled(name), "bundled"
    if weights == "hub" and kind == "local-dir":
        return _in_folder(_folder(name, place)), "local-dir"
    if weights == "hub":
        repository = place if kind == "hf-hub" else _repository(name)
        return hub_file(name, repository), f"hub, {repository}"
    path = Path(given_path("backbone.weights", weights))
    return (_in_folder(path) if path.is_dir() else path), "file"


def _bundled(name: str) -> Path:
    if name in BUNDLED:
        return BUNDLED_FOLDER / f"{name}.safetensors"
    if name in OURS:
        raise RequestError(
            f"weights of {name!r} are neither on the hub nor in this package: download "
            f"{OURS[name].released} and give backbone.weights=/path/to/file, or "
            f"{name.upper()}=/path/to/file in the environment where other backbones run too"
        )
    raise RequestError(
        f"weights='bundled' is not possible for {name!r}: only {', '.join(BUNDLED)} comes with "
        "this package; use backbone.weights=hub and backbone.sha256=null, or a file"
    )


def _repository(name: str) -> str:
    """The repository of a timm model's weights."""
    known = get_pretrained_cfg(name)
    if known is None:  # a name that timm has removed
        raise RequestError(unknown(name))
    if known.hf_hub_id:
        return known.hf_hub_id
    elsewhere = f": download {known.url}" if known.url else ""
    raise RequestError(
        f"weights of {name!r} are not on the hub{elsewhere}: give backbone.weights=/path/to/file"
    )


def unknown(name: str) -> str:
    """The message for an unknown backbone name."""
    plain = name.split(".")[0]
    near = timm.list_models(f"*{plain}*")[:3] or get_close_matches(plain, timm.list_models(), 3)
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    ours = ", ".join(OURS)
    return f"backbone name={name!r} is neither a timm model nor one of ours ({ours}){hint}"


def _in_folder(folder: Path) -> Path:
    """The weights file in a snapshot of a hub repository, or the only one in another folder."""
    folder = snapshot(folder)
    for name in PREFERRED:
        if (folder / name).is_file():
            return folder / name
    found = sorted(p for p in folder.glob("*") if p.is_file() and p.name.endswith(SUFFIXES))
    if len(found) == 1:
        return found[0]
    what = f"{len(found)} weights files ({', '.join(p.name for p in found[:3])})"
    raise RequestError(
        f"folder {folder} holds {what if found else 'no weights file'}: give the file itself as "
        "backbone.weights"
    )


def snapshot(folder: Path) -> Path:
    """The folder itself; for a repository folder of a hub cache, its current snapshot."""
    head = folder / "refs" / "main"
    return folder / "snapshots" / head.read_text("utf-8").strip() if head.is_file() else folder
