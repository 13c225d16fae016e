"""The oracle against timm, against itself, and against cases worked out by hand."""

import collections
import math

import asap._compat  # noqa: F401  (before anything imports timm)

# isort: split
import pytest
import timm
import torch
from draws import CLASSES, DEPTH, Draw, build, draws, in_float64, models, randomise
from reference import asap_ref, macs_ref, tome_ref
from reference.asap_ref import Options, reference_asap
from reference.tome_ref import reference_tome
from reference.vit import Reduction, View, as_float64, forward
from timm.models.vision_transformer import VisionTransformer
from torch.utils.flop_counter import FlopCounterMode

INF = math.inf
SMALL = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 3,
         "num_classes": 7, "mlp_ratio": 3.0}  # fmt: skip
# Every part of a block or head that timm has and a plain DeiT has not.
BACKBONES = {
    "vit_tiny": lambda: timm.create_model("vit_tiny_patch16_224"),
    "deit_tiny_distilled": lambda: timm.create_model("deit_tiny_distilled_patch16_224"),
    "deit3_small": lambda: timm.create_model("deit3_small_patch16_224", depth=3),
    "qk_norm": lambda: VisionTransformer(**SMALL, qk_norm=True),
    "scale_norm": lambda: VisionTransformer(
        **SMALL, scale_attn_norm=True, scale_mlp_norm=True, no_embed_class=True
    ),
    "dinov2_reg4": lambda: timm.create_model(
        "vit_small_patch14_reg4_dinov2", img_size=56, embed_dim=24, depth=4, num_heads=3,
        num_classes=7,
    ),
    "clip_quickgelu": lambda: timm.create_model(
        "vit_base_patch16_clip_quickgelu_224", img_size=48, embed_dim=24, depth=4, num_heads=3,
        num_classes=7,
    ),
    "average": lambda: VisionTransformer(**SMALL, global_pool="avg"),
    "average_final_norm": lambda: VisionTransformer(
        **SMALL, global_pool="avg", fc_norm=False, class_token=False
    ),
    "gated": lambda: _gated(VisionTransformer(**SMALL)),
}  # fmt: skip


def _gated(model: VisionTransformer) -> VisionTransformer:
    """The gate is an argument of the attention that the backbone's own constructor lacks."""
    for block in model.blocks:
        block.attn.gate = torch.nn.Linear(24, 24)
    return model


def prepared(make, seed: int = 0) -> tuple[VisionTransformer, torch.Tensor]:
    model = make()
    randomise(model, seed)
    height, width = model.patch_embed.img_size
    image = torch.randn((3, height, width), generator=torch.Generator().manual_seed(seed))
    return model.double().eval(), image


def agree(a: torch.Tensor, b: torch.Tensor, tolerance: float = 1e-10) -> None:
    torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


# --- the plain forward ------------------------------------------------------------------------


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_dense_is_timm(name):
    model, image = prepared(BACKBONES[name])
    out = forward(model, image)
    agree(out.logits, model(image.double()[None])[0])
    assert out.logits.std() > 0.1  # the weights matter
    n = model.patch_embed.num_patches
    assert out.assignment.tolist() == [model.num_prefix_tokens + i for i in range(n)]
    assert out.tokens == [n + model.num_prefix_tokens] * (len(model.blocks) + 1)


@pytest.mark.parametrize("name", BACKBONES)
@torch.no_grad()
def test_methods_switched_off_are_timm(name):
    model, image = prepared(BACKBONES[name], seed=1)
    logits = model(image.double()[None])[0]
    anchor = "sink" if model.has_class_token else "mass"
    never = reference_asap(model, image, tau=INF, anchor=anchor, proportional_attention=True)
    agree(never.logits, logits)
    assert (never.stop_block, never.sink) == (0, -1)
    agree(reference_asap(model, image, tau=0.1, anchor=anchor, overhead=True).logits, logits)
    agree(reference_tome(model, image, r=0).logits, logits)


