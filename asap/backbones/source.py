"""Which file a backbone's weights come from: bundled, the hub or its cache, a file or a folder."""

from dataclasses import dataclass
from pathlib import Path

import timm
from timm.models import get_pretrained_cfg

from asap.backbones.families import OURS
from asap.backbones.hub import FILES, hub_file
from asap.checkpoints import file_digest
from asap.errors import RequestError
from asap.runs.paths import given_path

BUNDLED = {name: own.bundled for name, own in OURS.items() if own.bundled}
BUNDLED_FOLDER = Path(__file__).parent / "weights"
SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".pth.tar")


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights on this machine; `origin` says for people where it came from."""

    path: Path
    origin: str
    sha256: str


def find_weights(name: str, weights: str, sha256: str | None = None) -> WeightsFile | None:
    """The file that `weights` stands for, see `load_backbone`; None for "random".

    Whatever its origin, it must have the digest `sha256` if one is given, and a bundled file always
    the one that is written in this package. Raises RequestError.
    """
    if weights == "random":
        _refuse_digest(name, sha256)
        return None
    path, origin = _place(name, weights)
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
    """Random weights have no file. The digest of a bundled file stands in its backbone's config, so
    nobody asked for that one.
    """
    if sha256 is not None and sha256.lower() != BUNDLED.get(name):
        raise RequestError(
            f"backbone.sha256={sha256} is the digest of a file, and backbone.weights=random reads "
            "none: leave one of them out (backbone.sha256=null)"
        )


def _place(name: str, weights: str) -> tuple[Path, str]:
    """Path and origin."""
    if weights == "bundled" or (weights == "hub" and name in OURS):
        return _bundled(name), "bundled"
    if weights == "hub":
        repository = _repository(name)
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
    try:
        known = get_pretrained_cfg(name) if timm.is_model(name.split(".")[0]) else None
    except RuntimeError:  # a tag that timm has not
        known = None
    if known is None:
        raise RequestError(unknown(name))
    if known.hf_hub_id:
        return known.hf_hub_id
    elsewhere = f": download {known.url}" if known.url else ""
    raise RequestError(
        f"weights of {name!r} are not on the hub{elsewhere}: give backbone.weights=/path/to/file"
    )


def unknown(name: str) -> str:
    """What to say of a name that is no backbone's."""
    near = timm.list_models(f"*{name.split('.')[0]}*")[:3]
    hint = f"; did you mean {' or '.join(near)}?" if near else ""
    ours = ", ".join(OURS)
    return f"backbone name={name!r} is neither a timm model nor one of ours ({ours}){hint}"


def _in_folder(folder: Path) -> Path:
    """The weights in a snapshot of a hub repository, or the only such file of any folder."""
    head = folder / "refs" / "main"  # a repository as it lies in a hub cache
    if head.is_file():
        folder = folder / "snapshots" / head.read_text("utf-8").strip()
    for name in FILES:
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
