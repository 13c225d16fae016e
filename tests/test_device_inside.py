"""Methods that drop queries inside the attention, in a pass on the device: as on the CPU."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from contract import backbone
from fake_graphs import FakeGraphs
from test_device_pass import FLOAT, KEY, OnDevice, assert_close, batches, compare
from test_methods_ats import gated
from torch import Tensor

import asap
from asap.core.accelerated import registered
from asap.core.token_sampling import sampled_target
from asap.engine.device import forward
from asap.engine.kernels import launch
from asap.engine.kernels.registry import VERSIONS
from asap.methods import ATS, Method
from asap.methods.base import Anatomy, Attention, Decision, Needs, Site, keep_only

SETTINGS = {
    "default": ATS(),
    "few": ATS(samples=5),
    "many": ATS(samples=400),
    "first_and_last": ATS(blocks=(0, 7)),
    "now_and_then": ATS(samples=30, blocks=(2, 5)),
}


@pytest.fixture(autouse=True)
def _plain_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "DEVICES", set())


@pytest.mark.parametrize(
    ("name", "recorded"), [("default", False), *((name, True) for name in SETTINGS)]
)
def test_ats_decides_as_on_the_cpu(name: str, recorded: bool) -> None:
    fake = FakeGraphs(strict=False) if recorded else None
    model, traces = compare(SETTINGS[name], KEY, batches(), fake)
    lengths = torch.cat([trace.tokens[:, 3:] for trace in traces])
    assert len(lengths.unique()) > 2 and (lengths[:, -1] < 65).all()
    assert model.path == ("graphs" if recorded else "launches")
    assert fake is None or fake.replayed > 6


@pytest.mark.parametrize("key", ["distilled-p25", "registers-p36", "qk_norm-p25", "lvvit-p36"])
def test_other_prefixes_and_norms_of_queries(key: str) -> None:
    compare(ATS(samples=12), key, batches(key)[:2], FakeGraphs(strict=False))


def test_a_gate_sees_the_queries_that_remain() -> None:
    net = gated()
    images = torch.randn(4, 3, *net.patch_embed.img_size)
    ours = asap.ReducedViT(net, ATS(samples=12), backend=OnDevice())
    assert_close(
        ours(images, None, True), asap.ReducedViT(net, ATS(samples=12))(images, None, True)
    )


def test_one_image_alone() -> None:
    compare(ATS(), KEY, batches(count=1), FakeGraphs(strict=False))


def test_numbers_of_rows_fall_into_other_buckets_from_batch_to_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(forward, "FEWEST", 16)
    model, _ = compare(ATS(samples=400), KEY, batches(), FakeGraphs(strict=False))
    (one,) = model._passes.values()
    layouts = [key[2] for key in one.graphs.entries if key[0] == "rest"]
    assert len({layout.rows for layout in layouts}) > 3
    assert all(layout.rows % one.bucket == 0 and not layout.merged for layout in layouts)


def test_batches_of_two_sizes_in_turn() -> None:
    mixed = [part for images in batches() for part in (images, images[:2])]
    compare(ATS(), KEY, mixed, FakeGraphs(strict=False))


@dataclass(frozen=True)
class Uneven(Method):
    """Every third image keeps all its tokens; the others lose those with the smallest values."""

    position = "in_attention"
    mixed_lengths = True

    @property
    def needs(self) -> Needs:
        return Needs(value_norms=True, tokens=False)

    def acts_in(self, block: int, depth: int) -> bool:
        return block in (1, 2, 4, 5)

    def reduce(self, site: Site, chosen: Tensor | None) -> Decision | None:
        if site.block == 2:
            return None
        assert site.value_norms is not None
        count = torch.full_like(site.images, site.length) if site.lengths is None else site.lengths
        place = torch.arange(site.length, device=count.device)
        known = place < count[:, None]
        patches = known[:, site.prefix :]
        norms = site.value_norms.masked_fill(~patches, 0.0)
        mean = norms.sum(1, keepdim=True) / patches.sum(1, keepdim=True)
        kept = known & ((place < site.prefix) | (site.images % 3 == 0)[:, None])
        kept[:, site.prefix :] |= patches & (norms > mean)
        return Decision(keep_only(kept), kept.sum(1))


def test_an_image_that_keeps_all_its_tokens() -> None:
    _, traces = compare(Uneven(), KEY, batches(), FakeGraphs(strict=False))
    tokens = traces[0].tokens
    assert (tokens[::3] == 65).all() and (tokens[1, 1:].diff() <= 0).all()
    assert tokens[1, 2] == tokens[1, 4] < 65 and tokens[1, 5] < tokens[1, 4]


@dataclass(frozen=True)
class Half(Method):
    """Inside the attention, the patches that the class token attends to most; none in block 4."""

    position = "in_attention"

    @property
    def needs(self) -> Needs:
        return Needs(Attention("class", "mean"))

    def acts_in(self, block: int, depth: int) -> bool:
        return block in (1, 4, 6)

    def reduce(self, site: Site, chosen: Tensor | None) -> Decision | None:
        assert site.attention is not None
        if site.block == 4:
            return None
        left = site.length // 2
        order = site.attention.argsort(dim=1, descending=True)
        place = torch.zeros_like(order).scatter(1, order[:, :left], 1).bool()
        place[:, 0] = True
        place &= place.cumsum(1) <= left
        return Decision(keep_only(place), left)


@pytest.mark.parametrize("key", [KEY, "average-p36"])
def test_a_fixed_schedule_inside_the_attention_is_one_recording(key: str) -> None:
    fake = FakeGraphs(strict=False)
    model, _ = compare(Half(), key, batches(key), fake)
    assert model.path == "graphs" and fake.recorded == 1


class WithState(Uneven):
    def start(self, anatomy: Anatomy, images: int, like: Tensor) -> Any:
        return like


class WithMaps(Half):
    @property
    def needs(self) -> Needs:
        return Needs(Attention("all", "mean"))


class WithTokens(Uneven):
    @property
    def needs(self) -> Needs:
        return Needs(value_norms=True)


def test_tokens_of_images_of_different_lengths() -> None:
    model, _ = compare(WithTokens(), KEY, batches()[:2], FakeGraphs(strict=False))
    assert model.path == "graphs"


def test_a_method_with_a_state_of_its_own_decides_between_recordings() -> None:
    fake = FakeGraphs(strict=False)
    model, _ = compare(WithState(), KEY, batches()[:2], fake)
    assert model.path == "graphs, decisions step by step" and fake.recorded > 4


def test_maps_inside_the_attention_are_the_executor_s() -> None:
    backend = OnDevice(FakeGraphs(strict=False))
    model = asap.ReducedViT(backbone(KEY, FLOAT), WithMaps(), backend=backend)
    assert model.path == "recorded torch"


class Averages(Half):
    def reduce(self, site: Site, chosen: Tensor | None) -> Decision | None:
        order = torch.arange(site.length).expand(len(site.images), -1)
        return Decision(order, site.length, torch.ones_like(site.sizes))


def test_averages_inside_the_attention_are_refused() -> None:
    model = asap.ReducedViT(backbone(KEY, FLOAT), Averages(), backend=OnDevice())
    with pytest.raises(ValueError, match="cannot average tokens at position 'in_attention'"):
        model(batches()[0])


def test_a_strict_pass_does_the_same() -> None:
    net, images = backbone(KEY, FLOAT), batches()[0]
    ours = asap.ReducedViT(net, ATS(), backend=OnDevice(strict=True))
    assert_close(ours(images, None, True), asap.ReducedViT(net, ATS())(images, None, True))


@pytest.mark.parametrize("samples", [1, 7, 60])
def test_images_of_other_lengths_are_sampled_as_if_alone(samples: int) -> None:
    scores = torch.rand(6, 20, dtype=torch.float64)
    scores[3, 2:9] = scores[3, 0]
    scores[4, 1] = float("nan")
    counts = torch.tensor([20, 1, 7, 15, 9, 2])
    target, left = sampled_target(scores, samples, 2, counts)
    for image, count in enumerate(counts.tolist()):
        alone, own = sampled_target(scores[image : image + 1, :count], samples, 2)
        if image != 4:
            assert torch.equal(target[image, : 2 + count], alone[0]) and left[image] == own[0]
        assert (target[image, 2 + count :] == -1).all()


@pytest.mark.slow
@pytest.mark.skipif(not launch.INSTALLED, reason="Triton is not installed")
def test_a_whole_pass_by_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under the interpreter, on two images."""
    net, images, method = backbone(KEY, FLOAT), batches(count=2)[0], ATS(blocks=(2, 5))
    expected = asap.ReducedViT(net, method)(images, None, True)
    monkeypatch.setattr(launch, "DEVICES", {"cpu"})
    with registered("cpu", VERSIONS):
        found = asap.ReducedViT(net, method, backend=OnDevice())(images, None, True)
    assert_close(found, expected)
