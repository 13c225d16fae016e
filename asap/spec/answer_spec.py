"""How questions are answered, as a run asks for it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class AnswerSpec:
    """How a vision-language model answers questions. Part of the key of their records.

    order: of an image's rows before the language model: method: as its vision method leaves them;
        spatial: by the first patch that each stands for.
    max_new_tokens: at which an answer is cut; null: by the kind of the question.
    """

    order: str = "method"
    max_new_tokens: int | None = None
