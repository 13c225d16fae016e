"""The prompt of a question: split at the picture, tokenised apart, with a tokenizer made here."""

import re
from pathlib import Path
from textwrap import dedent

import pytest
from made_llava import TEMPLATE, bpe_tokenizer

from asap.backbones.llava.prompt import PromptFrame

QUESTIONS = ["Is there a three?", "", "Wie viele Ziffern? ß 漢", "two\nlines", "<s> and </s>"]


def frame(template: str = TEMPLATE, **settings) -> PromptFrame:
    tokenizer = bpe_tokenizer(template)
    for name, value in settings.items():
        setattr(tokenizer, name, value)
    return PromptFrame(tokenizer, template, "<image>", (2,))


@pytest.mark.parametrize("question", QUESTIONS[:4])
def test_prefix_and_suffix_are_the_template_without_the_placeholder(question):
    made = frame()
    prompt = made.split(question)
    text = [
        made.tokenizer.decode(ids, skip_special_tokens=False)
        for ids in (prompt.prefix, prompt.suffix)
    ]
    assert text == ["<s>USER: ", f"\n{question} ASSISTANT:"]


def test_the_beginning_comes_once_and_only_in_front():
    for template in (TEMPLATE, "{{ bos_token }}" + TEMPLATE):
        prompt = frame(template).split("Is there a three?")
        assert (prompt.prefix.count(1), prompt.suffix.count(1)) == (1, 0)
        assert prompt.prefix[0] == 1
        assert 2 not in prompt.prefix + prompt.suffix


def test_a_tokenizer_that_begins_with_nothing_is_left_so():
    from tokenizers import processors

    made = frame()
    plain = processors.TemplateProcessing(single="$A", pair="$A $B", special_tokens=[])
    made.tokenizer.backend_tokenizer.post_processor = plain
    assert 1 not in made.split("Is it?").prefix


def test_the_parts_are_tokenised_apart():
    """Joined before, tokens would cross the placeholder's place."""
    made = frame("{{ 't<image>he' }}")
    prompt = made.split("?")
    whole, *parts = (
        made.tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("the", "t", "he")
    )
    assert [list(prompt.prefix[1:]), list(prompt.suffix)] == parts
    assert [*parts[0], *parts[1]] != whole


@pytest.mark.parametrize("question", ["a <image> here", "<image>"])
def test_a_placeholder_in_the_question_is_refused(question):
    with pytest.raises(ValueError, match="has the placeholder '<image>' 2 times"):
        frame().split(question)


def test_an_answer_is_its_text():
    made = frame()
    ids = made.tokenizer(" Yes, there is. ", add_special_tokens=False)["input_ids"]
    assert made.decode([*ids, 2]) == "Yes, there is."
    assert made.decode([2]) == made.decode([]) == ""


VICUNA = (  # what LLaVA's conv_templates["vicuna_v1"] puts before a question with <image>
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions. USER: <image>\n"
)


@pytest.mark.parametrize("question", ["Is it?\nAnswer.", " {{ x }}  \n", QUESTIONS[2]])
def test_the_documented_template_is_llavas_own_prompt(question):
    guide = Path(__file__).resolve().parents[1] / "docs" / "reproduce-llava.md"
    [block] = re.findall(r"```jinja\n(.*?)```", guide.read_text("utf-8"), re.DOTALL)
    made = frame(dedent(f"  {block.strip()}\n"))
    made.check()
    assert made._rendered(question) == f"{VICUNA}{question} ASSISTANT:"
    assert not made.lacks_vicunas_sentence


def test_a_template_of_vicuna_without_its_sentence_is_known():
    assert frame().lacks_vicunas_sentence
    assert not frame(TEMPLATE.replace("upper()", "title()")).lacks_vicunas_sentence
