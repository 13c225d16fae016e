"""Faster versions of functions of the core for some devices, which the engine brings along.

A function that has one asks for it first. Decisions are made in float32, so versions are for
float32 tensors only. On CPU there is none: the operations in the core are the reference.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_VERSIONS: dict[tuple[str, str], Callable[..., Any]] = {}


def accelerated(name: str, like: Tensor, *arguments: Any) -> Any:
    """What the version of the function `name` for the device of `like` gives for the arguments.

    None if there is no version, or if it does not take these arguments; then the core computes.
    """
    version = _VERSIONS.get((name, like.device.type)) if like.dtype == torch.float32 else None
    return None if version is None else version(*arguments)


def register(device_type: str, versions: Mapping[str, Callable[..., Any]]) -> None:
    """Make the versions known, by the names of their functions, for a type of devices."""
    _VERSIONS.update({(name, device_type): version for name, version in versions.items()})


@contextmanager
def registered(device_type: str, versions: Mapping[str, Callable[..., Any]]) -> Iterator[None]:
    """For tests: the versions are known inside the block only."""
    before = dict(_VERSIONS)
    register(device_type, versions)
    try:
        yield
    finally:
        _VERSIONS.clear()
        _VERSIONS.update(before)
