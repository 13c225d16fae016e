"""The layout of a backbone's tokens."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Anatomy:
    """The layout of a backbone's tokens: what a method may know of it."""

    name: str
    depth: int  # blocks
    prefix: int  # tokens before the patches: class, distillation, register tokens
    patches: int
    class_token: bool
    width: int = 0  # channels of a token; 0 = not stated
    attention_width: int = 0  # channels of a token's query, key or value, all heads together
    left_out: int = 0  # blocks of the encoder behind these, which are not run

    @property
    def tokens(self) -> int:
        return self.prefix + self.patches
