"""FastV, SparseVLM and the reference rows in the walk over a language model."""

import pytest
import torch
from language_models import language_of, prompt_of, small_model
from reference.fastv_ref import reference_fastv
from reference.sparsevlm_ref import clusters, reference_sparsevlm

from asap.core.density_peaks import density_peaks
from asap.engine.decoder import Decoder
from asap.errors import RequestError
from asap.methods.language.base import LanguageDecision, Span
from asap.methods.language.fastv import FastV
from asap.methods.language.reference_rows import ReferenceRows
from asap.methods.language.sparsevlm import SparseVLM
from asap.methods.registry import build_pruner, find_pruner, name_of, pruner_names

TOKENS = [7, 9, 21, 3, 30, 11]


def stepped(decoder: Decoder, prompt) -> list[torch.Tensor]:
    """Logits of the prefill and of six decode steps."""
    found = decoder.prefill(*prompt, room=len(TOKENS))
    return [found.logits, *(decoder.step(found, token) for token in TOKENS)]


def rows_of(model, prompt) -> torch.Tensor:
    visual, prefix, suffix = prompt
    weight = model.model.embed_tokens.weight.detach()
    return torch.cat([weight[prefix], visual, weight[suffix]])


def spans_of(prompt) -> tuple[Span, None]:
    return Span(len(prompt[1]), len(prompt[0]), len(prompt[2])), None


def agree(found: list[torch.Tensor], expected: list[torch.Tensor]) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "family, kv_heads, seed", [("llama", 4, 0), ("llama", 2, 1), ("mistral", 2, 2)]
)
@pytest.mark.parametrize("layer, rank", [(1, 6), (3, 13)])
def test_fastv_against_masks_on_the_full_length(family, kv_heads, seed, layer, rank) -> None:
    """Acceptance test 4: the same selection, and logits to 1e-12 in float64."""
    model = small_model(family, kv_heads, seed=seed)
    prompt = prompt_of(seed=seed)
    decoder = Decoder(language_of(model), FastV(layer=layer, rank=rank))
    with torch.no_grad():
        expected = reference_fastv(model, rows_of(model, prompt), 3, 20, layer, rank, TOKENS)
    assert expected.margin > 1e-9
    found = decoder.prefill(*prompt, room=0)
    assert found.visual.tolist() == expected.kept
    agree(stepped(decoder, prompt), expected.logits)


LISTS = [((0, 1, 2), (20, 9, 4)), ((1,), (12,)), ((0, 2), (39, 1))]


@pytest.mark.parametrize("seed, kv_heads", [(0, 4), (1, 2)])
@pytest.mark.parametrize("layers, keep", LISTS)
def test_sparsevlm_against_computing_everything_again(seed, kv_heads, layers, keep) -> None:
    """Acceptance test 5, our own reference."""
    model = small_model(kv_heads=kv_heads, seed=seed)
    prompt = prompt_of(visual=40, suffix=9, seed=seed)
    pruner = SparseVLM(layers, keep)
    decoder = Decoder(language_of(model), pruner)
    with torch.no_grad():
        rows = rows_of(model, prompt)
        expected = reference_sparsevlm(model, rows, 3, 40, list(layers), list(keep), TOKENS)
    assert expected.margin > 1e-9
    state = pruner.start(rows, *spans_of(prompt))
    assert state.index.tolist() == expected.raters
    found = decoder.prefill(*prompt, room=0)
    assert list(found.rows) == expected.lengths
    agree(stepped(decoder, prompt), expected.logits)


@pytest.mark.parametrize("m, count", [(1, 1), (9, 1), (16, 2), (24, 3), (40, 5)])
def test_density_peaks_against_plain_loops(m: int, count: int) -> None:
    rows = torch.randn(m, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(m))
    expected = torch.stack([rows[group].mean(0) for group in clusters(rows, count)])
    torch.testing.assert_close(density_peaks(rows, count), expected, rtol=1e-12, atol=1e-12)


def test_density_peaks_of_equal_rows_has_a_member_in_every_cluster() -> None:
    assert (density_peaks(torch.ones(20, 4), 3) == 1).all()


