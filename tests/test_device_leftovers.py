"""What earlier passes left in fixed memory behind the last row never reaches an image.

Those rows are computed with in every pass and get every residual, so in half precision they come
to hold infinities and NaN in time.
"""

import pytest
import torch
from contract import backbone
from places import OnDevice
from schedules import ADAPTIVE, COUNT, FIXED, KEY, stopping
from test_device_pass import FLOAT, assert_close, batches

import asap
from asap.engine.kernels import launch
from asap.methods import ATS, Method

METHODS: dict[str, Method] = {
    "tome": FIXED["tome"],
    "ats": ATS(samples=30),
    **{name: stopping(ADAPTIVE[name], 3 * COUNT) for name in ("pooling", "proportional", "budget")},
}


@pytest.mark.parametrize("name", METHODS)
def test_nan_behind_the_last_row_reaches_no_image(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "DEVICES", set())
    net, method = backbone(KEY, FLOAT), METHODS[name]
    ours, theirs = asap.ReducedViT(net, method, backend=OnDevice()), asap.ReducedViT(net, method)
    for images in batches():
        found = ours(images, None, True)
        assert_close(found, theirs(images, None, True))
        (one,) = ours._passes.values()
        memory = one.memory
        for held in (*(side.rows for side in memory.tokens), memory.hidden, memory.attended):
            held.fill_(torch.nan)
        if memory.qkv is not None:
            memory.qkv.fill_(torch.nan)
