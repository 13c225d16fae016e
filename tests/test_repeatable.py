"""What the engine does by torch's own operations on CUDA gives the same bits on every run.

There `index_add_`, `scatter_add_` and others add by atomics, in any order. On a CPU the order is
fixed, so that the operations are looked at instead: only sums that are exact in any order may go
through them.
"""

import copy
from typing import Any

import pytest
import torch
from contract import backbone, pictures
from schedules import KEY
from test_device_pass import FLOAT, stopping
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import asap
from asap.core import grouped_sums
from asap.engine.backend import CUDA, backend_of
from asap.methods import ATS, PPT, Asap, EViT, Method, ToMe

aten = torch.ops.aten
ADDED = {  # operator -> the place of the values that it adds
    aten.index_add: 3,
    aten.index_add_: 3,
    aten.scatter_add: 3,
    aten.scatter_add_: 3,
    aten.scatter_reduce: 3,
    aten.scatter_reduce_: 3,
    aten.index_reduce: 3,
    aten.index_reduce_: 3,
    aten._index_put_impl_: 2,
    aten.put_: 2,
    aten.bincount: 1,
    aten.histc: 0,
}
EXACT = ("amin", "amax")  # ways to reduce
BY_TORCH: dict[str, tuple[str, Method]] = {
    "pca_anchor": (KEY, stopping({"anchor": "pca"})),
    "plugin_keys": (KEY, stopping({"max_tokens": 8, "plugin": "keys", "per_round": 2})),
    "plugin_features": (KEY, stopping({"max_tokens": 8, "plugin": "features"})),
    "rollout": (KEY, stopping({"order": "rollout", "position": "after_block"})),
    "normalised": (KEY, stopping({"weights": "normalised", "proportional_attention": True})),
    "all_tokens_read": ("average_with_class-p36", Asap(tau=1.0)),
    "lvvit": ("lvvit-p36", Asap(tau=1.0)),
    "tome": (KEY, ToMe(8)),
    "ppt": (KEY, PPT(7, 7.0 / 64**2)),
    "evit": (KEY, EViT()),
    "ats": (KEY, ATS(samples=6, blocks=(2, 5))),
}


class Ordered(TorchDispatchMode):
    """AssertionError for an operator that adds numbers in any order on CUDA."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet, kwargs = func.overloadpacket, kwargs or {}
        place = ADDED.get(packet)
        if place is not None and not {*EXACT} & {a for a in args if isinstance(a, str)}:
            added = args[place] if len(args) > place else None
            whole = isinstance(added, Tensor) and torch.equal(added, added.round())
            assert whole, f"{packet} adds in any order on CUDA"
        return func(*args, **kwargs)


def outcome(model: asap.ReducedViT, images: Tensor) -> tuple[Tensor, ...]:
    logits, trace = model(images, range(len(images)), True)
    return logits.cpu(), *trace.values().values()


def assert_same(ours: tuple[Tensor, ...], theirs: tuple[Tensor, ...]) -> None:
    for mine, other in zip(ours, theirs, strict=True):
        assert torch.equal(mine.nan_to_num(-1), other.nan_to_num(-1))


@pytest.mark.parametrize("name", BY_TORCH)
def test_nothing_is_added_in_any_order(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And sums are those of the operations that a CPU takes."""
    key, method = BY_TORCH[name]
    images = pictures(key, FLOAT, 6)
    model = asap.ReducedViT(backbone(key, FLOAT), method, backend=CUDA())
    expected = outcome(model, images)
    assert len(expected[1].unique()) > 1  # tokens: something was reduced
    monkeypatch.setattr(grouped_sums, "IN_ORDER", set())
    with Ordered():
        assert_same(outcome(model, images), expected)


def test_a_sum_in_any_order_would_show() -> None:
    values, group = torch.rand(8, 3), torch.arange(8) % 2
    with Ordered(), pytest.raises(AssertionError, match="index_add_ adds in any order"):
        grouped_sums.grouped_sums(values, group, 2)


def test_rows_in_no_group_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.arange(10.0).view(5, 2)
    group = torch.tensor([1, 3, 0, 1, 3])
    expected = torch.tensor([[4.0, 5.0], [6.0, 8.0], [0.0, 0.0]])
    for in_order in ({"cpu"}, set()):
        monkeypatch.setattr(grouped_sums, "IN_ORDER", in_order)
        assert torch.equal(grouped_sums.grouped_sums(values, group, 3), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("name", BY_TORCH)
def test_the_same_bits_on_every_run(name: str, graphs: bool) -> None:
    """Without torch's deterministic mode, which would replace operations."""
    key, method = BY_TORCH[name]
    device = torch.device("cuda")
    backend = backend_of(device, graphs)
    backend = CUDA(backend.recorder, eager=True)  # else its pass would be one on the device
    images = pictures(key, FLOAT, 32).to(device)
    model = asap.ReducedViT(copy.deepcopy(backbone(key, FLOAT)).to(device), method, backend=backend)
    assert model.path == ("recorded torch" if graphs else "torch")
    first = outcome(model, images)
    for _ in range(3):
        assert_same(outcome(model, images), first)
