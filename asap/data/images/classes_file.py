"""A list of the model's classes in a file, as people have it: lines, or JSON in three forms."""

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
    """The class names of a file, in the model's order.

    Text has one name a line; blank lines and white space around a name do not count. JSON has a
    list of names, a map of names to numbers (torchvision's `class_to_idx`), or a map of numbers to
    names or to pairs [WordNet id, name] (Keras' `imagenet_class_index.json`), of which the WordNet
    id counts. Raises RequestError on anything else, on names and numbers that are there twice, and
    on numbers that do not go from 0 without a gap.
    """
    said = f"data.classes={str(path)!r}"
    try:
        text = _decoded(Path(path).read_bytes())
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise RequestError(f"{said} cannot be read ({reason}): {_FORMS}") from None
    found = _json(text, said, Path(path).suffix.lower() == ".json")
    lines = (line.strip() for line in re.split(r"\r\n|\n|\r", text))
    names = [line for line in lines if line] if found is None else _of_json(found, said)
    if not names:
        raise RequestError(f"{said} lists no class: {_FORMS}")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise RequestError(f"{said} lists the class {twice[0]!r} twice: leave one of them")
    return tuple(names)


def _json(text: str, said: str, must_be: bool) -> Any:
    """What JSON holds; None for lines of text, unless they `must_be` JSON."""
    if not must_be and not text.lstrip().startswith(("[", "{")):
        return None
    try:
        found = json.loads(text, object_pairs_hook=lambda pairs: _object(pairs, said))
    except (ValueError, RecursionError) as error:
        if must_be:
            raise RequestError(f"{said} is no JSON ({error}): {_FORMS}") from None
        return None
    return {} if found is None else found


def _decoded(content: bytes) -> str:
    """UTF-8, or UTF-16 as Windows' tools write it, each with or without a mark at the beginning."""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        return content.decode("utf-16")
    if (at := content.find(b"\0")) < 0:
        return content.decode("utf-8-sig")
    return content.decode("utf-16-le" if at % 2 else "utf-16-be")


def _object(pairs: list[tuple[str, Any]], said: str) -> dict[str, Any]:
    """A JSON object, of which a dict would keep the last of several equal keys."""
    for key, count in Counter(key for key, _ in pairs).items():
        if count > 1:
            raise RequestError(f"{said} has {key!r} twice: leave one of them")
    return dict(pairs)


def _of_json(found: Any, said: str) -> list[str]:
    """The names of JSON in one of its three forms, in order."""
    if isinstance(found, list):
        return [_name(entry, said) for entry in found]
    if not isinstance(found, dict):
        raise RequestError(f"{said} holds {found!r}, which is no list or map: {_FORMS}")
    if found and all(type(value) is int for value in found.values()):
        return _numbered({_named(key, said): value for key, value in found.items()}, said)
    number_of: dict[str, int] = {}
    for key, value in found.items():
        if not re.fullmatch(r"0|[1-9]\d{0,8}", key, re.ASCII):
            raise RequestError(
                f"{said} has {key!r}: {value!r}, where {key!r} is no number: {_FORMS}"
            )
        pair = isinstance(value, list) and len(value) == 2 and isinstance(value[1], str)
        name = _name(value[0] if pair else value, said)
        if name in number_of:
            raise RequestError(f"{said} lists the class {name!r} twice: leave one of them")
        number_of[name] = int(key)
    return _numbered(number_of, said)


def _numbered(number_of: Mapping[str, int], said: str) -> list[str]:
    """The names in the order of their numbers, which must go from 0 without a gap."""
    names = sorted(number_of, key=number_of.__getitem__)
    for expected, name in enumerate(names):
        number = number_of[name]
        if number != expected:
            again = 0 <= number < expected
            wrong = f"two classes have the number {number}" if again else f"{name!r} is {number}"
            after = "" if again else f" where {expected} is due"
            raise RequestError(f"{said}: {wrong}{after}: number the classes from 0 without a gap")
    return names


def _name(entry: Any, said: str) -> str:
    if not isinstance(entry, str):
        raise RequestError(f"{said} has {entry!r} in the place of a class name: {_FORMS}")
    return _named(entry, said)


def _named(name: str, said: str) -> str:
    if not name.strip():
        raise RequestError(f"{said} has a class without a name: {_FORMS}")
    return name
