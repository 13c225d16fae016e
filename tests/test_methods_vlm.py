"""VisionZip, VisPruner and PruneSID: against their references, counts, and where they act."""

import functools
import random
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from peers import CLASS_KEYS, IMAGE_ID, compare, deit, model, picture
from places import Place
from places import place as place
from reference.prunesid_ref import loadings, quotas, reference_prunesid
from reference.visionzip_ref import reference_visionzip
from reference.vispruner_ref import reference_vispruner, thinned
from torch import Tensor

import asap
from asap.core.anatomy import Anatomy
from asap.core.group_quotas import group_quotas
from asap.core.plugin import cosine_similarities, thin
from asap.core.principal_groups import principal_groups
from asap.methods import Asap, Method, PruneSID, RandomDrop, Site, ToMe, VisionZip, VisPruner
from asap.methods.base import Decision, generator
from asap.methods.feature_block import feature_block

FLOAT = torch.float32
DRAWS = 4  # per model
LLAVA = Anatomy("CLIP", 23, 1, 576, True, width=1024, left_out=1)
NEAR = 1e-6  # as for the others, but with so many leads that few images have only large ones
Answer = tuple[Method, Tensor, Any]


def drawn_visionzip(rng: random.Random, key: str, image: Tensor) -> tuple[Method, Any]:
    block = rng.choice([None, 1, 3, 8])
    few, some = rng.choice([(1, 2), (2, 0), (5, 3), (9, 4), (10, 7), (3, 20)])
    net = model(key, torch.float64)
    return VisionZip(few, some, block), reference_visionzip(net, image, few, some, block or 7)


def drawn_vispruner(rng: random.Random, key: str, image: Tensor) -> tuple[Method, Any]:
    block, tokens = rng.choice([None, 2, 8]), rng.choice([1, 2, 5, 8, 13, 24])
    ratio, rounds = rng.choice([0.5, 0.5, 0.75, 0.0, 1.0]), rng.choice([8, 8, 3, 30])
    method = VisPruner(tokens, ratio, rounds, block)
    net = model(key, torch.float64)
    return method, reference_vispruner(net, image, tokens, ratio, rounds, block or 7)


