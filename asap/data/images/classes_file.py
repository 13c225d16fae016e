"""Reads the list of the model's classes from a file: lines of text, or one of three JSON forms."""

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asap.errors import RequestError

_FORMS = (
    "give one class name a line, or JSON: a list of names, a map of names to numbers from 0, or of "
    "numbers from 0 to names or to pairs [WordNet id, name]"
)


def read_classes(path: str | Path) -> tuple[str, ...]:
    """The class names in a file, in the model's order.

    A text file has one name per line; blank lines and white space around a name are ignored. A JSON
    file has a list of names, a map from names to numbers (torchvision's `class_to_idx`), or a map
    from numbers to names or to pairs [WordNet id, name] (Keras' `imagenet_class_index.json`); of a
    pair, the WordNet id is used. Raises RequestError on anything else, on duplicate names or
    numbers, and on numbers that do not count from 0 without a gap.
    """
    option = f"data.classes={str(path)!r}"
    try:
        text = _decoded(Path(path).read_bytes())
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise RequestError(f"{option} cannot be read ({reason}): {_FORMS}") from None
    found = _json(text, option, Path(path).suffix.lower() == ".json")
    lines = (line.strip() for line in re.split(r"\r\n|\n|\r", text))
    names = [line for line in lines if line] if found is None else _of_json(found, option)
    if not names:
        raise RequestError(f"{option} lists no class: {_FORMS}")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise RequestError(f"{option} lists the class {twice[0]!r} twice: leave one of them")
    return tuple(names)


def _json(text: str, option: str, must_be: bool) -> Any:
    """The parsed JSON; None if the text is not JSON, or RequestError if it `must_be`."""
    if not must_be and not text.lstrip().startswith(("[", "{")):
        return None
    try:
        found = json.loads(text, object_pairs_hook=lambda pairs: _object(pairs, option))
    except (ValueError, RecursionError) as error:
        if must_be:
            raise RequestError(f"{option} is not JSON ({error}): {_FORMS}") from None
        return None
    return {} if found is None else found


def _decoded(content: bytes) -> str:
    """Decode UTF-8, or UTF-16 as Windows tools write it, with or without a byte order mark."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    if (at := content.find(b"\0")) < 0:
        return content.decode("utf-8-sig")
    return content.decode("utf-16-le" if at % 2 else "utf-16-be")


def _object(pairs: list[tuple[str, Any]], option: str) -> dict[str, Any]:
    """A JSON object as a dict. RequestError on a duplicate key, which `dict` would overwrite."""
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise RequestError(f"{option} has {key!r} twice: leave one of them")
    return dict(pairs)


def _of_json(found: Any, option: str) -> list[str]:
    """The names, in order, from one of the three JSON forms."""
    if isinstance(found, list):
        return [_name(entry, option) for entry in found]
    if not isinstance(found, dict):
        raise RequestError(f"{option} holds {found!r}, which is neither a list nor a map: {_FORMS}")
    if found and all(type(value) is int for value in found.values()):
        return _numbered({_named(key, option): value for key, value in found.items()}, option)
    number_of: dict[str, int] = {}
    for key, value in found.items():
        if not re.fullmatch(r"0|[1-9]\d{0,8}", key, re.ASCII):
            raise RequestError(
                f"{option} has {key!r}: {value!r}, where {key!r} is not a number: {_FORMS}"
            )
        pair = isinstance(value, list) and len(value) == 2 and isinstance(value[1], str)
        name = _name(value[0] if pair else value, option)
        if name in number_of:
            raise RequestError(f"{option} lists the class {name!r} twice: leave one of them")
        number_of[name] = int(key)
    return _numbered(number_of, option)


def _numbered(number_of: Mapping[str, int], option: str) -> list[str]:
    """The names in the order of their numbers, which must count from 0 without a gap."""
    names = sorted(number_of, key=number_of.__getitem__)
    for expected, name in enumerate(names):
        number = number_of[name]
        if number != expected:
            again = 0 <= number < expected
            wrong = f"two classes have the number {number}" if again else f"{name!r} is {number}"
            after = "" if again else f" where {expected} is due"
            raise RequestError(f"{option}: {wrong}{after}: number the classes from 0 without a gap")
    return names


def _name(entry: Any, option: str) -> str:
    if not isinstance(entry, str):
        raise RequestError(f"{option} has {entry!r} in the place of a class name: {_FORMS}")
    return _named(entry, option)


def _named(name: str, option: str) -> str:
    if not name.strip():
        raise RequestError(f"{option} has a class without a name: {_FORMS}")
    return name
