"""Launches of the project's kernels: their arguments are checked, their plain versions compute.

A function that launches runs twice: as on a device, on copies of its arguments, where a launch is
checked and does nothing; then in plain torch on the inner tensors, which gives the numbers. What
both return must agree in shape, type and strides.
"""

import dataclasses
import functools
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from asap.core import accelerated, emergence, matching, order, pooling, ranking
from asap.engine import kernels
from asap.engine.kernels import equal_attention, launch
from asap.engine.kernels.registry import VERSIONS

from .device import PretendedDevice, Refused
from .recording import on_the_host
from .tensor import Pretended

PROJECT = str(Path(__file__).resolve().parents[2])
MOST = (2**31 - 1, 65535, 65535)  # programs of a grid
IN_THE_CORE: dict[str, Callable[..., Any]] = {  # functions that give None where no kernel runs
    "bipartite_matching": matching.bipartite_matching,
    "mean_of_heads": lambda keys: matching.mean_of_heads(keys, torch.empty(0)),
    "mean_weights": pooling.mean_weights,
    "ranked_target": ranking.ranked_target,
    "ranks": order.ranks,
    "emergence": emergence.emergence,
}


def mapped(value: Any, work: Callable[[Tensor], Any]) -> Any:
    """The value with every tensor in it replaced, in containers and dataclasses too."""
    if isinstance(value, Tensor):
        return work(value)
    if isinstance(value, tuple | list):
        return type(value)(mapped(x, work) for x in value)
    if isinstance(value, dict):
        return {k: mapped(x, work) for k, x in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return dataclasses.replace(value, **{n: mapped(getattr(value, n), work) for n in names})
    return value


def tensors_of(value: Any) -> list[Tensor]:
    found: list[Tensor] = []
    mapped(value, lambda x: found.append(x) or x)
    return found


class Kernel:
    """Stands for a compiled kernel: `kernel[grid](...)` checks what it is launched with."""

    def __init__(self, function: Any, launches: "Launches") -> None:
        self.name = function.__name__
        parameters = inspect.signature(function).parameters.values()
        self.names = [p.name for p in parameters]
        self.constants = {
            p.name for p in parameters if p.annotation in (launch.tl.constexpr, "tl.constexpr")
        }
        self.launches = launches

    def __getitem__(self, grid: tuple[int, ...]) -> Callable[..., None]:
        def started(*args: Any, **kwargs: Any) -> None:
            if not all(
                type(n) is int and 0 < n <= most for n, most in zip(grid, MOST, strict=False)
            ):
                raise Refused(f"{self.name}: a grid of {grid} programs")
            options = {k: kwargs.pop(k) for k in ("num_warps", "num_stages") if k in kwargs}
            if options.get("num_warps", 4) not in (1, 2, 4, 8, 16, 32):
                raise Refused(f"{self.name}: {options} warps")
            given = dict(zip(self.names, args, strict=False)) | kwargs
            if set(given) != set(self.names) or len(args) + len(kwargs) != len(self.names):
                raise Refused(f"{self.name}: arguments {sorted(set(given) ^ set(self.names))}")
            self._check(given)
            self.launches.count += 1

        return started

    def _check(self, given: dict[str, Any]) -> None:
        numbers = [x for x in given.values() if type(x) is int]
        for name, value in given.items():
            if name in self.constants:
                if not isinstance(value, bool | int | float):
                    raise Refused(f"{self.name}: {name}={value!r} is no constant")
            elif isinstance(value, Tensor):
                if not isinstance(value, Pretended):
                    raise Refused(f"{self.name}: {name} is on the CPU")
                for size, stride in zip(value.shape, value.stride(), strict=True):
                    if not value.is_contiguous() and size > 1 and stride not in (1, *numbers):
                        strides = f"strides {value.stride()}, which it does not get"
                        raise Refused(f"{self.name}: {name} has {strides}")
            elif not isinstance(value, bool | int | float):
                raise Refused(f"{self.name}: {name} is {type(value).__name__}")
            elif isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise Refused(f"{self.name}: {name}={value}")


class Launches:
    """What stands between the project and its kernels; `count` counts launches."""

    def __init__(self, device: PretendedDevice) -> None:
        self.device, self.count = device, 0
        self.inside, self.library = False, True

    def put_in_place(self, patch: pytest.MonkeyPatch) -> None:
        """Until the patch is undone, kernels are launched here."""
        patch.setattr(launch, "DEVICES", {"cuda"})
        patch.setattr(launch, "INTERPRETED", False)
        replaced: dict[int, Any] = {}
        for module in modules():
            for name, value in list(vars(module).items()):
                plain = getattr(value, "fn", value)
                if name.endswith("_kernel") and inspect.isfunction(plain):
                    patch.setattr(module, name, Kernel(plain, self))
                elif name == "architecture":
                    patch.setattr(module, name, lambda: 90)
                elif launches_kernels(value, module):
                    replaced[id(value)] = functools.wraps(value)(self.launching(value))
        for module in list(sys.modules.values()):
            if (getattr(module, "__file__", None) or "").startswith(PROJECT):
                for name, value in list(vars(module).items()):
                    if id(value) in replaced:
                        patch.setattr(module, name, replaced[id(value)])
        versions = {name: replaced.get(id(one), one) for name, one in VERSIONS.items()}
        patch.setattr("asap.engine.kernels.registry.VERSIONS", versions)
        for name in ("can_use_cudnn_attention", "can_use_flash_attention"):
            patch.setattr(equal_attention, name, self._takes)
        patch.setattr(accelerated, "_VERSIONS", dict(accelerated._VERSIONS))
        accelerated.register("cuda", versions)

    def _takes(self, given: Any) -> bool:
        """Whether the library's attention for half precision takes such tensors."""
        return self.library and given.query.dtype in (torch.float16, torch.bfloat16)

    def launching(self, function: Any) -> Callable[..., Any]:
        """The function in the place of one that launches kernels."""

        def work(*args: Any, **kwargs: Any) -> Any:
            given = (args, kwargs)
            if self.inside or not any(isinstance(x, Pretended) for x in tensors_of(given)):
                return function(*args, **kwargs)
            before, recording = self.count, self.device.recording
            self.inside, self.device.recording = True, None
            try:
                copies = mapped(given, _copied)
                waits = self.device.waits.copy()
                shown = function(*copies[0], **copies[1])
                if self.device.waits != waits:
                    raise Refused(
                        f"{function.__name__}: {self.device.waits - waits} beside a launch"
                    )
            finally:
                self.inside = False
                self.device.recording = recording
            if self.count == before:
                return function(*args, **kwargs)
            found = self._plain(function, given)
            _agree(function.__name__, shown, found)
            return found

        return work

    def _plain(self, function: Any, given: Any) -> Any:
        """By torch on the inner tensors, as one step of a recording."""
        outer = tensors_of(given)
        device = self.device

        def work(*own: Tensor) -> Any:
            values = iter(own)
            args, kwargs = mapped(given, lambda _: next(values))
            plain = IN_THE_CORE.get(function.__name__) or function
            return plain(*args, **kwargs)

        own = [x.numbers if isinstance(x, Pretended) else x for x in outer]
        if device.recording is not None:
            device.recording.save(own)
        with on_the_host():
            found = work(*own)
        flat = tensors_of(found)
        if device.recording is not None:
            device.recording.add(function.__name__, lambda *own: tensors_of(work(*own)), own, flat)
        wrapped = iter(device.outside(flat, outer))
        return mapped(found, lambda _: next(wrapped))


def modules() -> list[ModuleType]:
    """All modules of kernels."""
    names = [info.name for info in pkgutil.iter_modules(kernels.__path__)]
    return [importlib.import_module(f"{kernels.__name__}.{name}") for name in names]


def launches_kernels(value: Any, module: ModuleType) -> bool:
    """Whether this is a function of the module that launches a kernel itself."""
    if not inspect.isfunction(value) or value.__module__ != module.__name__:
        return False
    used = inspect.unwrap(value).__code__.co_names
    return (
        any(name.endswith("_kernel") or name == "_launch" for name in used)
        and value.__name__[0] != "_"
    )


def _copied(x: Tensor) -> Tensor:
    """A copy with the same strides."""
    if not isinstance(x, Pretended):
        return x
    made = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)
    return Pretended(made.copy_(x.numbers))


def _agree(name: str, shown: Any, found: Any) -> None:
    ours, theirs = tensors_of(shown), tensors_of(found)
    for one, other in zip(ours, theirs, strict=True):
        about = [(tuple(x.shape), x.dtype, x.stride(), x.device) for x in (one, other)]
        if about[0] != about[1]:
            raise Refused(f"{name} gives {about[0]} by a kernel and {about[1]} in plain torch")