def drawn_prunesid(rng: random.Random, key: str, image: Tensor) -> tuple[Method, Any]:
    block, tokens, seed = rng.choice([None, 2, 8]), rng.choice([2, 3, 9, 14, 24, 25]), 3
    net = model(key, torch.float64)
    least = min(net.embed_dim, net.patch_embed.num_patches)
    drawn = torch.randn(least, max(1, tokens // 4), generator=generator(seed, IMAGE_ID))
    expected = reference_prunesid(net, image, tokens, block or 7, drawn)
    return PruneSID(tokens, block, seed), expected


DRAWN: dict[str, Callable[..., tuple[Method, Any]]] = {
    "visionzip": drawn_visionzip,
    "vispruner": drawn_vispruner,
    "prunesid": drawn_prunesid,
}


@functools.cache
def answers(name: str, key: str) -> list[Answer]:
    """Draws of options and image, with the reference's answers."""
    rng, found = random.Random(name + key), []
    for turn in range(DRAWS):
        image = picture(key, turn)
        method, expected = DRAWN[name](rng, key, image.double())
        found.append((method, image, expected))
    return found


@pytest.mark.parametrize("key", CLASS_KEYS)
@pytest.mark.parametrize("name", DRAWN)
def test_equals_the_reference(name: str, key: str, place: Place) -> None:
    some = place.some(answers(name, key))
    compared = sum(compare(place, key, *given, near=NEAR) for given in some)
    assert compared >= len(some)  # all in float64
    assert name == "prunesid" or compared >= 1.5 * len(some)


def test_nearly_all_images_are_compared_in_float32_too() -> None:
    for name in DRAWN:
        found = [one for key in CLASS_KEYS for one in answers(name, key)]
        clear = sum(expected.margin >= NEAR for _, _, expected in found)
        assert clear >= 0.9 * len(found), name


def site(rows: Tensor, scores: Tensor, **given: Any) -> Site:
    """Images of 576 patches behind a class token, at the last block of LLaVA's tower."""
    count = len(rows)
    tokens = torch.cat([torch.zeros(count, 1, rows.shape[2]), rows], dim=1)
    attention = torch.cat([torch.zeros(count, 1), scores], dim=1)
    sizes, ids = torch.ones(count, 577), list(range(count))
    known = {"tokens": tokens, "sizes": sizes, "attention": attention, "image_ids": ids}
    return Site(LLAVA, 22, images=torch.arange(count), **(known | given))


@functools.cache
def noise(width: int = 16) -> tuple[Tensor, Tensor]:
    """Rows that are alike in part, and attention of the class token, of two images."""
    made = torch.Generator().manual_seed(4)
    rows = torch.randn(2, 576, width, generator=made) + torch.randn(2, 1, width, generator=made)
    return rows, torch.rand(2, 576, generator=made) ** 4 / 576


@pytest.mark.parametrize("tokens", [66, 63])  # of 66 and 63 the residual is odd
def test_vispruner_at_llavas_size(tokens: int) -> None:
    rows, scores = noise()
    decision = VisPruner(tokens).reduce(site(rows, scores), None)
    assert decision is not None and decision.left == 1 + tokens
    ranked = scores[1].argsort(descending=True, stable=True).tolist()
    best = tokens // 2
    similar = cosine_similarities(rows)[1].tolist()
    rest = thinned(ranked[best:], similar, tokens - best, 8)
    kept = (decision.target[1, 1:] >= 0).nonzero()[:, 0].tolist()
    assert kept == sorted(ranked[:best] + rest)
    assert decision.target[1, 1:][kept].tolist() == list(range(1, tokens + 1))


def test_one_patch_left_in_the_list_has_no_partner_and_goes() -> None:
    distance = torch.rand(1, 5, 5)
    kept, pairs = thin(distance, torch.rand(1, 5), torch.ones(1, 5, dtype=torch.bool), 1, 1, 8)
    assert int(kept.sum()) == 1 and int(pairs) == 2 * 2 + 1
    listed = thin(distance, torch.rand(1, 5), torch.ones(1, 5, dtype=torch.bool), 1, 1, 8, True)
    assert int(listed[0].sum()) == 1 and int(listed[1]) == 2 * 2 + 1


@pytest.mark.parametrize(("channels", "patches", "q"), [(40, 24, 5), (24, 40, 5), (30, 30, 9)])
def test_groups_are_those_of_torchs_pca(
    channels: int, patches: int, q: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given the projection that torch draws itself, and the reference's loadings."""
    made = torch.Generator().manual_seed(channels)
    values = torch.rand(2, channels, patches, generator=made, dtype=torch.float64)
    drawn = torch.randn(min(channels, patches), q, generator=made)
    found = principal_groups(values, drawn.expand(2, -1, -1))
    monkeypatch.setattr(torch, "randn", lambda *shape, **_: drawn.double())
    for image in range(2):
        theirs = torch.pca_lowrank(values[image], q=q)[2]
        assert torch.equal(theirs.abs().argmax(1), found[image])
        ours = np.abs(loadings(values[image].numpy(), drawn.double().numpy())[0])
        assert np.allclose(ours, theirs.abs().numpy(), atol=1e-8)


def test_what_is_not_finite_is_grouped_without_failing() -> None:
    values = torch.rand(1, 8, 6)
    values[0, 2, 3], values[0, 1, 1] = float("nan"), float("inf")
    assert principal_groups(values, torch.randn(1, 6, 2)).shape == (1, 6)


@pytest.mark.parametrize("method", [VisionZip(54, 10), VisPruner(64), PruneSID(64)])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_still_leaves_as_many_tokens(method: Method, bad: float) -> None:
    """Half precision overflows; the answer then counts as not finite, and the run goes on."""
    rows, scores = (x.clone() for x in noise())
    rows[0], scores[0, 5], rows[1, 3, 2] = bad, float("nan"), bad
    keys = rows[:, :1].expand(-1, 577, -1)[:, None].contiguous()
    drawn = method.draw(replace(LLAVA, width=rows.shape[2]), [0, 1])
    decision = method.reduce(site(rows, scores, keys=keys, drawn=drawn), None)
    assert decision is not None
    for target in decision.target:
        assert set(target.tolist()) - {-1} == set(range(int(decision.left)))


def test_quotas_are_the_references() -> None:
    rng = random.Random(1)
    for _ in range(100):
        tokens = rng.randrange(2, 140)
        sizes = [rng.choice([0, 1, 2, 5, 20, 60]) for _ in range(max(1, tokens // 4))]
        while sum(sizes) < tokens:
            sizes[rng.randrange(len(sizes))] += 9
        taken = [rng.randint(min(1, size), size) for size in sizes]
        found = group_quotas(sizes, taken, tokens)
        assert found == quotas(sizes, taken, tokens)
        assert sum(found) == tokens - 1
        assert all(0 <= kept <= size for kept, size in zip(found, sizes, strict=True))


@pytest.mark.parametrize("tokens", [64, 128])
def test_prunesid_orders_by_group_and_leaves_exactly_as_many(tokens: int) -> None:
    rows, scores = noise()

    def decided(method: PruneSID) -> Decision | None:
        drawn = method.draw(replace(LLAVA, width=rows.shape[2]), [0, 1])
        return method.reduce(site(rows, scores, drawn=drawn), None)

    decision = decided(PruneSID(tokens))
    assert decision is not None and decision.left == tokens
    for target in decision.target:
        assert sorted(target[target >= 0].tolist()) == list(range(tokens))
    again, other = decided(PruneSID(tokens)), decided(PruneSID(tokens, seed=1))
    assert again is not None and torch.equal(again.target, decision.target)
    assert other is not None and not torch.equal(other.target, decision.target)


def tower() -> torch.nn.Module:
    """A ViT of 576 patches and 23 blocks that stands for an encoder of 24."""
    net = deit(12, 3, 23, 576)
    net.blocks_left_out = 1
    return net


ROWS: list[tuple[Method, int]] = [  # rows for a language model
    (VisionZip(54, 10), 64),
    (VisionZip(), 64),
    (VisPruner(64), 64),
    (VisPruner(63), 63),
    (PruneSID(64), 64),
]


@pytest.mark.parametrize(("method", "rows"), ROWS, ids=lambda value: str(value))
def test_a_tower_is_reduced_after_its_last_block_to_exactly_as_many_rows(
    method: Method, rows: int
) -> None:
    image = torch.randn(1, 3, 384, 384, generator=torch.Generator().manual_seed(0))
    trace = asap.ReducedViT(tower(), method)(image, [1], return_trace=True)[1]
    assert trace.tokens[0].tolist() == [577] * 23 + [rows + (not method.class_row_to_llm)]
    assert int(trace.stop_block) == 23


@pytest.mark.parametrize(("depth", "left_out", "block"), [(12, 0, 11), (23, 1, 23), (22, 2, 22),
    (1, 0, 1), (2, 0, 1), (24, 0, 23)])  # fmt: skip
def test_the_block_by_default(depth: int, left_out: int, block: int) -> None:
    anatomy = Anatomy("any", depth, 1, 64, True, left_out=left_out)
    assert feature_block(None, anatomy) == block
    for method in (VisionZip(), VisPruner(), PruneSID()):
        method.check(anatomy)
        assert method.acts_in(block - 1, depth)
    assert feature_block(1, anatomy) == 1 and VisPruner(block=1).acts_in(0, depth)


@pytest.mark.parametrize("key", ["plain-p25", "registers-p25", "distilled-p25"])
def test_a_budget_of_all_is_dense_to_the_bit(key: str) -> None:
    net, image = model(key, FLOAT), picture(key, 0)[None]
    dense = asap.ReducedViT(net, asap.methods.Dense())(image)
    for method in (VisionZip(26, 0), VisionZip(20, 6), VisPruner(25), PruneSID(26)):
        logits, trace = asap.ReducedViT(net, method)(image, [1], return_trace=True)
        assert torch.equal(logits, dense), method
        assert int(trace.macs_method) == int(trace.stop_block) == 0


def test_prunesid_needs_image_ids_and_draws_by_them_alone() -> None:
    key = "plain-p25"
    images = torch.stack([picture(key, 0)] * 3)
    reduced = asap.ReducedViT(model(key, FLOAT), PruneSID(9))
    with pytest.raises(ValueError, match="image_ids"):
        reduced(images)
    torch.manual_seed(0)
    first = reduced(images, [5, 6, 5], return_trace=True)[1].assignment
    torch.manual_seed(1)
    assert torch.equal(first, reduced(images, [5, 6, 5], return_trace=True)[1].assignment)
    assert torch.equal(first[0], first[2])
    several = reduced(images.repeat(4, 1, 1, 1), range(12), return_trace=True)[1].assignment
    assert len(several.unique(dim=0)) > 1


@pytest.mark.parametrize(("tokens", "first", "r"), [(128, 11, 20), (64, 6, 23)])
def test_tomes_schedule_leaves_exactly_as_many_tokens(tokens: int, first: int, r: int) -> None:
    removed = ToMe(tokens=tokens).removed(LLAVA)
    assert removed == (r,) * first + (r - 1,) * (23 - first)
    net, image = deit(12, 3, 23, 576), torch.randn(1, 3, 384, 384)
    _, batch, trace = asap.ReducedViT(net, ToMe(tokens=tokens)).features(image)
    assert trace.tokens[0].diff().tolist() == [-gone for gone in removed]
    assert batch.lengths == (1 + tokens,) and float(batch.sizes.sum()) == 577


@pytest.mark.parametrize(("tokens", "patches"), [(128, 576), (64, 576), (14, 64), (7, 64)])
def test_random_drop_keeps_exactly_a_share(tokens: int, patches: int) -> None:
    anatomy = Anatomy("any", 23, 1, patches, True)
    assert int(RandomDrop(keep=tokens / patches).draw(anatomy, [3]).sum()) == 1 + tokens


@pytest.mark.parametrize("depth", [1, 2, 5, 11, 23])
def test_any_number_that_halving_reaches_is_reached(depth: int) -> None:
    for patches in (9, 64, 196):
        anatomy, reached = Anatomy("any", depth, 1, patches, True), []
        for tokens in range(1, patches + 1):
            left, removed = patches, ToMe(tokens=tokens).removed(anatomy)
            for gone in removed:
                assert 0 <= gone <= left // 2
                left -= gone
            reached.append(left == tokens)
            if left != tokens:
                with pytest.raises(ValueError, match=f"tokens={tokens} .* at least {left}"):
                    ToMe(tokens=tokens).check(anatomy)
        fewest = patches
        for _ in range(depth):
            fewest -= fewest // 2
        assert reached == [tokens >= fewest for tokens in range(1, patches + 1)]


def test_options_that_came_later_are_no_part_of_a_key_at_their_default() -> None:
    assert not {"scores", "pair_order"} & Asap().identity().keys()
    assert Asap(max_tokens=9, plugin="keys", scores="attention").identity()["scores"] == "attention"
    assert "tokens" not in ToMe(8).identity() and ToMe(tokens=9).identity()["tokens"] == 9
