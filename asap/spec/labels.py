"""How labels show options: `ASAP (pool.) tau=3 K=4`, in every table, page and file."""

from collections.abc import Iterable
from typing import Any

_SYMBOLS = {"clusters": "K"}  # options that have a symbol in the paper and no shorter name


def labelled(label: str, options: Iterable[tuple[str, Any]]) -> str:
    """The label followed by the options that it does not show yet, as name=value."""
    shown = (f"{_SYMBOLS.get(name, name)}={_plain(value)}" for name, value in options)
    return " ".join([label, *(text for text in shown if text not in label)])


def _plain(value: Any) -> str:
    """3 for 3.0; other floats in full, since labels distinguish settings."""
    short = f"{value:g}" if isinstance(value, float) else ""
    return short if short and float(short) == value else str(value)
