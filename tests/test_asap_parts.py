"""Budget, plug-in, PCA centre, Otsu and Spearman: cases worked out by hand, and the reference."""

import math
from dataclasses import fields

import pytest
import torch
from reference import asap_parts_ref as ref
from torch import Tensor

from asap.core.agreement import mean_ranks, rank_agreement, spearman, weighted_distance
from asap.core.diffusion import distance_to_anchor, self_aligned_distance
from asap.core.otsu import clusters_for, otsu_threshold
from asap.core.pca import radius_in_plane
from asap.core.plugin import cosine_distances, row_distances, thin
from asap.core.radial import patches_within, rank_bins
from asap.core.sampling import quotas, stride_sample
from asap.methods import Asap
from asap.spec.configs import choices, read_method


def random(seed: int, *shape: int, levels: int = 0) -> Tensor:
    """Uniform numbers; with `levels`, few different ones, so that there are ties."""
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (values * levels).floor() / levels if levels else values


def chosen(mask: Tensor) -> list[int]:
    return mask.nonzero()[:, 0].tolist()


# --- budget -----------------------------------------------------------------------------------

# sizes per cluster, budget, quotas
QUOTAS = [
    ((4, 3, 3), 5, (2, 1, 2)),  # 2.0 1.5 1.5: the one that is left goes to the farther of the tied
    ((5, 3, 2), 4, (2, 1, 1)),  # 2.0 1.2 0.8
    ((1, 1, 1, 1), 2, (0, 0, 1, 1)),
    ((0, 7, 0, 1), 3, (0, 3, 0, 0)),  # 2.625 0.375
    ((3, 3), 1, (0, 1)),
]


@pytest.mark.parametrize(("sizes", "budget", "expected"), QUOTAS)
def test_quotas_by_largest_remainder(sizes, budget, expected):
    assert quotas(torch.tensor([sizes]), budget).tolist() == [list(expected)]
    found = ref.quotas({c: n for c, n in enumerate(sizes) if n}, budget)
    assert [found.get(c, 0) for c in range(len(sizes))] == list(expected)


def test_a_budget_that_suffices_takes_all():
    assert quotas(torch.tensor([[2, 3], [0, 0]]), 5).tolist() == [[2, 3], [0, 0]]


@pytest.mark.parametrize(
    ("size", "quota", "positions"),
    [(10, 3, [1, 5, 8]), (7, 2, [1, 5]), (5, 1, [2]), (4, 4, [0, 1, 2, 3]), (5, 4, [0, 1, 3, 4])],
)
def test_stride_positions(size, quota, positions):
    """floor((t + 1/2) size / quota): for 10 and 3, 1.67, 5 and 8.33."""
    assert ref.strides(size, quota) == positions
    distance = torch.arange(size).double()[None] + 1
    ones = torch.ones(1, size, dtype=torch.int64)
    assert chosen(stride_sample(distance, ones, ones > 0, quota, 2)[0]) == positions


def test_stride_sampling_by_hand():
    """Patches 2 and 5 are background. Cluster 1: 0, 4, 7, 6 by distance (4 and 7 tie); cluster
    2: 3, 1. Budget 3 of 6: quotas 2 and 1, positions 1 and 3, and 1."""
    distance = torch.tensor([[0.3, 0.9, 0.0, 0.7, 0.4, 0.1, 0.6, 0.4]])
    cluster = torch.tensor([[1, 2, 0, 2, 1, 0, 1, 1]])
    assert chosen(stride_sample(distance, cluster, cluster > 0, 3, int(cluster.max()) + 1)[0]) == [
        1,
        4,
        6,
    ]


