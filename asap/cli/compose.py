"""From a command line to the config that Hydra composes, and from the config to a spec.

A config that does not compose gives an error of one line.
"""

import difflib
import re
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import YAMLError

from asap.cli.arguments import arranged, quoted, sweeps, typed
from asap.data.open import DATA_SETS, having, title_of
from asap.errors import RequestError, one_line
from asap.measure.processes import started_by_torchrun
from asap.methods.registry import find, find_pruner, names, pruner_names
from asap.spec.configs import read_method, refuse_unused_points
from asap.spec.paths import PathText
from asap.spec.read import read_spec
from asap.spec.run_spec import MethodOf, MethodSpec, RunSpec, groups

_OTHERS = {  # what a group's choices do not list
    "backbone": ", or any timm ViT: backbone=timm backbone.name=<its name>",
    "method": ", or one of your own: --config-dir=<the folder that has method/<name>.yaml>",
}


def command_line(given: Sequence[str], about: str) -> list[str]:
    """The words of a command line for Hydra, see `arranged`; `about`: the text of --help."""
    words = arranged(given, texts())
    if not {"-h", "--help"}.isdisjoint(words):
        words = [word for word in words if not sweeps(word)]  # --help works for a single job only
        words.append(f"hydra.help.header={quoted(about.strip().replace('$', '$$'))}")
    return words


def read(config: DictConfig) -> RunSpec:
    """The spec of this job; RequestError if the request is wrong."""
    refuse_unused_points(config, given(HydraConfig.get()))
    spec = read_spec(_plain(config), lambda name: read_method(name, _own_folders()), title_of)
    check_launcher(spec, HydraConfig.get())
    return spec


def given(config: Any) -> list[str]:
    """The overrides of this job as they were typed; `${...}` is not resolved."""
    task = OmegaConf.to_container(config.overrides.task, resolve=False)
    return [str(one) for one in task or ()]


def launcher_of(config: Any) -> str:
    """The name of hydra's launcher; all but the basic one start processes."""
    return config.runtime.choices.get("hydra/launcher", "basic")


def check_launcher(spec: RunSpec, config: Any) -> None:
    """RequestError if the launcher's jobs would disturb the timing, or torchrun is used as well."""
    name = launcher_of(config)
    if config.mode != RunMode.MULTIRUN or name == "basic":
        return
    if started_by_torchrun():
        raise RequestError(f"hydra/launcher={name} does not go with torchrun: use one of them")
    beside = name == "submitit_local" or (name == "joblib" and config.launcher.n_jobs != 1)
    timed = spec.measure.throughput or "latency" in spec.measure.also
    if beside and timed:
        raise RequestError(
            f"hydra/launcher={name} runs jobs beside the one that is timed: leave it out, or set "
            "measure=accuracy"
        )


def not_begun(error: Exception) -> str:
    """The error, in one line, because of which no job began."""
    if isinstance(error, RequestError):
        return str(error)
    if isinstance(error, (HydraException, OmegaConfBaseException, YAMLError, ValueError)):
        return not_composed(one_line(error))
    return f"no job could be started: {one_line(error, kind=True)}"


