"""The walk over a language model: transformers' own numbers, costs to the unit, what is refused."""

from typing import Any

import pytest
import torch
from language_models import VOCABULARY, language_of, prompt_of, small_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from asap.core.language_macs import LanguageCost
from asap.engine.decoder import Decoder
from asap.errors import RequestError
from asap.methods.language.fastv import FastV

MODELS = [("llama", 4), ("llama", 2), ("mistral", 4), ("mistral", 2)]
VICUNA = LanguageCost(32, 4096, 11008, 32, 32, 128, 32000)
MISTRAL = LanguageCost(32, 4096, 14336, 32, 8, 128, 32000)


def embeddings(model, prompt) -> torch.Tensor:
    """The rows of a prompt as transformers takes them, (1, n, dim)."""
    visual, prefix, suffix = prompt
    before, behind = (model.model.embed_tokens(torch.tensor(ids)) for ids in (prefix, suffix))
    return torch.cat([before, visual.to(before), behind])[None]


@pytest.mark.parametrize("family, kv_heads", MODELS)
def test_a_model_without_a_pruner_is_transformers_own(family: str, kv_heads: int) -> None:
    """Acceptance test 3: logits equal to the last bit in float64, and greedy ids equal."""
    model = small_model(family, kv_heads)
    prompt = prompt_of()
    with torch.no_grad():
        rows = embeddings(model, prompt)
        expected = model(inputs_embeds=rows, logits_to_keep=1).logits[0, 0]
        ids = model.generate(inputs_embeds=rows, max_new_tokens=8, do_sample=False)[0].tolist()
    decoder = Decoder(language_of(model))
    assert (decoder.prefill(*prompt, room=0).logits == expected).all()
    found = decoder.generate(*prompt, max_new_tokens=8, eos=[])
    assert list(found.ids) == ids and found.cut and found.finite
    assert found.rows == (28,) * 4 and found.next_positions == (28,) * 4
    assert found.visual == tuple(range(20)) and found.kv_rows == 4 * 28


def test_float32_and_biases() -> None:
    model = small_model(kv_heads=2, dtype=torch.float32, attention_bias=True, mlp_bias=True)
    prompt = prompt_of()
    with torch.no_grad():
        expected = model(inputs_embeds=embeddings(model, prompt), logits_to_keep=1).logits[0, 0]
    logits = Decoder(language_of(model)).prefill(*prompt, room=0).logits
    torch.testing.assert_close(logits, expected, rtol=1e-5, atol=1e-5)


def test_steps_equal_a_prompt_that_has_their_tokens() -> None:
    model = small_model(kv_heads=2)
    visual, prefix, suffix = prompt_of()
    decoder = Decoder(language_of(model))
    found = decoder.prefill(visual, prefix, suffix, room=2)
    for t, token in enumerate([7, 9]):
        step = decoder.step(found, token)
        again = decoder.prefill(visual, prefix, [*suffix, 7, 9][: len(suffix) + t + 1], room=0)
        torch.testing.assert_close(step, again.logits, rtol=1e-12, atol=1e-12)


def test_an_answer_ends_at_its_end_token_or_is_cut() -> None:
    prompt, decoder = prompt_of(), Decoder(language_of(small_model()))
    ids = decoder.generate(*prompt, max_new_tokens=6, eos=[]).ids
    last = next(t for t in range(1, 6) if ids[t] not in ids[:t])
    ended = decoder.generate(*prompt, max_new_tokens=6, eos=[ids[last]])
    assert ended.ids == ids[:last] and not ended.cut
    empty = decoder.generate(*prompt, max_new_tokens=6, eos=[VOCABULARY - 1, ids[0]])
    assert empty.ids == () and not empty.cut and empty.finite
    one = decoder.generate(*prompt, max_new_tokens=1, eos=[])
    assert one.ids == ids[:1] and one.cut


def test_an_answer_is_cut_where_the_positions_end() -> None:
    """28 rows and two tokens that are read take all 30 positions; the third is the last answer."""
    decoder = Decoder(language_of(small_model(max_position_embeddings=30)))
    found = decoder.generate(*prompt_of(), max_new_tokens=9, eos=[])
    assert len(found.ids) == 3 and found.cut


def test_a_prompt_beyond_the_positions_is_refused_with_both_numbers() -> None:
    decoder = Decoder(language_of(small_model(max_position_embeddings=27)))
    with pytest.raises(ValueError, match=r"28 rows \(20 of them visual\).* 27 positions"):
        decoder.generate(*prompt_of(), max_new_tokens=4, eos=[])


def test_a_prompt_without_text_behind_the_picture_is_refused() -> None:
    with pytest.raises(ValueError, match="no text after the picture"):
        Decoder(language_of(small_model())).generate(*prompt_of(suffix=0), 4, eos=[])


@pytest.mark.parametrize("when", [0, 2])
def test_an_answer_ends_where_logits_are_not_finite(when: int) -> None:
    model = small_model()
    prompt = prompt_of()
    ids = Decoder(language_of(model)).generate(*prompt, max_new_tokens=4, eos=[]).ids
    assert ids[1] not in (*prompt[1], *prompt[2], ids[0])
    if when == 0:
        model.lm_head.weight.data[3] = torch.nan
    else:  # the second token spoils what follows it
        model.model.embed_tokens.weight.data[ids[1]] = torch.inf
    found = Decoder(language_of(model)).generate(*prompt, max_new_tokens=4, eos=[])
    assert not found.finite and not found.cut and found.ids == ids[:when]