def test_the_model_is_not_touched():
    model = build("plain", "p25", seed=0)  # float32
    before = {name: p.clone() for name, p in model.named_parameters()}
    reference_asap(model, torch.zeros(3, 40, 40), tau=0.5)
    for name, p in model.named_parameters():
        assert p.dtype == torch.float32 and torch.equal(p, before[name])


def test_attention_maps_are_stochastic():
    model, image = prepared(BACKBONES["vit_tiny"])
    rows = []
    forward(model, image, lambda view: rows.append(view.attention.sum(dim=-1)))
    assert len(rows) == 12 and rows[0].shape == (3, 197)
    agree(torch.stack(rows), torch.ones(12, 3, 197, dtype=torch.float64), 1e-13)


@torch.no_grad()
def test_average_head_weights_tokens_by_size():
    """Patches 0 and 1 merged after the last block: their mean counts twice."""
    model, image = prepared(BACKBONES["average"])
    dense = forward(model, image)

    def merge_first_two(view: View) -> Reduction | None:
        if view.block < 4:
            return None
        x = torch.cat([view.tokens[:1], view.tokens[1:3].mean(dim=0)[None], view.tokens[3:]])
        sizes = torch.cat([torch.tensor([1.0, 2.0]), torch.ones(len(x) - 2)]).double()
        destination = torch.tensor([0, 1, 1, *range(2, len(x))])
        return Reduction(x, sizes, destination)

    out = forward(model, image, merge_first_two, position="after_block")
    pooled = dense.features[1:].mean(dim=0)  # no norm before the pool in this model
    agree(out.logits, model.head(model.fc_norm(pooled)))
    agree(out.logits, dense.logits)
    assert out.assignment.tolist() == [1, 1, *range(2, 16)]


def _constant_model(variant: str) -> tuple[VisionTransformer, torch.Tensor]:
    """No positions and a constant image: all patch tokens are equal in every block."""
    model = build(variant, "p25", seed=3)
    with torch.no_grad():
        model.pos_embed.zero_()
    return as_float64(model), torch.full((3, 40, 40), 0.7)


@pytest.mark.parametrize("variant", ["plain", "distilled", "registers", "average_with_class"])
@torch.no_grad()
def test_merging_equal_tokens_is_exact_under_proportional_attention(variant):
    model, image = _constant_model(variant)
    logits = model(image.double()[None])[0]
    merged = reference_tome(model, image, r=3)
    assert merged.tokens[-1] < merged.tokens[0] - 15
    agree(merged.logits, logits)
    for position in ("after_attention", "after_block"):
        pooled = reference_asap(
            model, image, tau=0.01, clusters=2, position=position, proportional_attention=True
        )
        assert pooled.stop_block == 1
        agree(pooled.logits, logits)
    # and it is the size bias that makes it so
    assert (reference_tome(model, image, 3, False).logits - logits).abs().max() > 1e-4


# --- walk and mass ----------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["walk", "rollout"])
@pytest.mark.parametrize("alpha", [0.3, 0.5, 1.0])
def test_walk_on_uniform_attention(alpha, order):
    """A = J/N is idempotent, so P_l = b I + (1 - b) J/N with b = (1 - alpha)^l; all masses 1."""
    n = 6
    uniform = torch.full((n, n), 1 / n, dtype=torch.float64)
    walk = None
    for block in range(1, 5):
        walk = asap_ref.walk_step(walk, uniform, alpha, order)
        stay = (1 - alpha) ** block
        agree(walk, stay * torch.eye(n, dtype=torch.float64) + (1 - stay) * uniform, 1e-14)
        agree(asap_ref.column_mass(walk), torch.ones(n, dtype=torch.float64), 1e-14)


def star(n: int, centre: int) -> torch.Tensor:
    """Every token attends to `centre` alone."""
    attention = torch.zeros((n, n), dtype=torch.float64)
    attention[:, centre] = 1
    return attention


def test_walk_on_a_star():
    """Mass of the centre: b + N (1 - b) with b = (1 - alpha)^l; of every other token: b."""
    n, centre, alpha = 5, 3, 0.4
    walk = None
    for block in range(1, 6):
        walk = asap_ref.walk_step(walk, star(n, centre), alpha, "walk")
        stay = (1 - alpha) ** block
        expected = torch.full((n,), stay, dtype=torch.float64)
        expected[centre] += n * (1 - stay)
        agree(asap_ref.column_mass(walk), expected, 1e-13)


