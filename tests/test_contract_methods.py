"""What every method promises, whatever it decides."""

import dataclasses
import functools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from contract import (
    ASAP_OPTIONS,
    IDS,
    METHODS,
    ON_CPU,
    accepted,
    backbone,
    differing,
    method,
    outcome,
    pictures,
)
from draws import DEVICE, models
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import Tensor

import asap
from asap.core.diffusion import distance_to_anchor
from asap.core.matching import bipartite_matching
from asap.core.pooling import mean_weights, transition_weights
from asap.core.radial import normalise, rank_bins, width_bins
from asap.core.transition import first_walk, rollout_on, start_vectors, walk_on, walk_vectors
from asap.methods import Asap, Dense, Method, RandomDrop, ToMe

FLOAT = torch.float32
COUNT = 6
KEYS = ("plain-p25", "distilled-p36", "registers-p25", "average-p36")
MERGING = (
    "pooling", "rollout", "rank", "random_anchor", "force", "after_block", "proportional", "quiet",
)  # fmt: skip


def options_of(name: str, key: str) -> Method:
    return method(name, key, FLOAT, COUNT)


def model(name: str, key: str) -> asap.ReducedViT:
    return asap.ReducedViT(backbone(key, FLOAT), options_of(name, key))


@functools.cache
def run(name: str, key: str) -> tuple[Tensor, Any, Any]:
    """(final tokens, ragged batch, trace) of a few images."""
    return model(name, key).features(pictures(key, FLOAT, COUNT), IDS[:COUNT])


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("name", METHODS)
def test_assignment_tokens_and_sizes_agree(name: str, key: str) -> None:
    key = accepted(name, key)
    prefix = backbone(key, FLOAT).num_prefix_tokens
    patches = backbone(key, FLOAT).patch_embed.num_patches
    rows, batch, trace = run(name, key)
    assert sorted(batch.images) == list(range(COUNT))
    assert len(rows) == sum(batch.lengths) == len(batch.sizes)
    for image, left, sizes in zip(
        batch.images, batch.lengths, batch.sizes.cpu().split(batch.lengths), strict=True
    ):
        assert trace.tokens[image, -1] == left
        assert (trace.tokens[image].diff() <= 0).all()
        assert trace.tokens[image, 0] == prefix + patches
        held = trace.assignment[image]
        assert ((held == -1) | ((held >= prefix) & (held < left))).all()
        members = torch.bincount(held[held >= 0], minlength=left)
        assert (members[prefix:] >= 1).all()
        assert torch.equal(sizes[prefix:], members[prefix:].float())
        assert (sizes[:prefix] == 1).all()
        if name.startswith(("tome", "ppt_pooling")) or name in (*MERGING, "evit", "visionzip"):
            assert float(sizes.sum()) == prefix + patches
        reduced = bool((trace.tokens[image] != prefix + patches).any())
        if name in ASAP_OPTIONS:
            assert reduced <= bool(trace.stop_block[image] > 0)
            assert bool(trace.sink[image] >= 0) == bool(trace.stop_block[image] > 0)


@pytest.mark.parametrize("name", METHODS)
def test_prefix_tokens_survive_and_stay_first(name: str) -> None:
    """Marked in a feature that no block changes, prefix tokens are found where they were."""
    for key in ("distilled-p36", "registers-p25"):
        net = models()[key]()
        prefix = net.num_prefix_tokens
        marks = torch.arange(1.0, prefix + 1, device=DEVICE)
        for block in net.blocks:
            for layer in (block.attn.proj, block.mlp.fc2):
                layer.weight.data[0], layer.bias.data[0] = 0, 0
        net.norm = torch.nn.Identity()
        embed = net._pos_embed

        def marked(x: Tensor, embed: Any = embed, prefix: int = prefix, marks: Tensor = marks):
            tokens = embed(x)
            tokens[:, :prefix, 0], tokens[:, prefix:, 0] = marks, 0
            return tokens

        net._pos_embed = marked
        reduced = asap.ReducedViT(net, options_of(name, key))
        rows, batch, _ = reduced.features(pictures(key, FLOAT, COUNT), IDS[:COUNT])
        for tokens in rows.split(batch.lengths):
            assert torch.equal(tokens[:prefix, 0], marks)
            assert (tokens[prefix:, 0] == 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_the_backbone_is_not_modified(name: str) -> None:
    net, images = models()["plain-p25"](), pictures("plain-p25", FLOAT, COUNT)
    state = {key: value.clone() for key, value in net.state_dict().items()}
    forwards = [type(m).forward for m in net.modules()]
    attributes = [set(vars(m)) for m in net.modules()]
    expected = net(images)
    outcome(asap.ReducedViT(net, options_of(name, "plain-p25")), images, list(range(COUNT)))
    assert torch.equal(net(images), expected)
    assert all(torch.equal(net.state_dict()[key], value) for key, value in state.items())
    assert forwards == [type(m).forward for m in net.modules()]
    assert attributes == [set(vars(m)) for m in net.modules()]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())