def test_half_precision_rounds_no_frequency() -> None:
    """A model converted to bfloat16 rotates by the angles of float32, rounded at the end."""
    language = language_of(small_model(dtype=torch.float32))
    cos, sin = language.rotary()
    halved = language.to(torch.bfloat16).rotary()
    assert halved[0].dtype == torch.bfloat16
    assert (halved[0] == cos.bfloat16()).all() and (halved[1] == sin.bfloat16()).all()


def test_questions_do_not_depend_on_those_before() -> None:
    """Acceptance test 10, of questions: bits."""
    decoder = Decoder(language_of(small_model(dtype=torch.float32)), FastV(rank=5))
    prompts = [prompt_of(seed=seed, visual=20 + seed) for seed in range(3)]
    alone = [decoder.generate(*p, max_new_tokens=4, eos=[]) for p in prompts]
    turned = [decoder.generate(*p, max_new_tokens=4, eos=[]) for p in prompts[::-1]][::-1]
    for one, other in zip(alone, turned, strict=True):
        assert one.ids == other.ids and (one.first == other.first).all()


@pytest.mark.parametrize("family, kv_heads", MODELS)
def test_macs_are_those_of_the_executed_graph(family: str, kv_heads: int) -> None:
    """Acceptance test 12: torch's counter, on transformers' eager model and on the walk."""
    model = small_model(family, kv_heads, attn_implementation="eager")
    language, prompt = language_of(model), prompt_of()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(inputs_embeds=embeddings(model, prompt), logits_to_keep=1)
    assert counter.get_total_flops() == 2 * language.cost.prefill([28] * 4)
    decoder = Decoder(language, FastV(rank=5))
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        found = decoder.prefill(*prompt, room=1)
    assert found.rows == (28, 28, 13, 13)
    assert found.macs == language.cost.prefill(found.rows)
    assert found.macs_pruner == 28 * 32
    assert counter.get_total_flops() == 2 * (found.macs + found.macs_pruner)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        decoder.step(found, 1)
    assert counter.get_total_flops() == 2 * language.cost.decode([29, 29, 14, 14])


def test_caches_hold_what_the_closed_form_says() -> None:
    language = language_of(small_model(kv_heads=2, dtype=torch.float32))
    found = Decoder(language, FastV(rank=5)).prefill(*prompt_of(), room=0)
    held = sum(c.keys.nbytes + c.values.nbytes for c in found.caches)
    assert held == language.cost.kv_bytes(found.rows, 4)


# Rows that enter each layer, TMACs up to the first logits, MiB of the cache in half precision.
PUBLISHED: dict[str, tuple[list[int], str, str]] = {
    "full": ([638] * 32, "4.2385", "319"),
    "230 rows": ([292] * 32, "1.9135", "146"),
    "128 rows": ([190] * 32, "1.2400", "95"),
    "64 rows": ([126] * 32, "0.8203", "63"),
    "FastV 288": ([638] * 2 + [350] * 30, "2.4201", "184"),
    "FastV 98": ([638] * 2 + [160] * 30, "1.2427", "94.9"),
    "FastV 30": ([638] * 2 + [92] * 30, "0.8257", "63.1"),
    "SparseVLM 128": ([638] * 3 + [374] * 4 + [179] * 9 + [101] * 16, "1.3616", "103.7"),
    "SparseVLM 64": ([638] * 3 + [144] * 4 + [94] * 9 + [80] * 16, "0.9465", "72.1"),
    "NeXT": ([2942] * 32, "21.321", "1471"),
    "NeXT 1050": ([1112] * 32, "7.526", "556"),
    "NeXT 640": ([702] * 32, "4.675", "351"),
    "NeXT 320": ([382] * 32, "2.512", "191"),
    "NeXT 160": ([222] * 32, "1.451", "111"),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_costs_of_llava_7b(name: str) -> None:
    rows, tera, mib = PUBLISHED[name]
    found = VICUNA.prefill(rows) / 1e12, VICUNA.kv_bytes(rows, 2) / 2**20
    for number, printed in zip(found, (tera, mib), strict=True):
        assert f"{number:.{len(printed.partition('.')[2])}f}" == printed


def test_further_costs_of_llava_7b() -> None:
    assert VICUNA.row == 202_375_168 and VICUNA.projector(1, 1024) == 20_971_520
    assert VICUNA.decode([638] * 32) / 1e9 == pytest.approx(6.774, abs=5e-4)
    assert VICUNA.kv_bytes([1] * 32, 2) == 2**19 and MISTRAL.kv_bytes([1] * 32, 2) == 2**17


def sliding(model) -> None:
    model.config.sliding_window = 16


def scaled(model) -> None:
    model.config.rope_parameters["rope_type"] = "yarn"


def subclassed(model) -> None:
    kind = type(model.model.layers[1])
    model.model.layers[1].__class__ = type("Faster", (kind,), {})


def quantised(model) -> None:
    model.model.layers[0].mlp.up_proj = torch.nn.Bilinear(2, 2, 2)


@pytest.mark.parametrize(
    "spoil, said",
    [
        (sliding, "sliding_window=16"),
        (scaled, "rope_type='yarn'"),
        (subclassed, r"layers\.1 is .*Faster"),
        (quantised, r"layers\.0\.mlp\.up_proj is .*Bilinear"),
    ],
)
def test_what_the_walk_does_not_know_is_refused_by_name(spoil: Any, said: str) -> None:
    model = small_model("mistral")
    spoil(model)
    with pytest.raises(RequestError, match=said):
        language_of(model)