def test_order_of_the_product():
    """Not lazy, first all to 0 and then all to 1: a walker ends at 1, rollout says 0."""
    ends = {}
    for order in ("walk", "rollout"):
        walk = asap_ref.walk_step(None, star(4, 0), 1.0, order)
        walk = asap_ref.walk_step(walk, star(4, 1), 1.0, order)
        ends[order] = asap_ref.column_mass(walk).argmax().item()
    assert ends == {"walk": 1, "rollout": 0}


def test_one_lazy_step_by_hand():
    attention = torch.tensor([[0.5, 0.5], [0.0, 1.0]], dtype=torch.float64)
    walk = asap_ref.walk_step(None, attention, 0.5, "walk")
    agree(walk, torch.tensor([[0.75, 0.25], [0.0, 1.0]], dtype=torch.float64), 1e-15)
    walk = asap_ref.walk_step(walk, attention, 0.5, "walk")
    agree(walk, torch.tensor([[0.5625, 0.4375], [0.0, 1.0]], dtype=torch.float64), 1e-15)
    agree(asap_ref.column_mass(walk), torch.tensor([0.5625, 1.4375], dtype=torch.float64), 1e-15)


def walked(attentions: list[torch.Tensor], n_prefix: int = 1, random_anchor=None, **options):
    """The walker fed with given maps, and the reduction it answered with."""
    walker = asap_ref._Walker(Options(**options), len(attentions), random_anchor)
    answer = None
    for block, attention in enumerate(attentions, start=1):
        n = len(attention)
        tokens = torch.arange(n, dtype=torch.float64)[:, None] * torch.ones(1, 2)
        nothing = torch.zeros((1, n, 1), dtype=torch.float64)
        ones = torch.ones(n, dtype=torch.float64)
        view = View(block, n_prefix, attention[None], nothing, nothing, tokens, ones)
        answer = walker(view) or answer
    return walker, answer


def test_stop_on_a_star():
    """N = 5, alpha = 1/2: the centre has 3, 4, 4.5, ... after blocks 1, 2, 3."""
    maps = [star(5, 3)] * 4
    walker, _ = walked(maps, tau=3.0)  # 3 is not more than 3
    assert (walker.stop_block, walker.sink) == (2, 2)
    assert walker.mass[:2] == [3.0, 4.0] and all(math.isnan(m) for m in walker.mass[2:])
    assert min(walker.mass_gaps) == 0.0
    assert walked(maps, tau=2.9)[0].stop_block == 1
    assert walked(maps, tau=2.9, min_block=3)[0].stop_block == 3
    late, _ = walked(maps, tau=4.6)  # block 4 has 4.75, but the last block may not stop
    assert late.stop_block == 0 and late.mass_gaps == pytest.approx([1.6, 0.6, 0.1])
    assert math.isnan(late.mass[3])
    assert walked(maps, tau=4.6, max_block=4)[0].stop_block == 4
    assert walked(maps, tau=9.0, miss="force")[0].stop_block == 3
    assert walked(maps, tau=9.0, miss="force", max_block=2)[0].stop_block == 2
    always, answer = walked(maps, tau=0.1, overhead=True)
    assert answer is None and always.mass == [3.0, 4.0, 4.5, 4.75] and not always.mass_gaps


def test_columns_of_the_stop_test():
    """The class token draws all attention: no patch has more than its own (1 - alpha)^l."""
    maps = [star(5, 0)] * 3
    patches, _ = walked(maps, tau=1.5)
    assert patches.stop_block == 0 and patches.mass[:2] == [0.5, 0.25]
    everything, _ = walked(maps, tau=1.5, columns="all")
    assert everything.stop_block == 1
    assert everything.sink == 0  # the sink is a patch all the same; all tie, the lowest index


