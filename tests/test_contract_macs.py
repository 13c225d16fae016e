"""The MACs of a trace are those of the operations that ran, to the integer.

Counted here by the formulas of torch's own counter, and by ours for what these do not know: the
fused attention of the CPU, and two things of the methods, weighted averages of tokens and distances
between rows of P. test_macs_check.py has the counter itself, which takes several times as long.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import timm
import torch
from contract import backbone, masses, pictures, threshold
from draws import WIDTH
from peers import predictor_file
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_flop_count, shape_wrapper

import asap
from asap.backbones.accepted import adapter_of
from asap.core import rows as core_rows
from asap.core.macs import backbone_macs
from asap.engine import attention
from asap.methods import (
    ATS,
    PPT,
    Asap,
    Dense,
    DynamicViT,
    EViT,
    Method,
    PruneSID,
    RandomDrop,
    ToMe,
    VisionZip,
    VisPruner,
    ZeroTPrune,
)

# Which models each count is made on, so that every kind of backbone has its turn.
KEYS = {
    "fused": ("plain-p64", "distilled-p25", "average-p25", "lvvit-p36"),
    "eager": ("registers-p36", "layerscale-p25", "qk_norm-p25", "clip-p25"),
}
IMAGES = 6
ASAP_OPTIONS: dict[str, dict] = {
    "pooling": {},
    "pruning": {"pool": False},
    "rollout": {"order": "rollout"},
    "rollout_no_accumulation": {"order": "rollout", "accumulate": False},
    "no_accumulation": {"accumulate": False},
    "overhead": {"overhead": True},
    "after_block": {"position": "after_block"},
    "patch_columns": {"distance_columns": "patches", "binning": "rank", "background": 2},
    "proportional": {"proportional_attention": True},
    "random_anchor": {"anchor": "random"},
    "force": {"miss": "force", "max_block": 5, "min_block": 3},
    "static": {"binning": "rank", "miss": "force", "min_block": 4, "max_block": 4},
    "budget": {"max_tokens": 8},
    "pca_anchor": {"anchor": "pca"},
    "quiet": {"anchor": "quiet", "distance": "self_aligned", "clusters": "auto"},
}
OTHERS: dict[str, Method] = {
    "dense": Dense(),
    "random_drop": RandomDrop(keep=0.5, block=2),
    "tome": ToMe(3),
    "tome_plain": ToMe(5, proportional_attention=False),
    "tome_until_nothing_is_left": ToMe(25),
    "ppt": PPT(7, 7.0 / 64**2),
    "ppt_pruning": PPT(threshold=0.0),
    "evit": EViT(),
    "evit_dropping": EViT(fuse=False),
    "ats": ATS(),
    "ats_few": ATS(7, [0, 4]),
    "visionzip": VisionZip(7, 5, block=3),
    "vispruner": VisPruner(9),
    "prunesid": PruneSID(17),
    "zero_tprune": ZeroTPrune(),
    "zero_tprune_layers": ZeroTPrune((2, 5), keep=(1.0, 0.5), similar=(2, 0), iterations=4),
    "dynamicvit": DynamicViT(0.6, predictor_file(WIDTH)),
}
aten = torch.ops.aten


def fused(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return sdpa_flop_count(query, key, value)


def averaged(_self: Any, _dim: Any, _index: Any, source: Any, **__: Any) -> int:
    """One multiply-add per element of the tokens averaged; one-dimensional sums are bookkeeping."""
    return 2 * math.prod(source) if len(source) == 2 else 0


def distances(values: Any, _ord: Any = 2, _dim: Any = None, keepdim: bool = False, **_: Any) -> int:
    """One square per element; ToMe's scaling to unit length is a norm, which nobody counts."""
    return 0 if keepdim else 2 * math.prod(values)


FORMULAS = flop_registry | {
    aten._scaled_dot_product_flash_attention_for_cpu: shape_wrapper(fused),
    aten.index_add: shape_wrapper(averaged),
    aten.index_add_: shape_wrapper(averaged),
    aten.linalg_vector_norm: shape_wrapper(distances),
}