@pytest.mark.parametrize("name", METHODS)
def test_equal_inputs_give_equal_decisions(name: str) -> None:
    picked = [0, 1, 0, 2, 0]
    reduced, images = model(name, "registers-p25"), pictures("registers-p25", FLOAT, COUNT)
    logits, trace = outcome(reduced, images, picked)
    first = (logits[[0]], trace.take(torch.tensor([0])))
    for twin in (2, 4):
        assert not differing((logits, trace), first, [twin])
    again = outcome(reduced, images, picked)
    assert not differing((logits, trace), again, list(range(5)))


@pytest.mark.parametrize("name", METHODS)
def test_one_method_object_serves_two_models_at_once(name: str) -> None:
    """On a CPU each of the models serves two threads as well."""
    shared = options_of(name, "plain-p25")
    jobs = []
    for key in ("plain-p25", "distilled-p36"):
        net, images = backbone(key, FLOAT), pictures(key, FLOAT, COUNT)
        jobs.append((asap.ReducedViT(net, shared), images, list(range(COUNT))))
    times = 2 if ON_CPU else 1
    alone = [outcome(*job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda job: outcome(*job), jobs * times))
    for before, after in zip(alone * times, together, strict=True):
        assert not differing(before, after, list(range(COUNT)))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", METHODS)
def test_other_precisions_run(name: str, dtype: torch.dtype) -> None:
    for key in ("plain-p25", accepted(name, "average-p36")):
        reduced = asap.ReducedViT(backbone(key, dtype), method(name, key, dtype, COUNT))
        images = pictures(key, dtype, COUNT)
        logits, trace = outcome(reduced, images, list(range(COUNT)))
        assert logits.dtype == dtype and torch.isfinite(logits).all()
        assert trace.mass.dtype == torch.float32
        assert (trace.tokens[:, -1] > 0).all()


@pytest.mark.parametrize("drawing", [RandomDrop(), Asap(anchor="random")])
def test_random_methods_need_image_ids(drawing: Method) -> None:
    images = pictures("plain-p25", FLOAT, COUNT)
    reduced = asap.ReducedViT(backbone("plain-p25", FLOAT), drawing)
    with pytest.raises(ValueError, match="image_ids"):
        reduced(images)
    with pytest.raises(ValueError, match="image_ids"):
        reduced(images, IDS[: COUNT - 1])


def test_a_draw_depends_on_seed_and_image_alone() -> None:
    net, images = backbone("plain-p25", FLOAT), pictures("plain-p25", FLOAT, COUNT)

    def kept(seed: int, ids: list[int]) -> list[list[int]]:
        reduced = asap.ReducedViT(net, RandomDrop(seed=seed))
        return reduced(images, ids, True)[1].assignment.tolist()

    torch.manual_seed(0)
    first = kept(0, [5, 6, 7, 8, 9, 5])
    assert first[0] == first[5] != first[1]
    torch.manual_seed(1)
    assert kept(0, [5, 6, 7, 8, 9, 5]) == first
    assert kept(1, [5, 6, 7, 8, 9, 5]) != first
    assert kept(0, [-3, 2**63 - 1, 0, 1, 2, -3])[0] != kept(0, [3] * COUNT)[0]


def test_training_mode_is_refused() -> None:
    net = models()["plain-p25"]().train()
    with pytest.raises(ValueError, match="training mode"):
        asap.ReducedViT(net, Dense())(pictures("plain-p25", FLOAT, COUNT))


def test_methods_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Asap().tau = 1.0  # type: ignore[misc]


# --- core: properties -------------------------------------------------------------------------

seeds = st.integers(0, 2**31)
few = settings(max_examples=40)


def random(seed: int, *shape: int, levels: int = 0) -> Tensor:
    """Uniform numbers; with `levels`, few different ones, so that there are ties."""
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return (values * levels).floor() / levels if levels else values


