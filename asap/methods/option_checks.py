"""Which values an option may have: the checks that every method uses."""

import types
import typing
from dataclasses import fields
from typing import Any


def require(holds: bool, name: str, value: Any, allowed: str) -> None:
    """Raise ValueError that names an option, its value and what is allowed."""
    if not holds:
        raise ValueError(f"{name}={value!r} is not possible: {name} must be {allowed}")


def choice(name: str, value: Any, *allowed: str) -> None:
    """Raise ValueError unless the option is one of the allowed words."""
    require(value in allowed, name, value, "one of " + ", ".join(allowed))


def kind_name(kind: Any) -> str:
    """The name of an option's type in an error message."""
    return kind.__name__ if isinstance(kind, type) else str(kind)


def is_a(value: Any, kind: Any) -> bool:
    """Whether an option's value is of its annotated type; types not listed here pass."""
    if isinstance(kind, types.UnionType):
        return any(is_a(value, part) for part in typing.get_args(kind))
    if kind is types.NoneType:
        return value is None
    if kind is bool or isinstance(value, bool):
        return isinstance(value, bool) and kind not in (int, float, str)
    kinds = {int: int, float: (int, float), str: str}.get(kind)
    return kinds is None or isinstance(value, kinds)


def check_types(options: Any) -> None:
    """Turn the lists of a frozen dataclass into tuples, so that it can be hashed; check its types.

    Raises ValueError for an option of the wrong type.
    """
    for option in fields(options):
        value = getattr(options, option.name)
        if isinstance(value, list):
            value = tuple(value)
            object.__setattr__(options, option.name, value)
        right = is_a(value, option.type)
        require(right, option.name, value, f"of type {kind_name(option.type)}")
