"""The prompt of a question: the checkpoint's own conversation frame around picture and text."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """Token ids before and behind the visual rows."""

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]


_ASKED = "Is there a dog?"


@dataclass(frozen=True)
class PromptFrame:
    """Turns questions into token ids, and token ids into answers.

    tokenizer: transformers' own, of the checkpoint. template: the chat template, Jinja.
    placeholder: the text that stands for the picture in it. eos: ids that end an answer.
    """

    tokenizer: Any
    template: str
    placeholder: str
    eos: tuple[int, ...]

    def check(self) -> None:
        """ValueError unless the template makes a prompt of one picture, a question, and some text
        behind the picture."""
        prompt = self.split(_ASKED)
        if _ASKED not in (said := self._rendered(_ASKED)):
            raise ValueError(f"the chat template leaves the question out: {_shortened(said)!r}")
        if not prompt.suffix:
            raise ValueError(f"the chat template ends with the picture: {_shortened(said)!r}")

    @property
    def lacks_vicunas_sentence(self) -> bool:
        """Whether the frame is Vicuna's but for its opening ("A chat between a curious ..."), with
        which LLaVA's authors evaluate and which Hugging Face's templates leave out.
        """
        before = self._rendered(_ASKED).split(self.placeholder)[0]
        return "USER:" in before and "A chat between a curious" not in before

    def split(self, text: str) -> Prompt:
        """The ids around the picture of one question, which is asked alone.

        Both parts are tokenised apart: tokens across the placeholder's place would differ. The
        beginning-of-text id comes once, in front, and no other special token is added. ValueError
        if the frame with this text has no placeholder, or more than one.
        """
        said = self._rendered(text)
        if (found := said.count(self.placeholder)) != 1:
            raise ValueError(
                f"the chat template with this question has the placeholder {self.placeholder!r} "
                f"{found} times, where one picture needs it once: {_shortened(said)!r}"
            )
        before, behind = said.split(self.placeholder)
        prefix, suffix = self._ids(before), self._ids(behind)
        first = self.beginning
        if first is not None and prefix[:1] != (first,):
            prefix = (first, *prefix)
        return Prompt(prefix, suffix)

    def decode(self, ids: Sequence[int]) -> str:
        """The text of an answer, without special tokens and without blanks around it."""
        return self.tokenizer.decode(list(ids), skip_special_tokens=True).strip()

    def _rendered(self, text: str) -> str:
        """The conversation of one turn up to where the answer begins."""
        content = [{"type": "image"}, {"type": "text", "text": text}]
        return self.tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=self.template,
            add_generation_prompt=True,
            tokenize=False,
        )

    def _ids(self, text: str) -> tuple[int, ...]:
        # verbose=False: the decoder itself says which text is too long for the model.
        return tuple(self.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    @property
    def beginning(self) -> int | None:
        """The id that the tokenizer puts before a text; None if it puts none."""
        first = self.tokenizer.bos_token_id
        return first if first in self.tokenizer("")["input_ids"][:1] else None


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else f"{text[:77]}..."
