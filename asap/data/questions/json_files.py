"""Reads JSON files that people wrote: what is wrong is said in one line, with the place."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from asap.errors import RequestError, one_line

_SHOWN = 60  # signs of a value in an error


def content_of(file: Path, expected: str, called: str | None = None) -> str:
    """The text of a file in UTF-8, without a byte order mark. RequestError if it cannot be read.

    expected: what the file should hold; called: its name in the error, else its path.
    """
    try:
        return file.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text in UTF-8"
        raise RequestError(f"{called or file} cannot be read ({reason}): {expected}") from None


def json_lines(
    content: str, file: Path, expected: str
) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """Number, place in words and object of every line that is not empty; RequestError if a line is
    no JSON object.
    """
    # Not splitlines(), which also ends lines at signs that JSON allows inside a text.
    for number, text in enumerate(content.split("\n"), 1):
        if not text.strip():
            continue
        where = f"line {number} of {file}"
        given = _parsed(text, where, expected)
        if not isinstance(given, dict):
            raise RequestError(f"{where} is {text.strip()[:_SHOWN]!r}: {expected}")
        yield number, where, given


def document(file: Path, expected: str) -> Any:
    """The JSON value of a file. RequestError if it cannot be read."""
    return _parsed(content_of(file, expected), str(file), expected)


def objects(file: Path, expected: str) -> list[tuple[str, dict[str, Any]]]:
    """Place in words and content of the objects of a file: one a line, or all in one JSON list.

    RequestError if it cannot be read, holds something else, or no object at all.
    """
    content = content_of(file, expected)
    if content.lstrip().startswith("["):
        listed = numbered(_parsed(content, str(file), expected), file, expected)
    else:
        listed = [(where, one) for _, where, one in json_lines(content, file, expected)]
    if not listed:
        raise RequestError(f"{file} has no question: {expected}")
    return listed


def numbered(value: Any, file: Path, expected: str) -> list[tuple[str, dict[str, Any]]]:
    """The objects of a JSON list with their places in words; RequestError if it is none."""
    if not isinstance(value, list):
        raise RequestError(f"{file} has {str(value)[:_SHOWN]!r} where a list should be: {expected}")
    for i, one in enumerate(value, 1):
        if not isinstance(one, dict):
            raise RequestError(f"entry {i} of {file} is {str(one)[:_SHOWN]!r}: {expected}")
    return [(f"entry {i} of {file}", one) for i, one in enumerate(value, 1)]


def by_name(value: Any, file: Path, expected: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, place in words and content of the objects of a JSON object; RequestError if it is none,
    or holds something else, or nothing.
    """
    if not isinstance(value, dict) or not value:
        raise RequestError(
            f"{file} has {str(value)[:_SHOWN]!r} where an object should be: {expected}"
        )
    for name, one in value.items():
        if not isinstance(one, dict):
            raise RequestError(f"{name!r} of {file} is {str(one)[:_SHOWN]!r}: {expected}")
    return [(name, f"{name!r} of {file}", one) for name, one in value.items()]


def entry(given: Mapping[str, Any], name: str, where: str, kind: type = str) -> Any:
    """The value of a field; RequestError if it is missing or of another kind."""
    if name not in given:
        raise RequestError(f"{where} has no field {name!r}: download the file again")
    if kind is str:
        return text_of(given[name], name, where)
    value = given[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise RequestError(f"{where} has {name}={shown(value)}: download the file again")
    return value


def shown(value: Any) -> str:
    """A value of a file as an error shows it: short, and on one line whatever is in it."""
    return repr(value)[:_SHOWN]


def text_of(value: Any, name: str, where: str) -> str:
    """The text of a field; RequestError if it is none, or says nothing."""
    if not isinstance(value, str) or not value.strip():
        raise RequestError(f"{where} has {name}={shown(value)}: give a text")
    return whole_text(value, name, where)


def whole_text(value: Any, name: str, where: str) -> str:
    """The text of a field that may say nothing; RequestError if it is none, or not Unicode."""
    if not isinstance(value, str):
        raise RequestError(f"{where} has {name}={shown(value)}: download the file again")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise RequestError(f"{where} has half a sign in {name}: write it as UTF-8") from None
    return value


def name_of(value: Any, name: str, where: str) -> str:
    """The text of a field that tables show, or a number as a text."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    text = text_of(value, name, where)
    if not text.isprintable():
        raise RequestError(f"{where} has {name}={shown(value)}: give one line of text")
    return text


def _parsed(text: str, where: str, expected: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{where} is not JSON ({one_line(error)}): {expected}") from None
