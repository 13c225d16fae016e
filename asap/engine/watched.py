"""A method that is watched while it runs: for forecasts of costs, and for pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from asap.core.anatomy import Anatomy
from asap.methods.base import Column, Decision, Method, Needs, Observation, Site


@dataclass(frozen=True)
class Watched(Method):
    """Does the same as `inner`. Subclasses read its answers, or replace them.

    `inner` must not act inside the attention.
    """

    inner: Method = field(default_factory=Method)

    def __post_init__(self) -> None:
        """Skip the checks of options: these fields are not set by users."""

    @property
    def needs(self) -> Needs:
        return self.inner.needs

    @property
    def draws(self) -> bool:
        return self.inner.draws

    @property
    def trace_columns(self) -> tuple[Column, ...]:  # type: ignore[override]
        return self.inner.trace_columns

    @property
    def position(self) -> str:  # type: ignore[override]
        return self.inner.position

    @property
    def proportional_attention(self) -> bool:  # type: ignore[override]
        return self.inner.proportional_attention

    def acts_in(self, block: int, depth: int) -> bool:
        return self.inner.acts_in(block, depth)

    def start(self, anatomy: Anatomy, images: int, like: Tensor) -> Any:
        return self.inner.start(anatomy, images, like)

    def draw(self, anatomy: Anatomy, image_ids: Sequence[int]) -> Tensor | None:
        return self.inner.draw(anatomy, image_ids)

    def observe(self, site: Site) -> Observation | None:
        return self.inner.observe(site)

    def reduce(self, site: Site, chosen: Bool[Tensor, "b"] | None) -> Decision | None:
        return self.inner.reduce(site, chosen)
