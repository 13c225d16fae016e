"""The backbone as it is: the baseline of every table."""

from dataclasses import dataclass

from asap.methods.base import Method


@dataclass(frozen=True)
class Dense(Method):
    """No reduction."""

    @property
    def reduces(self) -> bool:
        return False

    def acts_in(self, block: int, depth: int) -> bool:
        return False
