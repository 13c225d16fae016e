"""engine.attention: the fused kernel or an explicit softmax, for every row of a run."""

from pathlib import Path
from typing import Any

import pytest
import torch
from contract import backbone, outcome, pictures
from samples import small_run
from torch.nn import functional as F

import asap
from asap.engine.backend import CPU as CPUBackend
from asap.engine.backend import backend_of, explicit_attention
from asap.errors import RequestError
from asap.measure.session import Session
from asap.measure.throughput import measure_throughput
from asap.measure.timed_images import TimedImages
from asap.measure.timing import ThroughputPlan
from asap.methods import Asap, Dense, EViT
from asap.records.key import key_of
from asap.shared_prefix import SharedPrefix
from asap.spec.run_spec import EngineSpec

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("asked", "device", "dtype", "eager"),
    [
        ("auto", "cpu", torch.bfloat16, True),
        ("auto", "cpu", torch.float32, False),
        ("auto", "cpu", torch.float16, False),
        ("auto", "cuda", torch.bfloat16, False),
        ("eager", "cuda", torch.float16, True),
        ("fused", "cpu", torch.bfloat16, False),
    ],
)
def test_auto_is_explicit_where_that_is_faster(
    asked: str, device: str, dtype: torch.dtype, eager: bool
) -> None:
    assert explicit_attention(asked, torch.device(device), dtype) == eager


def test_a_key_says_that_attention_is_explicit(tmp_path: Path) -> None:
    """The key of fused attention is that of records made before there was a choice."""

    def identity(precision: str, asked: str) -> dict[str, Any]:
        spec = small_run(tmp_path, precision=precision, engine={"attention": asked})
        return Session(spec).identity(Dense())

    assert EngineSpec().attention == "fused"
    fused = identity("bf16", "fused")
    assert "attention" not in fused and "attention" not in identity("fp32", "auto")
    assert identity("bf16", "auto") == {**fused, "attention": "eager"}
    assert key_of(identity("bf16", "eager")) != key_of(fused)
    with pytest.raises(RequestError, match=r"engine\.attention='slow' .* auto, fused, eager"):
        identity("fp32", "slow")


@torch.no_grad()
def test_no_row_uses_the_fused_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither alone nor in a joint pass, where the bits are those of the rows alone."""
    session = Session(small_run(tmp_path, engine={"attention": "eager"}))
    images = torch.stack([session.data[i].image for i in range(4)])
    methods = [Asap(), Asap(pool=False, tau=2.0), Dense()]

    def refused(*given: Any, **more: Any) -> None:
        raise AssertionError("the fused kernel was used")

    monkeypatch.setattr(F, "scaled_dot_product_attention", refused)
    alone = [outcome(session.model(m), images, [0, 1, 2, 3]) for m in (*methods, EViT())]
    together = SharedPrefix(session.backbone, methods, session.backend())(images, [0, 1, 2, 3])
    for cell in range(len(methods)):
        logits, trace = together[cell]
        assert torch.equal(logits, alone[cell][0])
        assert torch.equal(trace.tokens, alone[cell][1].tokens)


def test_speeds_are_those_of_the_attention_that_was_asked_for() -> None:
    """Of the methods and of the best dense model; the other baselines are timm's."""
    net, plan = backbone("plain-p64", torch.float32), ThroughputPlan(2, 1e-6, 0, True, 0.0)
    pixels = torch.zeros(4, 3, *net.patch_embed.img_size, dtype=torch.uint8)
    asked = []

    class Watched(CPUBackend):
        def fuses(self, q: torch.Tensor) -> bool:
            asked.append(super().fuses(q))
            return asked[-1]

    given = [net, {"a": EViT()}, TimedImages(pixels, (0, 1, 2, 3)), 4, [0.5] * 3, [0.5] * 3, plan]
    measure_throughput(*given, opponents=["best"], backend=Watched(eager=True))
    assert asked and not any(asked)


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_explicit_attention_is_close_to_the_fused_kernels(dtype: torch.dtype) -> None:
    images, net = pictures("plain-p64", dtype, 4), backbone("plain-p64", dtype)
    fused, eager = (
        asap.ReducedViT(net, Dense(), backend=backend_of(CPU, eager=e))(images).float()
        for e in (False, True)
    )
    tolerance = 1e-5 if dtype == torch.float32 else 0.05
    assert float((fused - eager).norm() / fused.norm()) < tolerance
