"""The dense models that every method is timed beside, and what is called when they are timed."""

import copy
from collections.abc import Callable, Mapping

from timm.layers.attention import Attention
from torch import nn

from asap.measure.timed_images import Prepare, TimedImages

FUSED, EAGER = "fused dense", "eager dense"


def dense_baselines(backbone: nn.Module) -> dict[str, nn.Module]:
    """The two dense models that methods are compared with, sharing the backbone's weights.

    "fused dense" is the timm model as users run it, and what the headline ratio refers to. "eager
    dense" is the same model with timm's explicit attention: scores of the whole batch, softmax,
    product. That is what papers most likely measured, as their code needs the attention matrix and
    so switches the fused kernel off in the baseline too. Our own executor in eager mode would be no
    fair stand-in: it computes the scores in cache-sized pieces, which is faster than what anybody
    had.
    """
    return {FUSED: _with_attention(backbone, True), EAGER: _with_attention(backbone, False)}


def _with_attention(backbone: nn.Module, fused: bool) -> nn.Module:
    """The backbone, or a twin on the same tensors whose attention modules have the flag.

    So the backbone is never changed, and nothing is switched inside a timed call.
    """
    if all(m.fused_attn == fused for m in backbone.modules() if isinstance(m, Attention)):
        return backbone
    shared = {id(t): t for t in (*backbone.parameters(), *backbone.buffers())}
    twin = copy.deepcopy(backbone, shared)
    for module in twin.modules():
        if isinstance(module, Attention):
            module.__dict__["fused_attn"] = fused  # declared final, for the compiler's sake
    return twin


def candidates_of(
    dense: Mapping[str, nn.Module], reduced: Mapping[str, nn.Module], prepare: Prepare
) -> dict[str, Callable[[TimedImages], object]]:
    """Calls on a batch of bytes; raises ValueError where a method has a baseline's name."""
    if taken := dense.keys() & reduced.keys():
        raise ValueError(f"{taken.pop()!r} is the name of a baseline: call the method otherwise")

    def plain(model: nn.Module) -> Callable[[TimedImages], object]:
        return lambda batch: model(prepare(batch.pixels))

    def named(model: nn.Module) -> Callable[[TimedImages], object]:
        return lambda batch: model(prepare(batch.pixels), batch.ids)

    return {k: plain(m) for k, m in dense.items()} | {k: named(m) for k, m in reduced.items()}
