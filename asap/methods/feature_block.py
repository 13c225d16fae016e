"""After which block a method reduces that was made for the vision tower of a language model.

Such a model reads the output of the last block but one of its encoder; the last one never runs.
"""

from asap.core.anatomy import Anatomy
from asap.methods.option_checks import require

PUBLISHED = 576  # patches that the budgets of the papers are for


def feature_block(block: int | None, anatomy: Anatomy) -> int:
    """The number, from 1, of the block after which the method reduces.

    None: the last but one of the whole encoder: 11 of 12 in a classifier, and the last one where of
    24 blocks 23 are run.
    """
    if block is not None:
        return block
    return min(max(anatomy.depth + anatomy.left_out - 1, 1), anatomy.depth)


def may_be_feature_block(block: int | None, index: int, depth: int) -> bool:
    """Whether to ask the method after block `index` (from 0) of `depth` that are run.

    None: after both of the last two, as the depth alone does not tell which one it is; the method
    leaves everything as it is after the other.
    """
    return index >= depth - 2 if block is None else index == block - 1


def require_feature_block(block: int | None, anatomy: Anatomy | None = None) -> None:
    """Raise ValueError unless `block` is None or the number of a block (of this backbone)."""
    require(block is None or block >= 1, "block", block, "at least 1, or None")
    if anatomy is not None and block is not None:
        allowed = f"at most {anatomy.depth}, the blocks of {anatomy.name}"
        require(block <= anatomy.depth, "block", block, allowed)


def in_proportion(count: int, patches: int) -> int:
    """A published count for 576 patches, for another number of them; at least 1."""
    return max(1, (2 * count * patches + PUBLISHED) // (2 * PUBLISHED))
