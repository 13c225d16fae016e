"""What a method declares: what it reads, which columns it writes, how its costs are forecast."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from asap.methods.option_checks import check_types, choice, require

# What a trace has of its own; names that start with "macs" are kept for it too.
_TAKEN = ("tokens", "stop_block", "assignment", "columns", "declared")


class Declared:
    """What a method of any stage says of itself; its options are the fields of a dataclass."""

    def __post_init__(self) -> None:
        """Turn lists into tuples, so that methods can be hashed, and check the options' types.

        Raises ValueError for an option of the wrong type; subclasses check the ranges.
        """
        check_types(self)

    @property
    def reduces(self) -> bool:
        """False if these options leave every example as it is."""
        return True

    @property
    def extension(self) -> bool:
        """True if an option is our extension and not the paper's: tables mark the row."""
        return False


@dataclass(frozen=True)
class Attention:
    """The part of a block's attention that a method reads.

    rows: "all" queries, or the "class" token's alone, which is much cheaper. heads: "each", or
    their "mean". Raises ValueError for anything else.
    """

    rows: str = "all"
    heads: str = "mean"

    def __post_init__(self) -> None:
        choice("rows", self.rows, "all", "class")
        choice("heads", self.heads, "mean", "each")


@dataclass(frozen=True)
class Needs:
    """What a method reads in the blocks where it acts. What it does not need is None.

    tokens: without it, `Site.tokens` may have no channels, which spares a pass over all rows.
    value_norms: the norms of the patches' values, all heads together; cheaper than the values.
    half: maps of a model in half precision may come in float16.
    """

    attention: Attention | None = None
    keys: bool = False
    values: bool = False
    value_norms: bool = False
    tokens: bool = True
    half: bool = False


@runtime_checkable
class KeptState(Protocol):
    """State of a recorded pass: tensors that are written in place, batch after batch."""

    def restart(self) -> None:
        """As before the first block."""
        ...


@dataclass(frozen=True)
class Column:
    """A value per image that a method writes into the trace, through `diagnostics`.

    kind: "int" (missing: -1, so values are never negative) or "float" (missing: NaN). per_block:
    one value for every block. combine: where an image gets several values, the "last" counts, or
    the smallest ("min"). Raises ValueError for another kind or combine, and for a name that is not
    a plain one or that every trace has itself.
    """

    name: str
    kind: Literal["int", "float"]
    per_block: bool = False
    combine: Literal["last", "min"] = "last"

    def __post_init__(self) -> None:
        free = self.name not in _TAKEN and not self.name.startswith("macs")
        require(self.name.isidentifier(), "name", self.name, "a Python identifier")
        require(free, "name", self.name, "another one: every trace has this itself")
        choice("kind", self.kind, "int", "float")
        choice("combine", self.combine, "last", "min")


def once_each(columns: Sequence[Column]) -> None:
    """Raise ValueError if two columns of a method have the same name."""
    names = [column.name for column in columns]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"trace_columns declares {', '.join(twice)} more than once")


@dataclass(frozen=True)
class StopThreshold:
    """How the cost of every setting follows from one pass that reduces nothing.

    An image is reduced once, in the first block where the diagnostic `column` exceeds the option
    `option`, or in a block where it is reduced for every value of it. The method acts in every
    block up to its last one. `amounts`: options that change only what is left.
    """

    option: str
    column: str
    amounts: tuple[str, ...] = ()
