"""Counts multiply-accumulates (MACs) with independent tools. Used by scripts and tests only.

The MACs in tables are computed in closed form from the trace. To check them, torch's own counter
and fvcore count the executed graph here. Without changes, both tools miss some operations or count
additional ones. The functions state which; with `out_of_the_box` they return that count instead.
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

from asap.core import rows, square_products
from asap.core.macs import BackboneCost, backbone_macs
from asap.engine import attention

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

    `position`: of the method. The methods' papers count the attention products; tools that miss the
    fused kernel do not, and neither do some published numbers.
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

    The counter counts 2 FLOPs for a MAC; the result here is half of its count. Out of the box it
    counts only matrix products and convolutions, and it may miss fused attention on CPU (torch 2.13
    does). Here four operations get a formula: fused attention on CPU, products of square matrices
    by oneDNN, and two steps of methods that are not matrix products, with one MAC per number:
    averaging rows (`index_add_` of rows) and distances between rows (`vector_norm` without
    keepdim). Two things are not counted as work:
    padding, which is added on CPU to keep bits stable, and the class token's row of the attention
    where it is computed beside the fused kernel, which computes it too. This changes modules while
    it counts, so the function is not thread-safe.
    """
    formulas = {} if out_of_the_box else _formulas()
    counter = FlopCounterMode(display=False, custom_mapping=formulas)
    with torch.no_grad(), _without_padding(), _beside(counter) as again, counter:
        model(images) if image_ids is None else model(images, image_ids)
    flops = counter.get_total_flops() - sum(again)
    assert flops % 2 == 0, flops
    return flops // 2


def fvcore_count(
    model: nn.Module, images: Float[Tensor, "b 3 h w"], out_of_the_box: bool = False
) -> dict[str, int]:
    """MACs of one forward pass over all `images` by fvcore, per operator; for dense backbones.

    fvcore counts 1 for a MAC, and 5 per number for LayerNorm and 2 for batch norm, which the
    papers' convention leaves out (operators "layer_norm", "batch_norm"). Out of the box it skips
    fused attention; here that gets a formula.
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
    """FLOPs (2 for a MAC) of operators that torch's counter does not know."""
    found: dict[Any, Any] = {aten.index_add_: _averaged, aten.linalg_vector_norm: _distances}
    if hasattr(aten, "_scaled_dot_product_flash_attention_for_cpu"):
        found[aten._scaled_dot_product_flash_attention_for_cpu] = _attention
    if square_products.OPERATOR is not None:
        found[square_products.OPERATOR] = _product
    return found


def _product(left: Any, right: Any, *_: Any, **__: Any) -> int:
    return 2 * math.prod(left) * right[0]  # `right` is transposed


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
def _beside(counter: FlopCounterMode) -> Iterator[list[int]]:
    """The FLOPs that go into class rows, in a list that grows."""
    found: list[int] = []
    row = attention.class_row

    def counted(*given: Any) -> Tensor:
        before = counter.get_total_flops()
        made = row(*given)
        found.append(counter.get_total_flops() - before)
        return made

    attention.class_row = counted
    try:
        yield found
    finally:
        attention.class_row = row


@contextmanager
def _without_padding() -> Iterator[None]:
    before = rows.MIN_ROWS, rows.MIN_IMAGES, rows.PIECE
    rows.MIN_ROWS, rows.MIN_IMAGES, rows.PIECE = 1, 1, 0
    try:
        yield
    finally:
        rows.MIN_ROWS, rows.MIN_IMAGES, rows.PIECE = before
