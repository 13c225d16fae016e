"""ATS: against its one-image reference, alone and in a batch, MACs, bad options; and position
"in_attention" as such."""

import functools
import random
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import timm
import torch
from contract import differing
from draws import VARIANTS, build, models, randomise
from peers import compare, difference, model
from places import Place
from places import place as place
from reference.ats_ref import Result, reference_ats, sample
from test_contract_macs import unscored
from torch import Tensor, nn

import asap
from asap.core.token_sampling import sampled, sampled_target
from asap.engine import query_pruning
from asap.engine.backend import CPU
from asap.engine.query_pruning import smoothed
from asap.measure.macs_check import torch_count
from asap.methods import ATS, Dense
from asap.methods.base import Attention, Decision, Method, Needs, Observation, Site

EXEMPT = 2e-6  # margins under this may fall either way in float32
KEYS = [key for key in sorted(models()) if not key.startswith("average-")]
SAMPLES = (None, None, 1, 2, 5, 12, 30, 200)
BLOCKS = (None, None, (0,), (1, 4), (2, 3, 7), tuple(range(8)), (), [5, 6])


@functools.cache
def answers() -> list[tuple[str, dict, Tensor, Result]]:
    """Draws of model, options and image, with the reference's answers."""
    rng, found = random.Random(4), []
    for number in range(168):
        key = KEYS[number % len(KEYS)]
        options = {"samples": rng.choice(SAMPLES), "blocks": rng.choice(BLOCKS)}
        backbone = model(key, torch.float64)
        generator = torch.Generator().manual_seed(number)
        image = torch.randn(3, *backbone.patch_embed.img_size, generator=generator)
        found.append((key, options, image, reference_ats(backbone, image, **options)))
    return found


@pytest.mark.slow
def test_equals_the_reference(place: Place) -> None:
    some, compared, reduced_in = place.some(answers()), 0, set()
    for key, options, image, expected in some:
        compared += compare(place, key, ATS(**options), image, expected, EXEMPT)
        reduced_in |= {b for b in range(8) if expected.tokens[b + 1] < expected.tokens[b]}
    assert 7 * compared >= 12 * len(some)  # in float64 and in float32
    assert reduced_in == set(range(8))


def test_the_epsilon_of_the_softmax_is_there() -> None:
    """It changes little, but more than rounding does."""
    key, image = "plain-p64", torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))
    ours = asap.ReducedViT(model(key, torch.float64), ATS())(image[None].double())
    with_it = reference_ats(model(key, torch.float64), image)
    without = reference_ats(model(key, torch.float64), image, epsilon=0.0)
    assert with_it.tokens == without.tokens
    assert difference(ours, with_it.logits) < 1e-12 < 1e-9 < difference(ours, without.logits)


def test_smoothed_is_the_formula() -> None:
    scores = 5 * torch.randn(4, 30, generator=torch.Generator().manual_seed(1)).double()
    e = (scores - scores.amax(1, keepdim=True)).exp()
    expected = (e + 0.01 / 30) / (e.sum(1, keepdim=True) + 0.01)
    assert torch.allclose(smoothed(scores.softmax(1), 0.01), expected, rtol=1e-13, atol=0)


def hits(scores: list[float], samples: int) -> list[int]:
    return sampled(torch.tensor([scores], dtype=torch.float64), samples)[0].nonzero()[:, 0].tolist()


def test_sampling_by_hand() -> None:
    # running sum 1, 2, 4, 8, scaled 0, 1/7, 3/7, 1; three points: 1/7, 4/7, 1
    assert hits([1.0, 1.0, 2.0, 4.0], 3) == [1, 2, 3]
    assert hits([1.0, 1.0, 2.0, 4.0], 2) == [1, 3]
    assert hits([1.0, 1.0, 2.0, 4.0], 1) == [3]
    # scaled 0, 1/3, 1; two of five points, 1/3, 1/2, 2/3, 5/6, 1: 2/3 is as near to 1/3 as to 1
    assert hits([3.0, 4.0, 8.0], 5) == [1, 2]
    assert hits([0.0, 0.0, 5.0], 9) == [2]  # equal entries: the first, which is at 0
    assert hits([7.0], 4) == [0]
    assert sample([2.0, 1.0, 1.0, 4.0], 3)[0] == [2, 0, 3]


