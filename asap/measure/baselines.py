"""The dense models that every method is compared with in timing, and the timed calls."""

import copy
from collections.abc import Callable, Mapping

from timm.layers.attention import Attention
from torch import nn

from asap.measure.timed_images import Prepare, TimedImages

FUSED, EAGER = "fused dense", "eager dense"


def dense_baselines(backbone: nn.Module) -> dict[str, nn.Module]:
    """The two dense models that methods are compared with, sharing the backbone's weights.

    "fused dense" is the timm model as users run it; the main ratio refers to it. "eager dense" is
    the same model with timm's explicit attention: scores of the whole batch, softmax, product.
    Papers most likely measured this one, since their code needs the attention matrix and so
    switches the fused kernel off in the baseline too. Our own executor in eager mode would not be a
    fair replacement: it computes the scores in cache-sized pieces, which is faster than the
    authors' code was.
    """
    return {FUSED: _with_attention(backbone, True), EAGER: _with_attention(backbone, False)}


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