def test_anchors():
    """The class row points at patch 1, the mass at patch 0."""
    attention = torch.tensor(
        [[0.1, 0.0, 0.6, 0.3], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0.9, 0, 0.1]], dtype=torch.float64
    )
    maps = [attention] * 2
    sink, _ = walked(maps, tau=1.0)
    assert sink.sink == 1 and sink.margin_sink == pytest.approx(0.5 * 0.3)
    assert walked(maps, tau=1.0, anchor="mass")[0].sink == 0
    assert walked(maps, tau=1.0, anchor="random", random_anchor=2)[0].sink == 2
    with pytest.raises(ValueError, match="random_anchor"):
        walked(maps, tau=1.0, anchor="random")


def test_without_accumulation_only_the_stop_remembers():
    """Two blocks to patch 0, then one that splits: P still says patch 0, the map alone patch 2."""
    last = torch.tensor(
        [[0, 0.2, 0, 0.8], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0.5, 0, 0.5]], dtype=torch.float64
    )
    maps = [star(4, 1), star(4, 1), last, last]
    with_memory, _ = walked(maps, tau=3.15)  # masses 2.5, 3.25
    assert with_memory.stop_block == 2
    options = {"tau": 3.15, "min_block": 3}
    both = {flag: walked(maps, accumulate=flag, **options)[0] for flag in (True, False)}
    assert both[True].stop_block == both[False].stop_block == 3
    assert both[True].mass[:3] == both[False].mass[:3]
    assert (both[True].sink, both[False].sink) == (0, 2)
    # rows of the map itself, not lazy: (0,1,0,0), (0,0,1,0), (0,.5,0,.5) against the last
    half = math.sqrt(0.5)
    assert both[False].distances == pytest.approx([half, math.sqrt(1.5), 0.0])


# --- distances, bins, pooling -----------------------------------------------------------------


def test_diffusion_distance_by_hand():
    rows = [[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0.5, 0.1, 0.4], [0.3, 0.5, 0.2, 0]]
    matrix = torch.tensor(rows, dtype=torch.float64)
    found = asap_ref.diffusion_distances(matrix, sink=0, n_prefix=1, columns="all")
    assert found == pytest.approx([0.0, math.sqrt(0.16 + 0.16), math.sqrt(0.09 + 0.09)])
    found = asap_ref.diffusion_distances(matrix, sink=0, n_prefix=1, columns="patches")
    assert found == pytest.approx([0.0, math.sqrt(0.32), 0.3])


def test_normalised_by_hand():
    d = [3.0, 0.0, 2.0, 4.0]
    assert asap_ref.normalised(d, 1, "minmax_others") == [0.5, 0.0, 0.0, 1.0]
    assert asap_ref.normalised(d, 1, "max") == [0.75, 0.0, 0.5, 1.0]
    assert asap_ref.normalised([2.0, 0.0, 2.0], 1, "minmax_others") == [0.0, 0.0, 0.0]
    assert asap_ref.normalised([0.0, 0.0], 0, "max") == [0.0, 0.0]
    assert asap_ref.normalised([0.0], 0, "minmax_others") == [0.0]


def test_bins_by_hand():
    assert asap_ref.width_bins([0.0, 0.24, 0.25, 0.5, 0.99, 1.0], 4) == [0, 0, 1, 2, 3, 3]
    # sink first, then by distance, ties by index: order 3, 1, 0, 4, 2; floor(2 * rank / 5)
    assert asap_ref.rank_bins([5.0, 4.0, 9.0, 0.0, 5.0], 3, 2) == [0, 0, 1, 0, 1]
    # more bins than patches: ranks 0, 1, 2 to bins 0, 1, 3
    assert asap_ref.rank_bins([0.0, 2.0, 1.0], 0, 5) == [0, 3, 1]
    # a patch at distance 0 from the sink does not take its rank
    assert asap_ref.rank_bins([0.0, 0.0, 1.0], 1, 3) == [1, 0, 2]


@pytest.mark.parametrize(("n", "clusters"), [(196, 4), (64, 10), (7, 3), (5, 5)])
def test_rank_bins_have_equal_counts(n, clusters):
    distances = torch.rand(n, generator=torch.Generator().manual_seed(n)).tolist()
    counts = collections.Counter(asap_ref.rank_bins(distances, 2, clusters))
    assert max(counts.values()) - min(counts.values()) <= 1
    assert counts[0] == math.ceil(n / clusters)