def test_the_lowest_score_is_never_hit() -> None:
    scores = torch.rand(20, 50, generator=torch.Generator().manual_seed(2)).sort(dim=1).values
    for samples in (1, 2, 50, 1000):
        found = sampled(scores, samples)
        assert not found[:, 0].any() and found[:, -1].all()
        assert (found.sum(1) <= samples).all()
    assert sampled(scores, 10**5)[:, 1:].all()


@pytest.mark.parametrize("samples", [1, 7, 60])
def test_scores_that_are_no_numbers_hit_some_patch(samples: int) -> None:
    """In half precision an image may overflow: the batch's other images do not suffer."""
    scores = torch.rand(3, 20, generator=torch.Generator().manual_seed(2))
    scores[1, 4], scores[2] = float("nan"), float("nan")
    target, left = sampled_target(scores, samples, 2)
    assert torch.equal(target[:1], sampled_target(scores[:1], samples, 2)[0])
    assert (target < left[:, None]).all() and (left > 2).all()


def picture(backbone: nn.Module, count: int) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    return torch.randn(count, 3, *backbone.patch_embed.img_size, generator=generator)


def test_nor_does_a_real_sequence_depend_on_its_batch() -> None:
    backbone = sharp_deit("deit_tiny_patch16_224", depth=6)
    images = picture(backbone, 5)
    reduced = asap.ReducedViT(backbone, ATS())
    whole = reduced(images, return_trace=True)
    assert len(set(whole[1].tokens[:, -1].tolist())) > 1
    for picked in ([4, 1, 0], [2], [3]):
        assert not differing(whole, reduced(images[picked], return_trace=True), picked)


def sharp_deit(name: str, **changes: int) -> nn.Module:
    backbone = timm.create_model(name, pretrained=False, **changes)
    randomise(backbone, 3)
    for block in backbone.blocks:
        block.attn.qkv.weight.data.mul_(2)
    return backbone.eval().requires_grad_(False)


@pytest.mark.parametrize("depth", [3, 4, 6, 12, 16, 24])
def test_blocks_from_a_quarter_of_the_depth_sample_by_default(depth: int) -> None:
    acting = [block for block in range(depth) if ATS().acts_in(block, depth)]
    first = {3: 0, 4: 1, 6: 1, 12: 3, 16: 4, 24: 6}[depth]
    assert acting == list(range(first, depth))


def test_blocks_3_to_the_last_sample_on_deit() -> None:
    backbone = sharp_deit("deit_tiny_patch16_224")
    trace = asap.ReducedViT(backbone, ATS())(picture(backbone, 1), return_trace=True)[1]
    tokens = trace.tokens[0]
    assert tokens[:4].tolist() == [197] * 4 and (tokens[3:].diff() < 0).all()
    listed = ATS(samples=196, blocks=list(range(3, 12)))
    again = asap.ReducedViT(backbone, listed)(picture(backbone, 1), return_trace=True)[1]
    assert torch.equal(again.assignment, trace.assignment)


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("key", ["plain-p64", "distilled-p25", "registers-p36", "gated"])
def test_macs_are_those_of_the_executed_graph(key: str, eager: bool) -> None:
    backbone = gated() if key == "gated" else model(key, torch.float32)
    images = picture(backbone, 4)
    for options in ({}, {"samples": 7, "blocks": [0, 4]}):
        reduced = asap.ReducedViT(backbone, ATS(**options), eager=eager)
        trace = reduced(images, return_trace=True)[1]
        closed = int((trace.macs_backbone + trace.macs_method).sum())
        skipped = unscored(reduced, trace.tokens)
        assert closed == torch_count(reduced, images) + skipped and skipped > 0
        expected = [reference_ats(backbone, image, **options) for image in images]
        assert trace.macs_backbone.tolist() == [e.macs_backbone for e in expected]


def gated() -> nn.Module:
    backbone = build("plain", "p36", 2)
    for index, block in enumerate(backbone.blocks):
        torch.manual_seed(index)
        block.attn.gate = nn.Linear(24, 24)
    return backbone.requires_grad_(False)


def test_a_gate_sees_the_queries_that_remain() -> None:
    backbone = gated().double()
    image = picture(backbone, 1).double()
    expected = reference_ats(backbone, image[0], samples=12)
    assert expected.tokens[-1] < 14
    ours = asap.ReducedViT(backbone, ATS(samples=12))(image)
    assert difference(ours, expected.logits) < 1e-10