class Counter(TorchDispatchMode):
    """FLOPs of the operators that run."""

    flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = func(*args, **kwargs)
        if formula := FORMULAS.get(func.overloadpacket):
            self.flops += formula(*args, **kwargs, out_val=made)
        return made


@pytest.fixture(autouse=True)
def _no_padding(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Rows that fill a product or a thread's share up are not work of the model."""
    monkeypatch.setattr(core_rows, "MIN_ROWS", 1)
    monkeypatch.setattr(core_rows, "PIECE", 0)
    yield


def executed(run: Any) -> int:
    """What ran, but for class rows computed beside the fused kernel, which has them too."""
    again, row = [], attention.class_row

    def beside(*given: Any) -> Any:
        before = counter.flops
        made = row(*given)
        again.append(counter.flops - before)
        return made

    with pytest.MonkeyPatch.context() as patch, Counter() as counter:
        patch.setattr(attention, "class_row", beside)
        run()
    flops = counter.flops - sum(again)
    assert flops % 2 == 0
    return flops // 2


def unscored(model: asap.ReducedViT, tokens: Any) -> int:
    """Scores of the queries that ATS drops: counted, as its authors compute them, and not run."""
    width = model.adapter.cost.blocks[0].attention_width
    dropped = (tokens[:, :-1] - tokens[:, 1:]) * tokens[:, :-1] * width
    return int(dropped.sum()) if model.method.position == "in_attention" else 0


@functools.cache
def method(name: str, key: str) -> Method:
    if name in OTHERS:
        return OTHERS[name]
    options = {"anchor": "mass"} if key.startswith("average") else {}
    options |= ASAP_OPTIONS[name]
    mass = masses(key, torch.float32, options.get("order", "walk"), IMAGES)
    first, last = options.get("min_block", 1), options.get("max_block", mass.shape[1] - 1)
    return Asap(tau=threshold(mass, first, last), **options)


@pytest.mark.parametrize("kernel", KEYS)
@pytest.mark.parametrize("name", [*OTHERS, *ASAP_OPTIONS])
def test_trace_equals_what_ran(name: str, kernel: str) -> None:
    for key in KEYS[kernel]:
        if name.startswith(("ppt", "evit", "ats", "vis", "prunesid")):  # they need a class token
            key = key.replace("average-", "average_with_class-")
        net = backbone(key, torch.float32)
        model = asap.ReducedViT(net, method(name, key), eager=kernel == "eager")
        images = pictures(key, torch.float32, IMAGES)
        found = []
        count = executed(lambda m=model, x=images, f=found: f.append(m(x, range(IMAGES), True)))
        trace = found[0][1]
        count += unscored(model, trace.tokens)
        assert int((trace.macs_backbone + trace.macs_method).sum()) == count, key
        if name == "dense":
            assert not trace.macs_method.any()


@functools.cache
def on_meta(name: str) -> nn.Module:
    """A real model without memory or arithmetic; its attention explicit, so that it is counted."""
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False).eval()
    for block in model.blocks:
        block.attn.fused_attn = False
    return model


@pytest.mark.parametrize(
    ("name", "gmacs"),
    [
        ("deit_tiny_patch16_224", 1.2536832),
        ("deit_small_patch16_224", 4.5989),
        ("deit_base_patch16_224", 17.5638),
    ],
)
def test_dense_deit(name: str, gmacs: float) -> None:
    adapter = adapter_of(on_meta(name))
    tokens = np.full((1, adapter.anatomy.depth + 1), adapter.anatomy.tokens)
    macs = int(backbone_macs(adapter.cost, tokens, "after_attention")[0])
    digits = 7 if name.startswith("deit_tiny") else 4
    assert round(macs / 1e9, digits) == gmacs
    assert executed(lambda: on_meta(name)(torch.empty(1, 3, 224, 224, device="meta"))) == macs


def test_dense_deit_tiny_as_it_runs() -> None:
    model = timm.create_model("deit_tiny_patch16_224", pretrained=False).eval()
    found: list = []
    images = torch.zeros(1, 3, 224, 224)
    reduced = asap.ReducedViT(model, Dense())
    assert executed(lambda: found.append(reduced(images, return_trace=True))) == 1_253_683_200
    assert found[0][1].macs_backbone.tolist() == [1_253_683_200]