def not_composed(reason: str) -> str:
    """Hydra's reason why the config did not compose, with a remedy where one is known."""
    if missing := re.search(r"Could not find 'hydra/launcher/(joblib|submitit)", reason):
        extra = {"joblib": "joblib", "submitit": "slurm"}[missing[1]]
        return f"this hydra/launcher is not installed: pip install 'asap-vit[{extra}]'"
    if there := re.search(r"Could not find '(.+)/(.*?)' Available options in '.+?': (.+)", reason):
        group, name, choices = there.groups()
        near = difflib.get_close_matches(name.lower(), choices.split(), 1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        what = f"there is no '{group}/{name}'" if name else f"{group}= is empty"
        return f"{what}: {hint}use one of {choices.replace(' ', ', ')}{_OTHERS.get(group, '')}"
    if twice := re.search(r"Multiple values for (\S+?)\. To override", reason):
        return f"{twice[1]} has a choice already: leave out the + of +{twice[1]}=..."
    if there := re.search(r"Could not append to config\. An item is already at '(.+?)'", reason):
        return f"{there[1]} has a value already: leave out the + of +{there[1]}=..."
    if several := re.match(r"Ambiguous value for argument '((.+?)=.+?)'(?: 1\. |$|\n)", reason):
        given, key = several.groups()
        return f"{given} has several values: add -m for a run of each; as one list, {key}=[...]"
    if "does not support sweep type : INTERVAL" in reason:
        return "interval(a,b) is not possible: give values, as 2,2.5,3 or range(2,3.5,0.5)"
    if "override must be a string" in reason:
        reason = f"{reason}: a group such as head cannot be null: leave it out"
    unknown = re.match(r"Could not override '([^']+)'", reason)
    if unknown is None:
        return f"the config does not compose: {reason}"
    keys = [key for key, _ in _keys()]
    near = _near(unknown[1], [*keys, "method", "experiment"])
    hint = f"did you mean {near!r}? " if near else ""
    if unknown[1].startswith("method.") and not near:
        hint = "the chosen method has no such option, or its YAML file does not list it; "
    if unknown[1] in keys:
        hint = "the chosen method or group does not have it; "
        if others := having(unknown[1].removeprefix("data.")):
            hint = f"it is only for data={', '.join(others)}; "
    return f"unknown key {unknown[1]!r}: {hint}--help lists all keys"


def _near(unknown: str, keys: Sequence[str]) -> str | None:
    """The key that may be meant. In a known group its name decides: the group alone is no hint."""
    group = unknown.rpartition(".")[0] + "."
    names = [key.removeprefix(group) for key in keys if key.startswith(group)]
    if names:
        near = difflib.get_close_matches(unknown.removeprefix(group), names, 1)
        return group + near[0] if near else None
    return next(iter(difflib.get_close_matches(unknown, keys, 1)), None)


def texts() -> set[str]:
    """The keys of options that hold a text or a path and nothing else."""
    other = {key for key, kind in _keys() if not _alternatives(kind) <= {str, Path, NoneType}}
    return {key for key, _ in _keys()} - other


def _alternatives(kind: Any) -> set[Any]:
    """The types that a declared type allows: the members of a union, without annotations."""
    if isinstance(kind, UnionType) or get_origin(kind) is Union:
        return set().union(*map(_alternatives, get_args(kind)))
    return {get_args(kind)[0] if get_origin(kind) is Annotated else kind}


def _keys() -> list[tuple[str, Any]]:
    """All keys of the command line, with their types; a key can come more than once."""
    methods = (*map(find, names()), *map(find_pruner, pruner_names()))
    kinds = [("method", kind) for kind in (MethodOf, MethodSpec, *methods)]
    kinds += [("data", kind) for kind in DATA_SETS.values()]
    kinds += groups().items()
    inside = [(f"{group}.{f.name}", f.type) for group, kind in kinds for f in fields(kind)]
    others = [("model", PathText), ("benchmarks", PathText)]
    return [*inside, *((f.name, f.type) for f in fields(RunSpec)), *others]


def _plain(config: DictConfig) -> dict[str, Any]:
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise RequestError(f"{error.full_key} is missing: give {error.full_key}=...") from None
    except OmegaConfBaseException as error:
        raise RequestError(f"{one_line(error)}{_to_the_letter(config, error.full_key)}") from None
    assert isinstance(plain, dict)
    return {str(k): v for k, v in plain.items() if k != "hydra"}


def _to_the_letter(config: DictConfig, key: Any) -> str:
    """How to type a text whose `${...}` was not meant as a reference."""
    value: Any = OmegaConf.to_container(config, resolve=False)
    for part in str(key or "").split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return f"; to the letter: {typed(str(key), value)}" if isinstance(value, str) else ""


def _own_folders() -> list[Path]:
    """Folders given with --config-dir: their configs come before the project's."""
    sources = HydraConfig.get().runtime.config_sources
    return [Path(s.path) for s in sources if s.schema == "file" and s.provider == "command-line"]
