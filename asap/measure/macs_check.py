"""What independent counters say about a model's multiply-accumulates (MACs).

The tables' MACs come in closed form from the trace; here the executed graph is counted, by torch's
own counter and by fvcore, to check them. Both tools, as they are shipped, leave things out or count
more; the functions say which, and give that number too with `out_of_the_box`.
"""

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from asap.core import rows
from asap.core.macs import BackboneCost, backbone_macs

aten = torch.ops.aten


@dataclass(frozen=True)
class Conventions:
    """Mean MACs per image of the backbone, with and without the two attention products."""

    with_attention: float
    without_attention: float


def conventions(
    cost: BackboneCost, tokens: Int[Tensor, "images blocks_and_1"], position: str
) -> Conventions:
    """Both conventions of the literature, in closed form from a trace's `tokens`.

    `position` is the method's. The methods' papers count the attention products; tools that do not
    see the fused kernel leave them out, and some published numbers do too.
    """
    count = partial(backbone_macs, cost, np.asarray(tokens), position)
    return Conventions(float(count().mean()), float(count(attention_products=False).mean()))


def torch_count(
    model: nn.Module,
    images: Float[Tensor, "b 3 h w"],
    image_ids: Sequence[int] | None = None,
    out_of_the_box: bool = False,
) -> int:
    """MACs of one forward pass over all `images`, by torch's counter on the executed graph.

    The counter counts 2 FLOPs a MAC; this is half of that. As shipped it may miss fused attention
    on CPU (torch 2.13 does) and it counts matrix products and convolutions only. Given formulas
    here: fused attention on CPU; and two of a method's steps that are no matrix products, one MAC
    per number each: averaging rows (`index_add_` of rows) and distances between rows (`vector_norm`
    without keepdim). Padding, added on CPU to keep bits stable, is not counted as work: it is
    switched off while counting, so not thread-safe.
    """
    formulas = {} if out_of_the_box else _formulas()
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    with torch.no_grad(), _without_padding(), counter:
        model(images) if image_ids is None else model(images, image_ids)
    flops = counter.get_total_flops()
    assert flops % 2 == 0, flops
    return flops // 2


def fvcore_count(
    model: nn.Module, images: Float[Tensor, "b 3 h w"], out_of_the_box: bool = False
) -> dict[str, int]:
    """MACs of one forward pass over all `images` by fvcore, per operator; for dense backbones.

    fvcore counts 1 a MAC, and LayerNorm as 5 a number and batch norm as 2, which the papers'
    convention leaves out (operators "layer_norm", "batch_norm"). As shipped it skips fused
    attention; here that has a formula.
    """
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=DeprecationWarning)  # fvcore needs torch.jit
        from fvcore.nn import FlopCountAnalysis  # slow to import, and only this check needs it

        analysis = FlopCountAnalysis(model, images)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        analysis.tracer_warnings("none")
        if not out_of_the_box:
            analysis.set_op_handle("aten::scaled_dot_product_attention", _fvcore_attention)
        return {name: int(count) for name, count in analysis.by_operator().items()}


def _formulas() -> dict[Any, Any]:
    """FLOPs, 2 a MAC, of operators that torch's counter does not know."""
    found: dict[Any, Any] = {aten.index_add_: _averaged, aten.linalg_vector_norm: _distances}
    if hasattr(aten, "_scaled_dot_product_flash_attention_for_cpu"):
        found[aten._scaled_dot_product_flash_attention_for_cpu] = _attention
    return found


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def _averaged(_into: Any, _dim: Any, _index: Any, source: Any, **__: Any) -> int:
    return 2 * math.prod(source) if len(source) == 2 else 0


def _distances(
    differences: Any, _order: Any = 2, _dim: Any = None, keepdim: bool = False, **_: Any
) -> int:
    return 0 if keepdim else 2 * math.prod(differences)


def _fvcore_attention(inputs: list[Any], _outputs: list[Any]) -> int:
    query, key, value = (value.type().sizes() for value in inputs[:3])
    return sdpa_flop_count(query, key, value) // 2


@contextmanager
def _without_padding() -> Iterator[None]:
    before = rows.MIN_ROWS, rows.MIN_IMAGES
    rows.MIN_ROWS = rows.MIN_IMAGES = 1
    try:
        yield
    finally:
        rows.MIN_ROWS, rows.MIN_IMAGES = before
