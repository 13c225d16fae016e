"""The pretended device: every operator goes through it, is checked, and runs on the CPU."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map, tree_map_only

from . import rules
from .recording import Recording
from .standins import STANDINS
from .tensor import CUDA, Pretended, garbage, is_cuda, numbers_of

aten = torch.ops.aten
EMPTY = {aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided}


class Refused(RuntimeError):
    """What a CUDA device would not do."""


class PretendedDevice(TorchDispatchMode):
    """waits: how often, and in which operator, the host waited for the device. copied: copies from
    the host by operator. recording: the capture that is going on. room: bytes that a new tensor may
    have, None: any number; largest: those that one had.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits, self.copied = Counter[str](), Counter[str]()
        self.recording: Recording | None = None
        self.room: int | None = None
        self.largest = 0
        self.sent: list[tuple[Tensor, Tensor]] = []  # copies to the host that are on their way
        self.pins = list[Tensor]()  # pinned memory of the host

    # ---- the host's side

    def wait(self, why: str) -> None:
        """The host waits until the device has done everything."""
        if self.recording is not None:
            raise Refused(f"{why}: the host cannot wait while a CUDA graph is captured")
        self.waits[why] += 1
        self.arrive()

    def arrive(self) -> None:
        """All copies to the host are there."""
        for to, values in self.sent:
            to.copy_(values)
        self.sent.clear()

    def pin(self, host: Tensor) -> Tensor:
        """Mark memory of the host as pinned."""
        self.pins.append(host)
        return host

    def is_pinned(self, host: Tensor) -> bool:
        if isinstance(host, Pretended):
            return False
        return host.untyped_storage().data_ptr() in {
            x.untyped_storage().data_ptr() for x in self.pins
        }

    # ---- operators

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        leaves = tree_leaves((args, kwargs))
        here = [x for x in leaves if isinstance(x, Pretended)]
        named = [x for x in leaves if isinstance(x, torch.device)]
        if not here and not any(map(is_cuda, named)):
            pinned = kwargs.pop("pin_memory", None)
            found = func(*args, **kwargs)
            return self.pin(found) if pinned else found
        if _composed(func):
            with self:
                return func.decompose(*args, **kwargs)
        if func.overloadpacket in rules.COPIES:
            return self._copied(func, args, kwargs)
        if "device" in kwargs and not is_cuda(kwargs["device"] or (CUDA if here else None)):
            return func(*tree_map(_like_host, args), **kwargs)  # such as zeros_like(x, device=cpu)
        if why := rules.refused(func, args, kwargs):
            raise Refused(f"{func}: {why}")
        if why := rules.waits(func, args, kwargs):
            self.wait(why)
        if rules.index_on_host(func, args):
            self._copy_from_host(f"{func} by indices of the host")
        random = torch.Tag.nondeterministic_seeded in func.tags and func not in STANDINS
        if self.recording is not None and random:
            raise Refused(f"{func}: random numbers while a CUDA graph is captured")
        if "device" in kwargs:
            kwargs["device"] = torch.device("cpu")
        kwargs.pop("pin_memory", None)
        work = STANDINS.get(func) or func
        return self.run(str(func), work, args, kwargs, _written(func, args, kwargs))

    def run(
        self,
        name: str,
        work: Callable[..., Any],
        args: Any,
        kwargs: Any,
        written: list[Tensor],
    ) -> Any:
        """The work on the inner tensors; its results are on the device. written: memory that it
        changes.
        """
        own_args, own_kwargs = tree_map(numbers_of, (args, kwargs))
        if self.recording is not None:
            self.recording.save([numbers_of(x) for x in written])
            held = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
            self.recording.hold(
                [x for x in held if not (isinstance(x, Pretended) or self.is_pinned(x))]
            )
        with torch._C.DisableTorchFunction():
            found = work(*own_args, **own_kwargs)
        empty = getattr(work, "overloadpacket", None) in EMPTY
        if empty:
            garbage(found)
        if self.recording is not None:

            def again(args: Any, kwargs: Any) -> Any:
                return work(*args, **kwargs)

            self.recording.add(name, None if empty else again, (own_args, own_kwargs), found)
        return self.outside(found, (args, kwargs))

    def outside(self, found: Any, given: Any) -> Any:
        """Results as tensors on the device; a tensor that was given is itself."""
        known = {id(x.numbers): x for x in tree_leaves(given) if isinstance(x, Pretended)}
        places = {x.numbers.untyped_storage().data_ptr(): x for x in known.values()}

        def wrap(x: Tensor) -> Tensor:
            if id(x) in known:
                return known[id(x)]
            of = places.get(x.untyped_storage().data_ptr())
            if of is None:
                self._allocate(x.nbytes)
                return Pretended(x)
            with torch.inference_mode(of.is_inference()):  # a view is what its tensor is
                return Pretended(x)

        return tree_map_only(Tensor, wrap, found)

    def _allocate(self, nbytes: int) -> None:
        self.largest = max(self.largest, nbytes)
        if self.room is not None and nbytes > self.room:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {nbytes} bytes.")

    # ---- copies

    def _copied(self, func: Any, args: Any, kwargs: Any) -> Any:
        if func.overloadpacket is aten._to_copy:
            return self._made_copy(func, args, kwargs)
        to, source = args[0], args[1]
        ahead = bool(kwargs.get("non_blocking", args[2] if len(args) > 2 else False))
        if isinstance(to, Pretended):
            if not isinstance(source, Pretended):
                self._from_host(str(func), source, ahead)
            return self.run(str(func), func, args, kwargs, [to])
        self._to_host(f"{func} to the host", to, ahead)
        if ahead:
            self.sent.append((to, source.numbers.clone().to(to.dtype)))
            garbage(to)
            return to
        return func(to, source.numbers)

    def _made_copy(self, func: Any, args: Any, kwargs: Any) -> Any:
        (source,), device = args, kwargs.pop("device", None)
        ahead = bool(kwargs.pop("non_blocking", False))
        kwargs.pop("pin_memory", None)
        there = is_cuda(device) or (device is None and isinstance(source, Pretended))
        if there and not isinstance(source, Pretended):
            self._from_host(str(func), source, ahead)
        if there:
            return self.run(str(func), func, args, kwargs, [])
        if not ahead:
            self.wait(f"{func} to the host")
            return func(source.numbers, **kwargs)
        if self.recording is not None:
            raise Refused(f"{func}: new memory of the host while a CUDA graph is captured")
        made = self.pin(func(source.numbers, **kwargs))
        self.sent.append((made, made.clone()))
        garbage(made)
        return made

    def _from_host(self, name: str, source: Tensor, ahead: bool) -> None:
        if self.recording is not None and not (ahead and self.is_pinned(source)):
            raise Refused(f"{name}: a copy from pageable memory while a CUDA graph is captured")
        self.copied[name] += 1

    def _copy_from_host(self, name: str) -> None:
        self._from_host(name, torch.empty(0), False)

    def _to_host(self, name: str, to: Tensor, ahead: bool) -> None:
        if not (ahead and self.is_pinned(to)):
            self.wait(name)

    # ---- captures

    @contextmanager
    def capturing(self) -> Iterator[Recording]:
        if self.recording is not None:
            raise Refused("a capture inside a capture")
        self.recording = Recording()
        try:
            yield self.recording
        finally:
            done, self.recording = self.recording, None
            done.end()


@cache
def _composed(func: Any) -> bool:
    """Whether torch makes the operator of others, on every device."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    """The tensors that an operator writes to, by its schema."""
    if not func._schema.is_mutable:
        return []
    found = []
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            value = kwargs.get(argument.name, args[place] if place < len(args) else None)
            found += [x for x in tree_leaves(value) if isinstance(x, Pretended)]
    return found


def _like_host(value: Any) -> Any:
    """Something like a tensor of the device, for an operator that makes one on the host."""
    return torch.empty_like(value.numbers) if isinstance(value, Pretended) else value