@pytest.mark.parametrize("seed", range(40))
def test_stride_sampling_equals_the_reference(seed):
    n, clusters = 5 + seed, 2 + seed % 5
    distance = random(seed, 3, n, levels=4 if seed % 2 else 0)
    cluster = (random(seed + 100, 3, n) * clusters).long()
    for budget in {1, 2, n // 3 + 1, n // 2, n}:
        kept = stride_sample(distance, cluster, cluster > 0, budget, int(cluster.max()) + 1)
        for row, d, c in zip(kept, distance.tolist(), cluster.tolist(), strict=True):
            foreground = [i for i in range(n) if c[i] > 0]
            assert chosen(row) == ref.stride_sample(d, c, foreground, budget)[0]
            assert len(chosen(row)) == min(budget, len(foreground))


# --- plug-in ----------------------------------------------------------------------------------


def on_a_line(*places: float) -> Tensor:
    at = torch.tensor(places, dtype=torch.float64)
    return (at[:, None] - at[None, :]).abs()[None]


def thinned(distance: Tensor, scores: list[float], *options: int) -> tuple[list[int], int]:
    given = torch.tensor([scores], dtype=torch.float64)
    kept, pairs = thin(distance, given, torch.isfinite(given), *options)
    return chosen(kept[0]), int(pairs[0])


def test_rounds_of_the_plugin_by_hand():
    """Patch 2 has the best score and stays. The others 0 1 3 4 5 6 lie at 0 10 11 20 20.5 31.

    Even 0, 3, 5 and odd 1, 4, 6: nearest 10, 1, 0.5. One a round: 5 goes. Left 0 1 3 4 6, even 0,
    3, 6 against 1, 4: 10, 1, 11: 3 goes. Left 0 1 4 6, even 0 and 4 against 1 and 6: 10, 10: 0.
    """
    distance = on_a_line(0, 10, 99, 11, 20, 20.5, 31)
    scores = [0.1, 0.2, 0.9, 0.3, 0.1, 0.0, 0.5]
    assert thinned(distance, scores, 6, 1, 1) == ([0, 1, 2, 3, 4, 6], 9)
    assert thinned(distance, scores, 5, 1, 1) == ([0, 1, 2, 4, 6], 9 + 6)
    assert thinned(distance, scores, 4, 1, 1) == ([1, 2, 4, 6], 9 + 6 + 4)
    # two a round: 5 and 3; the same here
    assert thinned(distance, scores, 5, 1, 8) == ([0, 1, 2, 4, 6], 9)


def test_the_best_by_score_stay_and_ties_go_to_the_lowest():
    flat = on_a_line(0, 0, 0, 0, 0)
    assert thinned(flat, [1.0] * 5, 3, 2, 8) == ([0, 1, 3], 2)  # of 2, 3, 4 the even 2 and 4 go
    assert thinned(flat, [1.0] * 5, 2, 2, 8) == ([0, 1], 2)  # then 3 alone, without a partner
    assert thinned(flat, [0.0, 0.0, 1.0, 0.0, 1.0], 2, 2, 8)[0] == [2, 4]
    assert thinned(flat, [1.0] * 5, 5, 0, 8) == ([0, 1, 2, 3, 4], 0)
    hidden = [-math.inf, 1.0, -math.inf, 1.0, 1.0]  # not foreground
    assert thinned(flat, hidden, 2, 0, 8) == ([3, 4], 2)


def test_nan_distances_end():
    assert len(thinned(torch.full((1, 6, 6), torch.nan), [1.0] * 6, 1, 1, 2)[0]) == 1


@pytest.mark.parametrize("seed", range(30))
def test_the_plugin_equals_the_reference(seed):
    n = 4 + seed
    rows, scores = random(seed, 2, n, 6), random(seed + 50, 2, n, levels=9 if seed % 2 else 0)
    foreground = random(seed + 99, 2, n) < 0.8
    for pairwise, measure in ((row_distances, ref.euclidean), (cosine_distances, ref.cosine)):
        for budget, best, step in ((1, 1, 8), (n // 2, n // 4, 2), (n // 3 + 1, 0, 3)):
            kept, pairs = thin(pairwise(rows), scores, foreground, budget, best, step)
            for i in range(2):
                inside = chosen(foreground[i])
                expected, count, _ = ref.thin(
                    list(rows[i]), measure, scores[i].tolist(), inside, budget, best, step
                )
                assert (chosen(kept[i]), int(pairs[i])) == (expected, count)


# --- anchors and distances --------------------------------------------------------------------


def test_pca_centre_by_hand():
    """A cross in the plane of columns 0 and 1 and a third, weak direction that must not count."""
    rows = torch.tensor(
        [[4.0, 0, 0.1], [-4, 0, -0.1], [0, 3, 0.1], [0, -3, -0.1], [0, 1, 0.5], [0, -1, -0.5]]
    )
    radius = radius_in_plane(rows[None])[0]
    assert torch.allclose(radius[:2], torch.full((2,), 4.0, dtype=torch.float64), atol=0.05)
    assert torch.allclose(radius[4:], torch.ones(2, dtype=torch.float64), atol=0.15)
    shifted = radius_in_plane((rows + 7)[None])[0]
    assert torch.allclose(shifted, radius, atol=1e-5)
    mirrored = radius_in_plane((rows * torch.tensor([-1.0, 1, -1]))[None])[0]
    assert torch.allclose(mirrored, radius, atol=1e-6)
    assert (radius_in_plane(torch.ones(1, 3, 4)) == 0).all()


def test_pca_centre_equals_the_reference():
    rows = random(1, 4, 12, 17)
    for own, found in zip(rows, radius_in_plane(rows), strict=True):
        assert found.tolist() == pytest.approx(ref.distances_from_centre(own), abs=1e-9)


def test_self_aligned_distance_by_hand():
    """Two patches that only keep their mass are equal; the plain distance sets them apart."""
    keeps = torch.eye(3)[None]
    anchor = torch.tensor([0])
    assert self_aligned_distance(keeps, anchor, 1).tolist() == [[0.0, 0.0]]
    assert distance_to_anchor(keeps, anchor, 1)[0, 1] == pytest.approx(math.sqrt(2))
    walk = torch.tensor([[[1.0, 0, 0], [0.1, 0.6, 0.3], [0.2, 0.7, 0.1]]])
    expected = math.sqrt(0.1**2 + (0.1 - 0.6) ** 2 + (0.7 - 0.3) ** 2)
    assert self_aligned_distance(walk, anchor, 1)[0].tolist() == pytest.approx([0.0, expected])
    expected = math.sqrt((0.1 - 0.6) ** 2 + (0.7 - 0.3) ** 2)
    found = self_aligned_distance(walk, anchor, 1, "patches")[0]
    assert found.tolist() == pytest.approx([0.0, expected])


# --- Otsu -------------------------------------------------------------------------------------


def test_otsu_by_hand():
    """Patch 0 is the anchor. 0 .1 .2 | .8 1: the means differ by .8."""
    scaled = torch.tensor([[0.0, 0.2, 0.8, 0.0, 1.0, 0.1]])
    anchor = torch.tensor([0])
    assert otsu_threshold(scaled, anchor).tolist() == pytest.approx([0.5])
    assert ref.otsu_threshold(scaled[0].tolist(), 0)[0] == pytest.approx(0.5)
    assert otsu_threshold(torch.zeros(1, 4), anchor).tolist() == [0.0]
    assert otsu_threshold(torch.tensor([[0.0, 0.0]]), anchor).tolist() == [0.0]
    # equal cuts, 0 | 1/2 1 and 0 1/2 | 1: the lowest
    tied = torch.tensor([[0.0, 0.0, 0.5, 1.0]])
    assert otsu_threshold(tied, anchor).tolist() == [0.25]


@pytest.mark.parametrize(
    ("threshold", "background", "clusters"),
    [(0.5, 1, 2), (0.9, 1, 2), (0.3, 1, 3), (0.25, 1, 4), (0.0, 1, 64), (0.6, 2, 3), (0.46, 2, 4)],
)
def test_clusters_of_a_threshold(threshold, background, clusters):
    assert clusters_for(torch.tensor([threshold]), background).tolist() == [clusters]
    assert ref.clusters_for(threshold, background)[0] == clusters


@pytest.mark.parametrize("seed", range(20))
def test_otsu_equals_the_reference(seed):
    scaled = random(seed, 3, 4 + seed)
    anchor = torch.tensor([0, 1, 3])
    for found, row, s in zip(otsu_threshold(scaled, anchor), scaled, anchor, strict=True):
        assert float(found) == pytest.approx(ref.otsu_threshold(row.tolist(), int(s))[0])


# --- Appendix A -------------------------------------------------------------------------------


def test_spearman_with_ties_by_hand():
    """Ranks 1, 2.5, 2.5, 4 and 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5)."""
    x, y = torch.tensor([[1.0, 5, 5, 9]]), torch.tensor([[0.0, 1, 2, 3]])
    assert mean_ranks(x).tolist() == [[1.0, 2.5, 2.5, 4.0]]
    assert spearman(x, y).tolist() == pytest.approx([4.5 / math.sqrt(4.5 * 5)])
    assert spearman(x, -x).tolist() == pytest.approx([-1.0])
    assert spearman(x, torch.ones_like(x)).isnan().all()


@pytest.mark.parametrize("prefix", [1, 3])
def test_agreement_equals_the_reference(prefix):
    walk = (random(prefix, 4, 14, 14) * 3).softmax(-1)
    anchor = torch.tensor([0, 2, 5, 8])
    weighted, found = weighted_distance(walk, anchor, prefix), rank_agreement(walk, anchor, prefix)
    plain = distance_to_anchor(walk, anchor, prefix)
    for i, s in enumerate(anchor.tolist()):
        expected = ref.weighted_distances(walk[i], s, prefix)
        assert weighted[i].tolist() == pytest.approx(expected)
        others = [j for j in range(14 - prefix) if j != s]
        rho = ref.spearman([float(plain[i, j]) for j in others], [expected[j] for j in others])
        assert float(found[i]) == pytest.approx(rho)


def test_equal_shares_do_not_change_the_order():
    """A doubly stochastic P: pi is uniform, and the paper's simplification exact."""
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(9, generator=generator) for _ in range(6)]
    shares = random(0, 6)
    walk = sum(w * torch.eye(9)[order] for w, order in zip(shares, orders, strict=True))[None]
    assert float(rank_agreement(walk, torch.tensor([4]), 1)) == pytest.approx(1.0)


@pytest.mark.parametrize("patches", [2, 25, 64, 196])
def test_the_patches_in_the_first_rank_bins_are_known_beforehand(patches):
    distance, anchor = random(patches, 1, patches), torch.tensor([patches // 2])
    for clusters in (2, 3, 7, 16, 64, 300):
        bins = rank_bins(distance, anchor, clusters)
        for background in range(1, clusters):
            assert patches_within(background, clusters, patches) == int((bins < background).sum())


# --- configs and labels -----------------------------------------------------------------------

STATIC = {"clusters", "background", "min_block", "max_block", "miss", "binning"}
CONFIGS = [
    (stem, config) for stem in choices("method") if (config := read_method(stem))["name"] == "asap"
]


@pytest.mark.parametrize(("stem", "config"), CONFIGS, ids=[stem for stem, _ in CONFIGS])
def test_configs_list_every_option(stem, config):
    config = {k: v for k, v in config.items() if k not in ("name", "label", "paper", "ours")}
    assert list(config) == [f.name for f in fields(Asap)]
    method = Asap(**config)
    ours = ("asap_quiet", "asap_static", "asap_static_quiet")
    assert method.extension == (stem in ours)  # the class knows it, no config repeats it
    changed = {f.name for f in fields(Asap) if getattr(method, f.name) != f.default}
    assert changed == {
        "asap": set(),
        "asap_pruning": {"pool"},
        "asap_quiet": {"anchor", "distance"},
        "asap_static": STATIC,
        "asap_static_quiet": STATIC | {"anchor", "distance"},
        "no_accumulation": {"accumulate"},
        "pca_anchor": {"anchor"},
        "random_anchor": {"anchor"},
    }.get(stem, changed)


def test_extensions_of_ours_say_so():
    static = {"binning": "rank", "miss": "force", "min_block": 4, "max_block": 4}
    ours = ({"anchor": "quiet"}, {"distance": "self_aligned"}, {"clusters": "auto"}, static)
    assert not any(Asap(**{**static, k: getattr(Asap, k)}).static for k in static)
    assert all(Asap(**options).extension for options in ours)
    assert not Asap(anchor="pca", max_tokens=8, plugin="keys").extension
