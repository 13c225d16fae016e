"""The backbone as it is: the baseline of every table."""

from dataclasses import dataclass

from asap.methods.base import Method, Sharing


@dataclass(frozen=True)
class Dense(Method):
    """No reduction: every block sees all tokens."""

    @property
    def reduces(self) -> bool:
        return False

    def acts_in(self, block: int, depth: int) -> bool:
        return False

    @property
    def sharing(self) -> Sharing:
        """Its images leave the shared prefix before the first block that any setting observes."""
        return Sharing(self, self)