def test_pooling_weights_by_hand():
    e = math.e
    assert asap_ref.pooling_weights([0.0, 1.0], 1.0) == pytest.approx([1 / (1 + e), e / (1 + e)])
    assert asap_ref.pooling_weights([0.0, math.log(3) / 2], 0.5) == pytest.approx([0.25, 0.75])
    assert asap_ref.pooling_weights([0.7], 1e-3) == [1.0]
    assert asap_ref.pooling_weights([0.0, 900.0], 1.0)[1] == 1.0  # no overflow


def test_reduction_by_hand():
    """One prefix, five patches, sink 2; d = 4, 2, 0, 3, 2 and K = 4, so B = patches 1, 2, 4."""
    view = View(
        1, 1, torch.ones(1, 6, 6), torch.ones(1, 6, 1), torch.ones(1, 6, 1),
        torch.tensor([[9.0], [10], [20], [30], [40], [50]]).double(), torch.ones(6).double(),
    )  # fmt: skip
    scaled = asap_ref.normalised([4.0, 2.0, 0.0, 3.0, 2.0], 2, "minmax_others")
    assert scaled == [1.0, 0.0, 0.0, 0.5, 0.0]
    background = [i for i, b in enumerate(asap_ref.width_bins(scaled, 4)) if b < 1]
    assert background == [1, 2, 4]
    pooled = asap_ref.reduced(view, background, [0.25, 0.5, 0.25])
    assert pooled.tokens[:, 0].tolist() == [9.0, 10.0, 40.0, 0.25 * 20 + 0.5 * 30 + 0.25 * 50]
    assert pooled.sizes.tolist() == [1.0, 1.0, 1.0, 3.0]
    assert pooled.destination.tolist() == [0, 1, 3, 3, 2, 3]
    pruned = asap_ref.reduced(view, background, None)
    assert pruned.tokens[:, 0].tolist() == [9.0, 10.0, 40.0]
    assert pruned.destination.tolist() == [0, 1, -1, -1, 2, -1]


def test_margin_of_the_bins():
    walker = asap_ref._Walker(Options(clusters=4, background=1), 4, None, sink=0)
    walker._bin([0.0, 0.0, 0.3, 0.6, 1.0])
    assert walker.margin_bin == pytest.approx(0.05)
    ranks = asap_ref._Walker(Options(clusters=2, binning="rank"), 4, None, sink=0)
    ranks.distances = [0.0, 1.0, 1.1, 1.7, 2.0]  # ranks 0 to 2 are background
    ranks._bin([0.0, 0.0, 0.1, 0.7, 1.0])
    assert ranks.bins == [0, 0, 0, 1, 1] and ranks.margin_bin == pytest.approx(0.6)


# --- ASAP on a model --------------------------------------------------------------------------

CASE = {"tau": 2.0, "clusters": 2}


@pytest.fixture(scope="module")
def asap_case() -> tuple[VisionTransformer, torch.Tensor]:
    image = torch.randn((3, 36, 36), generator=torch.Generator().manual_seed(5))
    return as_float64(build("plain", "p36", seed=4)), image


def test_result_is_consistent(asap_case):
    result = reference_asap(*asap_case, **CASE)
    stop = result.stop_block
    assert 1 <= stop < DEPTH and result.logits.shape == (CLASSES,)
    background = [i for i, b in enumerate(result.bins) if b < 1]
    assert result.sink in background and len(background) > 1
    kept = 1 + 36 - len(background) + 1
    assert result.tokens == [37] * stop + [kept] * (DEPTH + 1 - stop)
    assert result.n_attention == result.tokens[:-1] and result.n_mlp == result.tokens[1:]
    foreground = [i for i in range(36) if i not in background]
    expected = {i: 1 + new for new, i in enumerate(foreground)} | dict.fromkeys(
        background, kept - 1
    )
    assert result.assignment == [expected[i] for i in range(36)]
    assert result.mass[stop - 1] > 2.0 and all(m <= 2.0 for m in result.mass[: stop - 1])
    assert result.distances[result.sink] == 0.0


