"""References, not methods: the visual rows of objects alone, or all others, by the true masks."""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Bool, Float
from torch import Tensor

from asap.methods.language.base import BEFORE_FIRST, LanguageDecision, LanguageSite, Pruner, Span
from asap.methods.option_checks import choice


@dataclass(frozen=True)
class ReferenceRows(Pruner):
    """Keeps the visual rows that hold mostly patches of objects, or only the others.

    Before the first layer, and positions count anew, as if the other rows had never been there.
    They show where in a picture the answers are. If a picture has no such row, none stays.

    keep: object | background.
    """

    needs_objects: ClassVar[bool] = True
    keep: str = "object"

    def __post_init__(self) -> None:
        super().__post_init__()
        choice("keep", self.keep, "object", "background")

    def acts_after(self, layer: int, depth: int) -> bool:
        return layer == BEFORE_FIRST

    def start(
        self, rows: Float[Tensor, "n dim"], span: Span, objects: Bool[Tensor, "visual"] | None
    ) -> Bool[Tensor, "visual"]:
        if objects is None:
            raise ValueError(
                f"keep={self.keep!r} needs masks of the objects, which these data do not have: "
                "use data=digits_qa"
            )
        objects = objects.to(rows.device)
        return objects if self.keep == "object" else ~objects

    def decide(self, site: LanguageSite) -> LanguageDecision | None:
        return LanguageDecision(site.state.nonzero()[:, 0], positions="reindex")
