"""The backbone as it is: the baseline of every table."""

from dataclasses import dataclass
from typing import ClassVar

from asap.methods.base import Method


@dataclass(frozen=True)
class Dense(Method):
    """No reduction."""

    reduces: ClassVar[bool] = False

    def acts_in(self, block: int, depth: int) -> bool:
        return False