@few
@given(seeds, st.integers(2, 40), st.integers(0, 6), st.data())
def test_matching_gives_every_token_a_place(seed: int, n: int, prefix: int, data: Any) -> None:
    prefix = min(prefix, n)
    r = data.draw(st.integers(0, (n - prefix) // 2))
    metric = random(seed, 2, n, 3, levels=data.draw(st.sampled_from([0, 2]))) + 0.1
    for target in bipartite_matching(metric, r, prefix):
        assert target[:prefix].tolist() == list(range(prefix))
        assert set(target.tolist()) == set(range(n - r))
        assert not (target[prefix:] < prefix).any()
        members = torch.bincount(target, minlength=n - r)
        assert int((members - 1).sum()) == r


@few
@given(seeds, st.integers(2, 40), st.integers(2, 12), st.booleans())
def test_rank_bins_have_equal_counts(seed: int, n: int, clusters: int, ties: bool) -> None:
    distance = random(seed, 3, n, levels=3 if ties else 0)
    anchor = torch.tensor([0, n // 2, n - 1])
    bins = rank_bins(distance, anchor, clusters)
    assert (bins.gather(1, anchor[:, None]) == 0).all()
    for row, far, s in zip(bins, distance, anchor, strict=True):
        counts = torch.bincount(row, minlength=clusters)
        assert len(counts) == clusters and int(counts.max() - counts.min()) <= 1
        others = [i for i in range(n) if i != int(s)]
        order = sorted(others, key=lambda i: (float(far[i]), i))
        assert (row[order].diff() >= 0).all()


@few
@given(seeds, st.integers(2, 40), st.integers(2, 12), st.sampled_from(["minmax_others", "max"]))
def test_width_bins_rise_with_distance(seed: int, n: int, clusters: int, mode: str) -> None:
    anchor = torch.tensor([0, n - 1])
    distance = random(seed, 2, n, levels=seed % 3 * 4).scatter(1, anchor[:, None], 0.0)
    scaled = normalise(distance, anchor, mode)
    bins = width_bins(scaled, clusters)
    assert ((scaled >= 0) & (scaled <= 1)).all()
    assert ((bins >= 0) & (bins < clusters)).all()
    assert (bins.gather(1, anchor[:, None]) == 0).all()
    order = distance.argsort(dim=1, stable=True)
    assert (bins.gather(1, order).diff(dim=1) >= 0).all()


@few
@given(seeds, st.integers(2, 30), st.floats(0.01, 1.0), st.integers(1, 6))
def test_walks_stay_stochastic(seed: int, n: int, alpha: float, blocks: int) -> None:
    maps = [(random(seed + i, 2, n, n).double() * 9).softmax(-1) for i in range(blocks)]
    vectors = start_vectors(2, n, maps[0])
    walk, rollout = first_walk(maps[0], alpha), first_walk(maps[0], alpha)
    for index, attention in enumerate(maps):
        vectors = walk_vectors(vectors, attention, alpha)
        if index:
            walk, rollout = walk_on(walk, attention, alpha), rollout_on(rollout, attention, alpha)
    for matrix in (walk, rollout):
        assert torch.allclose(matrix.sum(2), torch.ones_like(matrix[:, 0]))
        assert torch.allclose(matrix.sum((1, 2)), matrix.new_full((2,), float(n)))
    assert torch.allclose(vectors[:, 0], walk.sum(1))
    assert torch.allclose(vectors[:, 1], walk[:, 0])


@few
@given(seeds, st.integers(2, 30), st.integers(0, 3), st.sampled_from(["all", "patches"]))
def test_distances_start_at_the_anchor(seed: int, n: int, prefix: int, columns: str) -> None:
    walk = random(seed, 2, n + prefix, n + prefix)
    anchor = torch.tensor([0, n - 1])
    found = distance_to_anchor(walk, anchor, prefix, columns)
    assert found.shape == (2, n) and (found >= 0).all()
    assert (found.gather(1, anchor[:, None]) == 0).all()
    start = prefix if columns == "patches" else 0
    rows = walk[1, prefix:, start:]
    assert torch.allclose(found[1], (rows - rows[-1]).square().sum(1).sqrt(), atol=1e-6)


@few
@given(seeds, st.integers(1, 40), st.integers(1, 10))
def test_mean_weights_sum_to_one(seed: int, n: int, outputs: int) -> None:
    target = (random(seed, 2, n) * (min(outputs, n) + 1)).long() - 1
    sizes = 1 + (random(seed + 1, 2, n) * 5).floor()
    weights = mean_weights(sizes, target)
    assert (weights[target < 0] == 0).all()
    for row, where in zip(weights, target, strict=True):
        for output in set(where.tolist()) - {-1}:
            assert float(row[where == output].sum()) == pytest.approx(1, abs=1e-5)


@few
@given(seeds, st.integers(1, 40), st.floats(0.001, 10))
def test_transition_weights_are_a_mean_over_members(seed: int, n: int, temperature: float) -> None:
    members = random(seed, 2, n) < 0.5
    members[:, seed % n] = True
    weights = transition_weights(random(seed + 1, 2, n), members, temperature)
    assert (weights[~members] == 0).all()
    assert torch.allclose(weights.sum(1), torch.ones(2))


@pytest.mark.parametrize("r", [[3, "a"], [2.7, 1, 1], (), (8, 2.0), 2.5, -1, True])
def test_tome_refuses_what_is_no_schedule(r: object) -> None:
    with pytest.raises((ValueError, TypeCheckError), match="r"):  # or the checker, first
        ToMe(r)


def test_decisions_do_not_depend_on_autocast() -> None:
    model = models()["plain-p64"]()
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    reduced = asap.ReducedViT(model, Asap(tau=1.3, clusters=4))
    with torch.autocast(DEVICE.type, torch.bfloat16):
        logits, trace = reduced(images, return_trace=True)
    assert logits.isfinite().all()
    assert (trace.stop_block > 0).any()


def test_an_empty_batch_is_refused() -> None:
    model = models()["plain-p64"]()
    with pytest.raises(ValueError, match="empty batch"):
        asap.ReducedViT(model, Dense())(torch.zeros(0, 3, 32, 32))