def test_position_decides_what_the_mlp_sees(asap_case):
    early = reference_asap(*asap_case, **CASE)
    late = reference_asap(*asap_case, position="after_block", **CASE)
    assert early.assignment == late.assignment and early.tokens == late.tokens
    assert late.n_mlp == late.n_attention
    stop, removed = early.stop_block, early.tokens[0] - early.tokens[-1]
    assert early.n_mlp[stop - 1] == late.n_mlp[stop - 1] - removed
    assert late.macs_backbone - early.macs_backbone == removed * 2 * 24 * 96
    assert (early.logits - late.logits).abs().max() > 1e-6


def test_pruning_drops_what_pooling_pools(asap_case):
    pooled = reference_asap(*asap_case, **CASE)
    pruned = reference_asap(*asap_case, pool=False, **CASE)
    assert pruned.tokens[-1] == pooled.tokens[-1] - 1
    last = pooled.tokens[-1] - 1
    assert pruned.assignment == [-1 if a == last else a for a in pooled.assignment]


@torch.no_grad()
def test_pooling_the_sink_alone_only_moves_it(asap_case):
    """Attention does not care about order, so the logits stay what they were."""
    model, image = asap_case
    result = reference_asap(model, image, tau=2.0, clusters=10**6, normalise="max")
    assert result.stop_block > 0 and result.tokens[-1] == 37
    assert result.assignment[result.sink] == 36
    agree(result.logits, model(image.double()[None])[0])


def test_weights_follow_temperature(asap_case):
    """Hot: a plain mean, whatever the distance. Cold: the farthest background patch alone."""
    hot = [reference_asap(*asap_case, temperature=1e9, weights=w, **CASE).logits
           for w in ("raw", "normalised")]  # fmt: skip
    agree(hot[0], hot[1], 1e-8)
    cold = [reference_asap(*asap_case, temperature=1e-9, weights=w, **CASE).logits
            for w in ("raw", "normalised")]  # fmt: skip
    agree(cold[0], cold[1], 1e-8)
    assert (hot[0] - cold[0]).abs().max() > 1e-4


def test_proportional_attention_changes_later_blocks(asap_case):
    plain = reference_asap(*asap_case, **CASE)
    biased = reference_asap(*asap_case, proportional_attention=True, **CASE)
    assert plain.assignment == biased.assignment
    assert (plain.logits - biased.logits).abs().max() > 1e-6


def test_refusals(asap_case):
    _, image = asap_case
    with pytest.raises(ValueError, match='anchor="mass"'):
        reference_asap(build("average", "p36", seed=0), image)
    with pytest.raises(TypeError, match="taus"):
        reference_asap(*asap_case, taus=2.0)


# --- ToMe -------------------------------------------------------------------------------------


def _directions(*degrees: float) -> torch.Tensor:
    angle = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    # lengths differ: the cosine must not see them
    lengths = torch.arange(1.0, 1 + len(degrees))
    return torch.stack([angle.cos(), angle.sin()], dim=1) * lengths[:, None]


def test_matching_of_six_tokens_by_hand():
    """Class token and patches 1 to 5. Even: 2 (10 deg), 4 (50 deg); odd: 1 (0), 3 (45), 5 (90).

    2 is 10 degrees from 1; 4 is 5 degrees from 3. So 4 goes first, into 3.
    """
    metric = _directions(0, 0, 10, 45, 50, 90)
    match, margin = tome_ref.bipartite_match(metric, r=1, n_prefix=1)
    assert match.merged == {4: 3} and match.order == [0, 2, 1, 3, 5]
    cos = [math.cos(math.radians(a)) for a in (5, 10, 40)]
    assert margin == pytest.approx(min(cos[0] - cos[1], cos[0] - cos[2]))
    match, _ = tome_ref.bipartite_match(metric, r=2, n_prefix=1)
    assert match.merged == {4: 3, 2: 1} and match.order == [0, 1, 3, 5]


