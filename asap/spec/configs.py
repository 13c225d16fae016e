"""Where the YAML files are: beside the package in a checkout, inside it when installed."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from asap.errors import RequestError, one_line

_OPEN = ("model_args", "preprocess")  # groups of a backbone whose keys its config does not list


def config_dir() -> Path:
    """The folder of the project's configs."""
    package = Path(__file__).resolve().parents[1]
    checkout = package.parent / "configs"
    return checkout if (checkout / "config.yaml").is_file() else package / "_configs"


def _open_groups() -> Any:  # a DictConfig
    """The node `open_groups` of config.yaml: with it `backbone.model_args.depth=2` needs no +."""
    node = OmegaConf.create({"backbone": {name: {} for name in _OPEN}})
    for name in _OPEN:
        OmegaConf.set_struct(node.backbone[name], False)
    return node


ConfigStore.instance().store(name="open_groups", node=_open_groups())


def choices(group: str, folders: Sequence[Path] = ()) -> tuple[str, ...]:
    """The configs of a group, by name."""
    found = {p.stem for root in (*folders, config_dir()) for p in (root / group).glob("*.yaml")}
    return tuple(sorted(found))


def read_method(name: str, folders: Sequence[Path] = ()) -> dict[str, Any]:
    """configs/method/<name>.yaml with the configs in its `defaults` list, as `method=<name>` gives.

    `folders`: the user's own config folders, which come first. RequestError if there is no such
    file or it cannot be read.
    """
    folders = tuple(folders)
    return _settings(_composed(name, folders, ()), _method_file(name, folders))


def _composed(name: str, folders: tuple[Path, ...], below: tuple[str, ...]) -> Any:
    """A method's config with those of its `defaults`, a DictConfig; `below`: those that list it."""
    path = _method_file(name, folders)
    content = _loaded(path)
    listed = content.pop("defaults", ["_self_"])
    names = [one for one in listed if isinstance(one, str)]
    if len(names) != len(listed) or "_self_" not in names or {name, *below} & set(names):
        raise RequestError(
            f"{path}: defaults={list(listed)} cannot be followed here: give names of other method "
            "configs and _self_, such as [asap, _self_]"
        )
    parts = [
        content if one == "_self_" else _composed(one, folders, (*below, name)) for one in names
    ]
    return OmegaConf.merge(*parts)


def _method_file(name: str, folders: Sequence[Path]) -> Path:
    for root in (*folders, config_dir()):
        path = root / "method" / f"{name}.yaml"
        if path.is_file():
            return path
    known = ", ".join(choices("method", folders))
    raise RequestError(f"rows: method {name!r} has no config: use one of {known}")


def refuse_unused_points(config: DictConfig, overrides: Sequence[str]) -> None:
    """RequestError for options by hand, `points.<name>=...`, that no row of the config refers to.

    With ++ they are allowed: not all runs that share a table need to have the row.
    """
    plain = OmegaConf.to_container(config, resolve=False)
    rows = str(plain.get("rows") if isinstance(plain, dict) else None)
    for given in overrides:
        found = re.match(r"points\.(\w+)", given)
        if found and not re.search(rf"\$\{{points\.{found[1]}[.}}]", rows):
            raise RequestError(
                f"{given} is for no row of this run: leave it out, or choose an "
                "experiment whose rows have it; a method's options are method.<option>=..."
            )


def _loaded(path: Path) -> Any:
    try:
        content = OmegaConf.load(path)
    except (OSError, YAMLError, OmegaConfBaseException) as error:
        raise RequestError(f"{path} cannot be read: {one_line(error)}: repair it") from None
    if not isinstance(content, DictConfig):
        raise RequestError(f"{path} holds no settings: give it lines of the form key: value")
    return content


def _settings(content: Any, path: Path) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(content, resolve=True)
    except OmegaConfBaseException as error:
        raise RequestError(f"{path} cannot be read: {one_line(error)}: repair it") from None
    assert isinstance(plain, dict)
    return {str(k): v for k, v in plain.items()}
