"""A pass on the device does what the executor does: kernels by their plain versions, graphs by a
fake that replays the first closure of every key.
"""

from typing import Any

import numpy as np
import pytest
import schedules
import torch
from contract import backbone, masses, pictures, threshold
from draws import models
from fake_graphs import FakeGraphs
from places import OnDevice
from schedules import ADAPTIVE, COUNT, FIXED, KEY
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

import asap
from asap.backbones.accepted import adapter_of
from asap.core import accelerated
from asap.core.rows import CHUNK, in_chunks, rowwise
from asap.engine.device import forward, layers
from asap.engine.device.flow import Layout, Stop
from asap.engine.graphs import MOST, Recorder
from asap.engine.kernels import launch
from asap.engine.kernels.registry import VERSIONS
from asap.engine.trace import Trace
from asap.methods import Asap, Method

BATCHES = 3
FLOAT = torch.float32


@pytest.fixture(autouse=True)
def _plain_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernels' plain versions, since interpreting Triton takes long (test_kernels_pass.py)."""
    monkeypatch.setattr(launch, "DEVICES", set())


def assert_close(ours: tuple[Tensor, Trace], theirs: tuple[Tensor, Trace]) -> None:
    """Logits within rounding, decisions and counts equal."""
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-5, atol=1e-5)
    for name, values in theirs[1].values().items():
        found = ours[1].values()[name]
        if values.dtype == torch.float32:
            torch.testing.assert_close(found, values, rtol=1e-4, atol=1e-5, equal_nan=True)
        else:
            assert torch.equal(found, values), (name, found, values)


def compare(method: Method, key: str, batches: list[Tensor], fake: Recorder | None) -> Any:
    """The pass on the device over the batches, twice over, against the ordinary one on the CPU."""
    net = backbone(key, FLOAT)
    ours = asap.ReducedViT(net, method, backend=OnDevice(fake))
    theirs = asap.ReducedViT(net, method)
    found = []
    for number, images in enumerate([*batches, *batches]):
        ids = [10 * number + i for i in range(len(images))]
        found.append((ours(images, ids, True), theirs(images, ids, True)))
    for mine, other in found:
        assert_close(mine, other)
    return ours, [trace for _, (_, trace) in found]


def batches(key: str = KEY, count: int = COUNT) -> list[Tensor]:
    images = pictures(key, FLOAT, count * BATCHES)
    return [images[i::BATCHES].clone() for i in range(BATCHES)]


@pytest.mark.parametrize(
    ("name", "key"),
    [*((name, KEY) for name in FIXED), ("tome", "average-p36")],
)
def test_a_fixed_schedule_is_one_recording(name: str, key: str) -> None:
    fake = FakeGraphs(strict=False)
    model, _ = compare(FIXED[name], key, batches(key), fake)
    assert fake.recorded == 1 and model.path == "graphs"


def stopping(options: dict) -> Asap:
    """Images of the batches stop in several blocks, and some never."""
    return schedules.stopping(options, COUNT * BATCHES)


@pytest.mark.parametrize(
    ("name", "recorded"), [("pooling", False), *((name, True) for name in ADAPTIVE)]
)
def test_an_adaptive_method_decides_as_on_the_cpu(name: str, recorded: bool) -> None:
    fake = FakeGraphs(strict=False) if recorded else None
    model, traces = compare(stopping(ADAPTIVE[name]), KEY, batches(), fake)
    stops = torch.cat([trace.stop_block for trace in traces])
    assert len(stops.unique()) > 2
    assert model.path == ("graphs" if recorded else "launches")
    assert fake is None or fake.replayed > 6


@pytest.mark.slow
@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_walk_by_kernels_decides_as_on_the_cpu(name: str) -> None:
    """With the walk that is registered for CUDA devices, its kernels by their plain versions."""
    with accelerated.registered("cpu", VERSIONS):
        compare(stopping(ADAPTIVE[name]), KEY, batches(), FakeGraphs(strict=False))


