"""Hydra's work that is the same for every command line with the same groups is done once.

A command composes its config twice, from about twenty YAML files: 0.3 s of a test that reads one
value. Kept are the list of config files that the groups on the command line choose, and these
files merged, as hydra made them; what is typed is parsed and put into a copy by hydra, every time.
A command line with a folder of one's own (--config-dir) is composed as ever.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import ConfigRepository
from hydra._internal.defaults_list import create_defaults_list

from asap.spec.configs import config_dir

LISTS = create_defaults_list
MERGE = ConfigLoaderImpl._compose_config_from_defaults_list
SEARCH = ConfigLoaderImpl._process_config_searchpath
_lists: dict[Any, Any] = {}
_merged: dict[Any, Any] = {}


@contextmanager
def composed_once() -> Iterator[None]:
    """Inside, what hydra composes from the project's own configs it composes once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(config_loader_impl, "create_defaults_list", _list)
        patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", _merge)
        patch.setattr(ConfigLoaderImpl, "_process_config_searchpath", _searched)
        # A repository is copied for each command line, which may replace its list of sources.
        patch.setattr(ConfigRepository, "__deepcopy__", lambda self, _: copy.copy(self), False)
        yield


def _list(repo: Any, overrides_list: list[Any], **more: Any) -> Any:
    """The config files of a command line: those that its groups choose, whatever its values."""
    if not _of_the_project(repo):
        return LISTS(repo=repo, overrides_list=overrides_list, **more)
    groups, values = [], []
    for one in overrides_list:
        chooses = one.is_sweep_override() or repo.group_exists(one.key_or_group)
        (groups if chooses else values).append(one)
    key = (*(one.input_line for one in groups), *more.items())
    if key not in _lists:
        _lists[key] = LISTS(repo=repo, overrides_list=groups, **more)
    found = copy.deepcopy(_lists[key])
    return replace(found, config_overrides=[*found.config_overrides, *values])


def _merge(self: ConfigLoaderImpl, defaults: list[Any], repo: Any) -> Any:
    if not _of_the_project(repo):
        return MERGE(self, defaults, repo)
    key = tuple(map(repr, defaults))
    if key not in _merged:
        _merged[key] = MERGE(self, defaults, repo)
    return copy.deepcopy(_merged[key])


def _searched(self: ConfigLoaderImpl, name: str | None, overrides: list[Any], repo: Any) -> None:
    """The project's config.yaml, which hydra reads here for a `hydra.searchpath`, has none."""
    keys = {one.key_or_group for one in overrides}
    if not _of_the_project(repo) or "hydra.searchpath" in keys:
        SEARCH(self, name, overrides, repo)


def _of_the_project(repo: Any) -> bool:
    files = [source for source in repo.get_sources() if source.scheme() == "file"]
    return [source.path for source in files] == [str(config_dir())]
