"""How questions are answered, as a run asks for it."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class AnswerSpec:
    """How a vision-language model answers questions. Part of the key of their records.

    order: of an image's rows before the language model: method: as its vision method leaves them;
        spatial: by the first patch that each stands for.
    max_new_tokens: at which an answer is cut; null: by the benchmark, else by the kind of the
        question.
    crops: of a picture that is cut into crops (LLaVA-NeXT), the order of the crops' rows behind
        those of the whole picture: grid: by their place in the common grid of patches; crop: crop
        after crop.
    """

    order: str = "method"
    max_new_tokens: int | None = None
    crops: str = "grid"

    def identity(self, cuts: bool) -> dict[str, Any]:
        """What of it changes answers; cuts: of a model that cuts pictures into crops."""
        return {name: v for name, v in asdict(self).items() if cuts or name != "crops"}