# Acceptance test 6: 35 ids before 576 visual rows and 27 behind, 32 layers.
LENGTHS = {
    "fastv 98": (FastV(2, 98), [638] * 2 + [160] * 30),
    "fastv 30": (FastV(2, 30), [638] * 2 + [92] * 30),
    "fastv 50 %": (FastV(3), [638] * 3 + [350] * 29),
    "sparsevlm 64": (SparseVLM(), [638] * 3 + [144] * 4 + [94] * 9 + [80] * 16),
    "sparsevlm 128": (
        SparseVLM(keep=(303, 110, 36)), [638] * 3 + [374] * 4 + [179] * 9 + [101] * 16
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LENGTHS)
def test_rows_that_enter_each_layer_of_llava(name: str) -> None:
    pruner, rows = LENGTHS[name]
    model = small_model(layers=32, width=8, heads=2, kv_heads=2, dtype=torch.float32)
    prompt = prompt_of(8, 35, 576, 27)
    pruner.check(32, 576)
    found = Decoder(language_of(model), pruner).generate(*prompt, 1, eos=[])
    assert list(found.rows) == rows and found.kv_rows == sum(rows)
    if isinstance(pruner, FastV):
        assert found.macs_pruner == 638 * 8
        assert found.next_positions == (638,) * 32
    else:  # raters, what they read, and clusters
        raters = pruner.start(
            rows_of(model, prompt_of(8, 35, 576, 27)).float(), *spans_of(prompt_of(8, 35, 576, 27))
        )
        read = len(raters.index) * 8 * sum(rows[layer] for layer in (2, 6, 15))
        recycled = {66: (154, 16, 5), 303: (82, 61, 25)}[(pruner.keep or (66,))[0]]
        assert found.macs_pruner == 576 * 27 * 8 + read + 8 * sum(m * m for m in recycled)
        assert found.next_positions == found.rows


OFF = [FastV(rank=20), FastV(rank=1000), FastV(ratio=0.0), SparseVLM((), ())]


@pytest.mark.parametrize("pruner", OFF)
def test_a_pruner_that_is_off_changes_no_bit(pruner) -> None:
    """Acceptance test 11."""
    language, prompt = language_of(small_model(dtype=torch.float32)), prompt_of()
    full, off = Decoder(language), Decoder(language, pruner)
    for one, other in zip(stepped(full, prompt), stepped(off, prompt), strict=True):
        assert (one == other).all()
    assert off.generate(*prompt, 1, eos=[]).rows == (28,) * 4


def test_positions_of_the_rows_in_each_layer() -> None:
    """Acceptance test 13."""
    language, prompt = language_of(small_model()), prompt_of(visual=40)
    kept = Decoder(language, FastV(2, 6)).prefill(*prompt, room=2)
    assert [p.tolist() for p in kept.positions[:2]] == [list(range(48))] * 2
    stay = [0, 1, 2, *(3 + kept.visual).tolist(), *range(43, 48)]
    assert [p.tolist() for p in kept.positions[2:]] == [stay] * 2
    anew = Decoder(language, SparseVLM((0, 2), (20, 5))).prefill(*prompt, room=2)
    assert anew.rows == (48, 29, 29, 14)  # 20 + 1 and 5 + 1 visual rows
    assert all(p.tolist() == list(range(n)) for p, n in zip(anew.positions, anew.rows, strict=True))
    for found, starts in ((kept, (48,) * 4), (anew, anew.rows)):
        for t in range(2):
            assert [cache.position for cache in found.caches] == [n + t for n in starts]
            Decoder(language).step(found, 1)


def test_ties_go_to_the_lowest_index() -> None:
    """Equal visual rows at the first layer: those the last row sees alike go by their index."""
    model = small_model()
    for layer in model.model.layers:
        layer.self_attn.q_proj.weight.data.zero_()  # every row attends to all alike
    found = Decoder(language_of(model), FastV(1, 7)).prefill(*prompt_of(), room=0)
    assert found.visual.tolist() == list(range(7))


def test_the_published_point_in_proportion() -> None:
    """Of 4 layers and 64 rows: 7, 3, 2 rows stay behind layers 0, 1, 2, and 2, 1, 1 merged ones."""
    decoder = Decoder(language_of(small_model()), SparseVLM())
    SparseVLM().check(4, 64)
    assert decoder.prefill(*prompt_of(visual=64), room=0).rows == (72, 17, 12, 11)
    assert [layer for layer in range(24) if SparseVLM().acts_after(layer, 24)] == [2, 5, 11]
    assert [layer for layer in range(3) if SparseVLM().acts_after(layer, 3)] == [0, 1]
    assert not SparseVLM().acts_after(0, 1)


def test_a_single_text_row_rates() -> None:
    """Its share is 1, as is the mean."""
    prompt = prompt_of(suffix=1)
    state = SparseVLM().start(rows_of(small_model(), prompt), *spans_of(prompt))
    assert state.index.tolist() == [0]


def test_a_single_visual_row_and_none() -> None:
    language = language_of(small_model())
    for visual in (0, 1):
        prompt = prompt_of(visual=visual)
        full = Decoder(language).generate(*prompt, 4, eos=[])
        for pruner in (FastV(rank=1), SparseVLM((0, 1), (3, 1)), FastV()):
            found = Decoder(language, pruner).generate(*prompt, 4, eos=[])
            assert found.ids == full.ids and found.rows == full.rows


def test_reference_rows_are_as_if_the_others_had_never_been_there() -> None:
    language = language_of(small_model())
    visual, prefix, suffix = prompt_of()
    objects = torch.zeros(20, dtype=torch.bool)
    objects[[2, 3, 11]] = True
    for keep, rows in (("object", objects), ("background", ~objects)):
        decoder = Decoder(language, ReferenceRows(keep=keep))
        found = decoder.generate(visual, prefix, suffix, 4, [], objects)
        alone = Decoder(language).generate(visual[rows], prefix, suffix, 4, [])
        assert found.ids == alone.ids and (found.first == alone.first).all()
        assert found.rows == alone.rows == (8 + int(rows.sum()),) * 4
        assert found.visual == tuple(rows.nonzero()[:, 0].tolist())
        assert found.next_positions == alone.next_positions and found.macs_pruner == 0
    with pytest.raises(ValueError, match="needs masks of the objects"):
        Decoder(language, ReferenceRows()).generate(visual, prefix, suffix, 4, [])


ALL = [None, FastV(rank=6), SparseVLM((0, 2), (20, 5)), ReferenceRows()]


@pytest.mark.parametrize("pruner", ALL)
def test_half_precision_has_the_rows_of_full_precision(pruner) -> None:
    """How many rows go does not depend on rounding; choices are made in float32."""
    objects = torch.arange(40) % 3 == 0
    found = [
        Decoder(language_of(small_model(dtype=kind)), pruner)
        .generate(*prompt_of(visual=40), 3, [], objects)
        for kind in (torch.bfloat16, torch.float32)
    ]  # fmt: skip
    half, full = found
    assert (half.rows, half.macs_pruner) == (full.rows, full.macs_pruner) and half.finite
    assert half.first.dtype == torch.float32 and half.next_positions == full.next_positions


@pytest.mark.gpu
@pytest.mark.parametrize("pruner", ALL)
def test_a_gpu_answers_as_the_cpu(pruner) -> None:
    """In float64, where rounding turns nothing."""
    visual, prefix, suffix = prompt_of(visual=40)
    objects = torch.arange(40) % 3 == 0
    language = language_of(small_model(kv_heads=2))
    here = Decoder(language, pruner).generate(visual, prefix, suffix, 4, [], objects)
    there = Decoder(language.cuda(), pruner).generate(
        visual.cuda(), prefix, suffix, 4, [], objects.cuda()
    )
    assert (here.ids, here.rows, here.visual) == (there.ids, there.rows, there.visual)
    torch.testing.assert_close(here.first, there.first, rtol=1e-6, atol=1e-6)


def test_merged_rows_need_positions() -> None:
    with pytest.raises(ValueError, match="use positions='reindex'"):
        LanguageDecision(torch.arange(2), merged=torch.zeros(1, 4))


IMPOSSIBLE = [
    ("fastv", {"layer": 0}, "layer=0 .*at least 1"),
    ("fastv", {"rank": 0}, "rank=0 .*at least 1"),
    ("fastv", {"ratio": 1.0}, r"ratio=1.0 .*in \[0, 1\)"),
    ("fastv", {"ratio": float("nan")}, r"ratio=nan .*in \[0, 1\)"),
    ("fastv", {"rank": 4, "ratio": 0.5}, "ratio=0.5 .*null beside rank=4"),
    ("fastv", {"rnak": 4}, "no option 'rnak': did you mean 'rank'"),
    ("fastw", {}, "'fastw' is unknown: did you mean 'fastv'"),
    ("tome", {}, "'tome' is unknown: .*use one of fastv"),
    ("sparsevlm", {"layers": [2, 6]}, "keep=None .*2 numbers, one for each layer"),
    ("sparsevlm", {"layers": [6, 2, 15]}, r"layers=\(6, 2, 15\) .*rising"),
    ("sparsevlm", {"layers": [-1, 2, 15]}, r"layers=\(-1, 2, 15\) .*at least 0"),
    ("sparsevlm", {"keep": [66, 30, 0]}, r"keep=\(66, 30, 0\) .*at least 1"),
    ("sparsevlm", {"keep": [66, True, 17]}, r"keep=\(66, True, 17\) .*whole numbers"),
    ("reference_rows", {"keep": "objects"}, "keep='objects' .*object, background"),
]


@pytest.mark.parametrize("name, options, said", IMPOSSIBLE)
def test_an_impossible_option_is_one_line(name: str, options: dict, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        build_pruner(name, options)


UNFIT = [
    (FastV(layer=4, rank=3), "layer=4 .*below 4, the model's layers"),
    (FastV(rank=65), "rank=65 .*at most 64, the visual rows"),
    (SparseVLM((0, 1, 3), (9, 5, 3)), r"layers=\(0, 1, 3\) .*below 3, the model's last layer"),
    (SparseVLM((0, 1, 2), (65, 5, 3)), r"keep=\(65, 5, 3\) .*at most 64"),
]


@pytest.mark.parametrize("pruner, said", UNFIT)
def test_options_that_do_not_fit_a_model(pruner, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        pruner.check(4, 64)


def test_pruners_are_found_by_their_file(tmp_path, monkeypatch) -> None:
    assert pruner_names() == ("fastv", "reference_rows", "sparsevlm")
    assert name_of(find_pruner("fastv")) == "fastv"
    (tmp_path / "own_pruner.py").write_text(
        "from asap.methods.language.fastv import FastV\n\n\nclass Own(FastV):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert build_pruner("own_pruner", {"rank": 3}).identity() == {
        "layer": 2, "rank": 3, "ratio": None,
    }  # fmt: skip
