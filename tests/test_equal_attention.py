"""Attention of images of equal length by a library that says it can and then cannot."""

from typing import Any

import pytest
import torch
from torch import Tensor

from asap.engine.kernels import equal_attention as module
from asap.engine.kernels import launch
from asap.engine.kernels.equal_attention import equal_attention


def by_hand(q: Tensor, k: Tensor, v: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    scores = q @ k.transpose(2, 3) * scale
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


@pytest.mark.parametrize("further", [True, False])
def test_a_library_that_fails_is_asked_once(
    further: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def breaks(q: Tensor, *_: Any) -> Any:
        asked.append(q.shape)
        raise RuntimeError("No valid execution plans built.\nand more")

    monkeypatch.setattr(launch, "DEVICES", set())
    monkeypatch.setattr(module, "_refused", set())
    libraries = [(lambda given: True, breaks), (lambda given: further, by_hand)]
    monkeypatch.setattr(module, "LIBRARIES", libraries)
    q, k, v = torch.randn(3 * 7, 3, 2, 8).unbind(1)
    shaped = [x.view(3, 7, 2, 8).transpose(1, 2) for x in (q, k, v)]
    out, sums = by_hand(*shaped, 0.3)
    for _ in range(2):
        found, lse = equal_attention(q, k, v, 3, 0.3)
        torch.testing.assert_close(found, out.transpose(1, 2).flatten(0, 1))
        torch.testing.assert_close(lse, sums.transpose(1, 2))
    assert len(asked) == 1 and caplog.text.count("No valid execution plans built.") == 1
    equal_attention(q[:14], k[:14], v[:14], 2, 0.3)
    assert len(asked) == 2  # another shape may be possible


def test_memory_that_runs_out_is_no_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "LIBRARIES", [(lambda given: True, breaks)])
    q, k, v = torch.randn(14, 3, 2, 8).unbind(1)
    with pytest.raises(torch.OutOfMemoryError):
        equal_attention(q, k, v, 2, 0.3)