def test_two_sources_may_share_a_destination():
    match, _ = tome_ref.bipartite_match(_directions(0, 40, 38, 90, 43, 120), 2, 1)
    assert match.merged == {2: 1, 4: 1} and match.order == [0, 1, 3, 5]
    tokens = torch.tensor([[0.0], [10], [20], [30], [40], [50]]).double()
    sizes = torch.tensor([1.0, 2, 1, 1, 3, 1]).double()
    view = View(1, 1, torch.ones(1, 6, 6), torch.ones(1, 6, 1), torch.ones(1, 6, 1), tokens, sizes)
    out = tome_ref.merged(view, match)
    assert out.tokens[:, 0].tolist() == [0.0, (2 * 10 + 20 + 3 * 40) / 6, 30.0, 50.0]
    assert out.sizes.tolist() == [1.0, 6.0, 1.0, 1.0]
    assert out.destination.tolist() == [0, 1, 1, 2, 1, 3]


def test_prefix_tokens_are_neither_source_nor_destination():
    """The distillation token (1) is nearest to 2, yet 2 goes to 3; order keeps 0, 1 in front."""
    match, _ = tome_ref.bipartite_match(_directions(0, 10, 10, 50, 85, 90), 1, 2)
    assert match.merged == {4: 5} and match.order == [0, 1, 2, 3, 5]
    match, _ = tome_ref.bipartite_match(_directions(0, 10, 10, 50, 85, 90), 2, 2)
    assert match.merged == {4: 5, 2: 3} and match.order == [0, 1, 3, 5]


def test_ties_go_to_the_lowest():
    match, _ = tome_ref.bipartite_match(torch.ones(7, 2).double(), r=2, n_prefix=1)
    assert match.merged == {2: 1, 4: 1} and match.order == [0, 6, 1, 3, 5]


def test_schedules():
    assert tome_ref.schedule(13, 3) == [13, 13, 13]
    assert tome_ref.schedule((8, -1), 12) == [16, 14, 13, 11, 10, 8, 7, 5, 4, 2, 1, 0]
    assert tome_ref.schedule((8, 0), 4) == [8, 8, 8, 8]
    assert tome_ref.schedule((8, 1), 3) == [0, 8, 16]
    assert tome_ref.schedule([5, 0, 3], 5) == [5, 0, 3, 0, 0]