@pytest.mark.slow
@pytest.mark.skipif(not launch.INSTALLED, reason="Triton is not installed")
@pytest.mark.parametrize("name", ["pooling", "tome"])
def test_a_whole_pass_by_kernels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the interpreter, on two images."""
    method = FIXED["tome"] if name == "tome" else stopping(ADAPTIVE[name])
    net, images, ids = backbone(KEY, FLOAT), batches(count=2)[0], [0, 1]
    expected = asap.ReducedViT(net, method)(images, ids, True)
    monkeypatch.setattr(launch, "DEVICES", {"cpu"})
    with accelerated.registered("cpu", VERSIONS):
        found = asap.ReducedViT(net, method, backend=OnDevice())(images, ids, True)
    assert_close(found, expected)


def addresses(held: Any) -> set[int]:
    """Of all tensors that an object holds, in its fields and theirs."""
    if isinstance(held, Tensor):
        return {held.data_ptr()}
    if isinstance(held, dict):
        held = list(held.values())
    parts = held if isinstance(held, list | tuple) else list(getattr(held, "__dict__", {}).values())
    return set().union(*map(addresses, parts)) if parts else set()


@pytest.mark.parametrize("by_kernels", [False, True])
@pytest.mark.parametrize("name", ["pooling", "no_accumulation", "rollout"])  # each kind of state
def test_a_state_stays_where_recordings_know_it(name: str, by_kernels: bool) -> None:
    """A CUDA graph reads the addresses that it was recorded with, whatever a field says later."""
    with accelerated.registered("cpu", VERSIONS if by_kernels else {}):
        backend = OnDevice(FakeGraphs(strict=False))
        model = asap.ReducedViT(backbone(KEY, FLOAT), stopping(ADAPTIVE[name]), backend=backend)
        found = []
        for images in batches():
            model(images, range(len(images)))
            (one,) = model._passes.values()
            found.append(addresses(one.stages.state))
    assert found[0] and found[0] == found[1] == found[2]


HEADS = {"average-p36": {"anchor": "mass"}, "average_with_class-p36": {}, "lvvit-p36": {}}


@pytest.mark.parametrize("pool", [True, False])
@pytest.mark.parametrize("key", HEADS)
def test_heads_that_read_all_tokens(key: str, pool: bool) -> None:
    """Of images that came to differ in length."""
    mass = masses(key, FLOAT, "walk", COUNT * BATCHES)
    method = Asap(tau=threshold(mass, 1, mass.shape[1] - 1), pool=pool, **HEADS[key])
    model, traces = compare(method, key, batches(key), FakeGraphs(strict=False))
    assert model.path == "graphs"
    assert len(torch.cat([trace.tokens[:, -1] for trace in traces]).unique()) > 2


def test_all_images_stop_at_once() -> None:
    _, traces = compare(Asap(tau=1e-6), KEY, batches(), FakeGraphs(strict=False))
    assert all((trace.stop_block == 1).all() for trace in traces)


def test_no_image_ever_stops() -> None:
    _, traces = compare(Asap(tau=1e9), KEY, batches(), FakeGraphs(strict=False))
    assert all((trace.stop_block == 0).all() for trace in traces)


def test_one_image_alone() -> None:
    compare(stopping({}), KEY, batches(count=1), FakeGraphs(strict=False))


def test_numbers_of_rows_fall_into_other_buckets_from_batch_to_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forward, "FEWEST", 16)
    fake = FakeGraphs(strict=False)
    model, _ = compare(stopping({}), KEY, batches(), fake)
    (one,) = model._passes.values()
    rows = {key[2].rows for key in one.graphs.entries if key[0] == "rest"}
    assert len(rows) > 2 and all(n % one.bucket == 0 or n == COUNT * 65 for n in rows)


@pytest.mark.parametrize("images", [8, 32])
def test_the_pieces_of_a_long_run_are_all_kept(images: int) -> None:
    """Stops in all blocks, other ones in every batch: the recordings do not replace one another."""
    small = VisionTransformer(img_size=224, embed_dim=24, num_heads=3, depth=12, num_classes=2)
    adapter, rng = adapter_of(small.eval()), np.random.default_rng(0)
    one = forward.DevicePass(adapter, Asap(), OnDevice(), images, torch.empty(0))
    whole, pieces = Layout(images * 197, 197, 197, True), set()
    for _ in range(500):
        stops, left = rng.integers(0, 12, images), rng.normal(70, 25, images).clip(10, 190)
        layout, lengths = whole, np.full(images, 197)
        for block in range(11):
            if not layout.watching:
                break
            stop, stopped = Stop(block, layout, True), stops == block + 1
            lengths = np.where(stopped, left.astype(int), lengths)
            watching = int(((stops == 0) | (stops > block + 1)).sum())
            counts = [int(lengths.sum()), watching, int(lengths.max()), int(stopped.sum())]
            layout = one._layout_after(stop, counts)
            pieces |= {("regroup", stop), ("rest", block, layout)}
    assert len(pieces) < MOST


def test_batches_of_two_sizes_in_turn() -> None:
    mixed = [part for images in batches() for part in (images, images[:2])]
    compare(stopping({}), KEY, mixed, FakeGraphs(strict=False))


def test_the_memory_of_a_few_batch_shapes_is_kept() -> None:
    model = asap.ReducedViT(backbone(KEY, FLOAT), FIXED["tome"], backend=OnDevice())
    for count in range(1, 7):
        model(pictures(KEY, FLOAT, COUNT)[:count])
    assert [key[0][0] for key in model._passes] == [3, 4, 5, 6]


@pytest.mark.parametrize("name", ["tome", "pooling"])
def test_a_strict_pass_does_the_same(name: str) -> None:
    method = FIXED["tome"] if name == "tome" else stopping({})
    net, images, ids = backbone(KEY, FLOAT), batches()[0], list(range(COUNT))
    ours = asap.ReducedViT(net, method, backend=OnDevice(strict=True))
    assert ours.path == "strict launches"
    assert_close(ours(images, ids, True), asap.ReducedViT(net, method)(images, ids, True))


def test_strict_products_run_on_a_fixed_number_of_rows() -> None:
    seen = []

    def layer(x: Tensor) -> Tensor:
        seen.append(len(x))
        return x * 2

    rows = torch.randn(CHUNK + 3, 4)
    with in_chunks(True):
        assert torch.equal(rowwise(layer, rows), rows * 2)
    assert seen == [CHUNK, CHUNK]
    rowwise(layer, rows[:16])
    assert seen[2:] == [16]


def test_a_pass_outlives_inference_mode() -> None:
    net, (first, second, third) = backbone(KEY, FLOAT), batches()
    for method in (FIXED["tome"], stopping({})):
        ours = asap.ReducedViT(net, method, backend=OnDevice(FakeGraphs(strict=False)))
        with torch.inference_mode():
            ours(first), ours(second)
        assert_close(ours(third, None, True), asap.ReducedViT(net, method)(third, None, True))


@pytest.mark.parametrize("key", sorted(models()))
@torch.no_grad()
def test_embedding_by_kernels_is_the_backbone_s_own(key: str) -> None:
    net = backbone(key, FLOAT)
    adapter, images = adapter_of(net), pictures(key, FLOAT, 3)
    size = len(images) * adapter.anatomy.tokens, adapter.anatomy.width
    rows, hidden, norm = torch.empty(size), torch.empty(size), net.blocks[0].norm1
    expected = adapter.embed(images).flatten(0, 1)
    normed = layers.embed(adapter, images, norm, rows, hidden)
    torch.testing.assert_close(rows, expected, rtol=1e-5, atol=1e-5)
    assert normed == (adapter.sequence_parts() is not None)
    if normed:
        torch.testing.assert_close(hidden, norm(expected), rtol=1e-5, atol=1e-5)
