"""The dense models that every method is compared with in timing, and the timed calls."""

import copy
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec

import torch
from timm.layers.attention import Attention
from torch import nn

from asap.engine.backend import Backend
from asap.engine.executor import ReducedViT
from asap.measure.timed_images import Prepare, TimedImages
from asap.methods import Dense

# By the name in options and records: the name among the timed candidates.
BASELINES = {name: f"{name} dense" for name in ("fused", "eager", "best", "compiled")}
FUSED, EAGER, BEST, COMPILED = BASELINES.values()


def dense_baselines(
    backbone: nn.Module, further: Sequence[str] = (), backend: Backend | None = None
) -> dict[str, nn.Module]:
    """The dense models that methods are compared with, sharing the backbone's weights.

    "fused dense" is the timm model as users run it; the main ratio refers to it. "eager dense" is
    the same model with timm's explicit attention: scores of the whole batch, softmax, product.
    Papers most likely measured this one, since their code needs the attention matrix and so
    switches the fused kernel off in the baseline too. Our own executor in eager mode would not be a
    fair replacement: it computes the scores in cache-sized pieces, which is faster than the
    authors' code was.

    further: "best", the dense model in the engine that runs the methods, so that a method gains
    nothing from the engine alone (`backend`: how the device computes there); "compiled", timm's
    model after torch.compile with its defaults.
    """
    found = {FUSED: _with_attention(backbone, True), EAGER: _with_attention(backbone, False)}
    if "best" in further:
        found[BEST] = ReducedViT(backbone, Dense(), backend=backend)
    if "compiled" in further:
        found[COMPILED] = _compiled(found[FUSED])
    return found


def why_not_compiled(device: torch.device) -> str | None:
    """Why torch.compile has no compiler for a device; None if it has one."""
    if device.type == "cuda":
        return None if find_spec("triton") else "torch.compile needs Triton: pip install triton"
    names = filter(None, (os.environ.get("CXX"), "g++", "clang++", "cl"))
    if any(shutil.which(name) for name in names):
        return None
    return "torch.compile needs a C++ compiler: install g++, or set CXX"


def _compiled(model: nn.Module) -> nn.Module:
    # Each batch size is compiled for itself, as a user with one batch size has it.
    compiled = torch.compile(model, dynamic=False)
    assert isinstance(compiled, nn.Module)
    return compiled


def _with_attention(backbone: nn.Module, fused: bool) -> nn.Module:
    """The backbone if its attention modules have the flag, else a copy that shares its tensors.

    So the backbone is never changed, and nothing is switched inside a timed call.
    """
    if all(m.fused_attn == fused for m in backbone.modules() if isinstance(m, Attention)):
        return backbone
    shared = {id(t): t for t in (*backbone.parameters(), *backbone.buffers())}
    twin = copy.deepcopy(backbone, shared)
    for module in twin.modules():
        if isinstance(module, Attention):
            module.__dict__["fused_attn"] = fused  # it is declared Final for torch.jit
    return twin


def candidates_of(
    dense: Mapping[str, nn.Module], reduced: Mapping[str, nn.Module], prepare: Prepare
) -> dict[str, Callable[[TimedImages], object]]:
    """The timed calls on a batch of bytes. ValueError if a method has a baseline's name."""
    if taken := dense.keys() & reduced.keys():
        raise ValueError(f"{taken.pop()!r} is the name of a baseline: call the method otherwise")

    def plain(model: nn.Module) -> Callable[[TimedImages], object]:
        return lambda batch: model(prepare(batch.pixels))

    def named(model: nn.Module) -> Callable[[TimedImages], object]:
        return lambda batch: model(prepare(batch.pixels), batch.ids)

    return {k: plain(m) for k, m in dense.items()} | {k: named(m) for k, m in reduced.items()}