@pytest.mark.parametrize(
    ("name", "r", "last"),
    [
        ("deit_tiny_patch16_224", 13, 41),
        ("deit_tiny_patch16_224", 16, 11),
        ("deit_tiny_distilled_patch16_224", 13, 42),
        ("deit_tiny_distilled_patch16_224", 16, 12),
    ],
)
def test_tome_token_counts(name, r, last):
    model, image = prepared(lambda: timm.create_model(name, embed_dim=24))
    result = reference_tome(model, image, r)
    n, prefix = 196, model.num_prefix_tokens
    expected = [n + prefix]
    for _ in range(12):
        n -= min(r, n // 2)
        expected.append(n + prefix)
    assert result.tokens == expected and result.tokens[-1] == last
    assert sum(result.sizes) == pytest.approx(196 + prefix)
    counts = collections.Counter(result.assignment)
    assert all(counts[i] == round(s) for i, s in enumerate(result.sizes) if i >= prefix)
    assert result.sizes[:prefix] == [1.0] * prefix


# --- multiply-accumulates ---------------------------------------------------------------------


def _dense_macs(name: str) -> tuple[VisionTransformer, int]:
    model = timm.create_model(name, device=torch.device("meta"))
    return model, macs_ref.backbone_macs(model, [197] * 12, [197] * 12)


def test_dense_macs_of_deit():
    assert _dense_macs("deit_tiny_patch16_224")[1] == 1_253_683_200
    assert round(_dense_macs("deit_small_patch16_224")[1] / 1e9, 4) == 4.5989
    assert round(_dense_macs("deit_base_patch16_224")[1] / 1e9, 4) == 17.5638


@pytest.mark.parametrize(
    ("name", "r", "gmacs"),
    [("small", 12, 2.844), ("base", 11, 11.457), ("tiny", 12, 0.769)],
)
def test_tome_macs_of_the_papers_rows(name, r, gmacs):
    model, _ = _dense_macs(f"deit_{name}_patch16_224")
    counts = [197]
    for _ in range(12):
        counts.append(counts[-1] - min(r, (counts[-1] - 1) // 2))
    found = macs_ref.backbone_macs(model, counts[:-1], counts[1:]) / 1e9
    assert found == pytest.approx(gmacs, abs=0.0006)


@pytest.mark.parametrize("name", [n for n in BACKBONES if n not in ("vit_tiny", "deit3_small")])
@pytest.mark.parametrize("position", ["after_attention", "after_block"])
def test_macs_are_those_of_the_executed_graph(name, position):
    """The oracle forms every product explicitly, so a counter of products sees them all."""
    model, image = prepared(BACKBONES[name])

    def drop_last(view: View) -> Reduction:
        n = len(view.sizes)
        destination = torch.tensor([*range(n - 1), -1])
        return Reduction(view.tokens[:-1], view.sizes[:-1], destination)

    with FlopCounterMode(display=False) as counter:
        out = forward(model, image, drop_last, position)
    assert out.tokens[-1] == out.tokens[0] - len(model.blocks)
    closed = macs_ref.backbone_macs(model, out.n_attention, out.n_mlp)
    assert counter.get_total_flops() == 2 * closed


def test_method_macs_by_hand():
    """10 tokens of width 24, stopped in block 3 with 4 in the background."""
    stop = {"n_patches": 9, "n_columns": 10, "stopped": True}
    walk = macs_ref.asap_macs(10, 24, n_walked=3, n_background=4, **stop)
    assert walk == {
        "vectors": 600, "matrix": 2000, "distances": 90, "pooling": 96, "anchor": 0, "plugin": 0,
        "total": 2786,
    }  # fmt: skip
    centre = macs_ref.asap_macs(10, 24, n_walked=3, n_background=4, pca=True, plugin=7, **stop)
    assert centre["anchor"] == 810 and centre["total"] == 2786 + 810 + 7
    missed = macs_ref.asap_macs(10, 24, n_walked=11, stopped=False)
    assert missed["total"] == missed["vectors"] == 2200
    rollout = macs_ref.asap_macs(10, 24, n_walked=3, stopped=False, order="rollout")
    assert rollout["total"] == rollout["matrix"] == 2000
    forgetful = macs_ref.asap_macs(10, 24, n_walked=3, accumulate=False, pool=False, **stop)
    assert forgetful["total"] == 690
    assert macs_ref.tome_macs(99, 98, 64, 13, 192)["total"] == 99 * 98 * 64 + 13 * 192


# --- the draws --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn() -> list[Draw]:
    return draws(200, seed=0)


@pytest.mark.slow
def test_draws_stop_where_they_should(drawn):
    built = in_float64()
    stops = collections.Counter()
    for draw in drawn:
        result = reference_asap(
            built[draw.model_key], draw.image, random_anchor=draw.image_id % 25, **draw.options
        )
        assert result.stop_block == draw.target_block, draw.options
        assert torch.isfinite(result.logits).all()
        stops[result.stop_block] += 1
    assert sum(count >= 10 for block, count in stops.items() if block > 0) >= 5, stops
    assert stops[0] >= 10


def test_draws_reach_every_option(drawn):
    assert {d.model_key for d in drawn} == set(models())
    values = collections.defaultdict(set)
    for draw in drawn:
        for name, value in draw.options.items():
            values[name].add(value)
    assert set(values) == set(Options.__dataclass_fields__)
    assert values["anchor"] == {"mass", "random", "pca", "quiet"}  # "sink" is the default
    assert values["plugin"] == {"diffusion", "features", "keys"}
    assert max(len(v) for name, v in values.items() if name != "tau") >= 5


def test_draws_repeat(drawn):
    again = draws(20, seed=0)
    for a, b in zip(drawn[:20], again, strict=True):
        assert a.options == b.options and a.model_key == b.model_key
        assert torch.equal(a.image, b.image)
    assert draws(20, seed=1)[3].options != again[3].options
