"""The one exception that means: the request itself is wrong; and the words of its message."""

from collections.abc import Iterable
from difflib import get_close_matches


class RequestError(Exception):
    """A request that cannot be carried out: bad config, missing data or weights.

    The message is one line that names the thing, its value and the remedy. Commands print it and
    exit 2.
    """


def counted(n: int, thing: str, things: str | None = None) -> str:
    """Such as "1 picture" and "1,200 pictures"; things: the plural, where it is not thing + s."""
    return f"{n:,} {thing if n == 1 else things or f'{thing}s'}"


_ASIDE = ("Config search path:", "See https://hydra.cc", "object_type=")


def one_line(error: BaseException | str, kind: bool = False) -> str:
    """The message of an error (or a text) on one line, without lines for Hydra's developers.

    kind: the name of the error's class first, for errors of a library or the machine. An error
    without a message is its class's name.
    """
    lines = [line.strip() for line in str(error).splitlines()]
    aside = [i for i, line in enumerate(lines) if line.startswith(_ASIDE)]
    said = " ".join(" ".join(lines[: aside[0] if aside else None]).split())
    if isinstance(error, str):
        return said
    name = type(error).__name__
    return f"{name}: {said}" if kind and said else said or name


def meant(word: str, known: Iterable[str], before: str = "", after: str = "") -> str:
    """A question for the closest of the known words, between two texts; empty if none is close."""
    near = get_close_matches(word, list(known), 1)
    return f"{before}did you mean {near[0]!r}?{after}" if near else ""