def test_no_blocks_is_dense_bit_for_bit() -> None:
    backbone = model("plain-p64", torch.float32)
    images = picture(backbone, 3)
    dense = asap.ReducedViT(backbone, Dense())(images, return_trace=True)
    none = asap.ReducedViT(backbone, ATS(blocks=()))(images, return_trace=True)
    assert not differing(dense, none, [0, 1, 2])


# --- the position as such -----------------------------------------------------------------------


@dataclass(frozen=True)
class Half(Method):
    """Keeps every other patch, last ones first, of the images with even numbers, in block 2."""

    average: bool = False
    meet: bool = False
    changes: bool = True
    position = "in_attention"

    @property
    def needs(self) -> Needs:
        return Needs(Attention("all", "mean"))

    def observe(self, site: Site) -> Observation:
        return Observation(site.images % 2 == 0 if self.changes and site.block == 2 else None)

    def reduce(self, site: Site, chosen: Tensor | None) -> Decision | None:
        if site.block != 2:
            return None
        n, prefix = site.length, site.prefix
        assert site.attention is not None and site.keys is None
        assert torch.allclose(site.attention.sum(2), torch.ones_like(site.sizes), atol=1e-5)
        target = torch.full((n,), -1)
        kept = [*range(prefix), *reversed(range(prefix, n, 2))]
        target[kept] = torch.arange(len(kept))
        if self.meet:
            target[kept[-1]] = len(kept) - 2
        weight = torch.ones_like(site.sizes) if self.average else None
        every = target.repeat(len(site.images), 1)
        return Decision(every, len(kept) - self.meet, weight, final=True)


def test_only_some_images_of_a_run_are_narrowed() -> None:
    backbone = model("distilled-p64", torch.float32)
    images = picture(backbone, 5)
    dense, _ = asap.ReducedViT(backbone, Dense())(images, return_trace=True)
    logits, trace = asap.ReducedViT(backbone, Half())(images, return_trace=True)
    assert trace.tokens[:, -1].tolist() == [34, 66, 34, 66, 34]
    assert trace.stop_block.tolist() == [3, 0, 3, 0, 3]
    assert trace.assignment[0, :4].tolist() == [33, -1, 32, -1]
    assert torch.allclose(logits[1::2], dense[1::2], atol=1e-5)
    assert (logits[::2] - dense[::2]).abs().max() > 1e-3


def test_deciding_nothing_changes_nothing() -> None:
    backbone = model("plain-p64", torch.float64)
    images = picture(backbone, 3).double()
    dense, _ = asap.ReducedViT(backbone, Dense())(images, return_trace=True)
    logits, trace = asap.ReducedViT(backbone, Half(changes=False))(images, return_trace=True)
    assert torch.allclose(logits, dense, atol=1e-12)
    assert trace.tokens.eq(65).all() and trace.stop_block.tolist() == [0, 0, 0]


def test_maps_of_all_queries_are_computed_by_slabs(monkeypatch: pytest.MonkeyPatch) -> None:
    class OneByOne(CPU):
        slab_bytes: ClassVar[int] = 1

    backbone = model("distilled-p64", torch.float32)
    images = picture(backbone, 5)
    together = asap.ReducedViT(backbone, Half())(images, return_trace=True)
    real, held = query_pruning.shares, []

    def counted(q: Tensor, *rest: Any) -> Tensor:
        held.append(len(q))
        return real(q, *rest)

    monkeypatch.setattr(query_pruning, "shares", counted)
    alone = asap.ReducedViT(backbone, Half(), backend=OneByOne())(images, return_trace=True)
    assert set(held) == {1} and not differing(together, alone, list(range(5)))


def test_averaging_inside_the_attention_is_refused() -> None:
    backbone = model("plain-p25", torch.float32)
    for averaging in (Half(average=True), Half(meet=True)):
        with pytest.raises(ValueError, match="in_attention"):
            asap.ReducedViT(backbone, averaging)(picture(backbone, 1))


def test_every_backbone_with_a_class_token_was_drawn() -> None:
    assert {key.rsplit("-", 1)[0] for key in KEYS} == set(VARIANTS) - {"average"}
