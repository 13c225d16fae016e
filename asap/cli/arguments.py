"""The command line as users type it, brought into the form that Hydra reads.

Hydra requires all flags on one side of the key=value words, and reads a value as a number, a list,
a sweep or a reference wherever it can. Options that hold a text or a path are taken literally.
"""

import logging
import os
import re
import shlex
import sys
from argparse import ArgumentParser
from collections import Counter
from collections.abc import Collection, Sequence
from difflib import get_close_matches
from functools import cache
from importlib.metadata import version
from itertools import zip_longest
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from asap.errors import RequestError

log = logging.getLogger("asap")


def arranged(given: Sequence[str], texts: Collection[str]) -> list[str]:
    """The words of a command line in Hydra's order: flags first, then key=value words.

    The value of an option among `texts` is taken literally; `~/` is the home folder. Hydra still
    interprets null, quotes and references such as ${oc.env:HOME}, unless there is a file of just
    that name, and in a multirun several values. RequestError for unknown flags and for words that
    cannot be read; the message gives a form that works.
    """
    flags, words = _apart(given)
    several = not {"-m", "--multirun", "hydra.mode=MULTIRUN"}.isdisjoint(given)
    return [*flags, *(_readable(word, texts, several) for word in words)]


def typed(key: str, value: str) -> str:
    """What to type in a shell to set an option to exactly this text."""
    if _safe(value):
        return f'"{key}={quoted(value)}"'
    return shlex.quote(f"{key}={quoted(value, Quote.double)}")


def quoted(value: str, quote: Quote = Quote.single) -> str:
    """A text in Hydra's quotes, with `${` escaped so that it is not a reference."""
    plain = re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", value)
    return QuotedString(plain, quote).with_quotes()


def sweeps(word: str) -> bool:
    """True if a word of `arranged` has several values."""
    try:
        return _parser().parse_override(word).is_sweep_override()
    except HydraException:  # a flag
        return False


def _safe(value: str) -> bool:
    """True if a shell does not change it within double quotes, and Hydra within single ones."""
    return re.search(r"""["'$`\\!]""", value) is None


def _apart(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags with their values, and key=value words, which can be typed in any order."""
    for word in given:
        if re.search("[\ud800-\udfff]", word):
            raise RequestError(f"{word!r} is not UTF-8: rename the file, or link to it")
    if "--version" in given:  # the parser would print Hydra's version
        sys.stdout.write(f"asap-vit {version('asap-vit')}\n")
        raise SystemExit(0)
    parser = get_args_parser()
    parser.error = _refuse
    given = _with_value(given, parser)
    words = parser.parse_intermixed_args(given).overrides
    left, flags = Counter(words), []
    for word in given:
        if left[word]:
            left[word] -= 1
        elif word != "--":
            flags.append(word)
    return flags, words


def _with_value(given: Sequence[str], parser: ArgumentParser) -> list[str]:
    """The words, with a value for an --info that has none.

    Otherwise the parser, ours and Hydra's, would take the next word for its value.
    """
    possible = parser._option_string_actions["--info"].choices or ()
    return [
        "--info=all" if word in ("-i", "--info") and after not in possible else word
        for word, after in zip_longest(given, given[1:])
    ]


def _refuse(message: str) -> NoReturn:
    """Raise argparse's error as a RequestError."""
    said = message.removeprefix("argument ")
    if unknown := re.match(r"unrecognized arguments: .*?(-[^\s=]*)", message):
        near = get_close_matches(unknown[1], get_args_parser()._option_string_actions, 1, 0.7)
        said = f"unknown flag {unknown[1]}" + (f", did you mean {near[0]}?" if near else "")
    raise RequestError(f"{said}; --hydra-help lists all flags, --help all keys")


def _readable(word: str, texts: Collection[str], several: bool) -> str:
    key, equal, value = word.partition("=")
    if not equal and word.startswith("~"):
        return word
    if not equal or not key.lstrip("+~"):
        raise RequestError(f"{word!r} is not of the form key=value; --help lists all keys")
    found = _read(value)
    if key.lstrip("+") not in texts:
        if several and found is None and _read(value.strip(",")) is not None:
            raise RequestError(f"{word} has a comma and no value beside it: leave the comma out")
        if found is None and not value.startswith(("[", "{")) and _read(key, key=True):
            raise RequestError(f"{word} cannot be read: if it is a text, type {typed(key, value)}")
        return word
    if value.startswith("~/") and not os.path.lexists(value):  # many shells do not expand it here
        value = str(Path(value).expanduser())
        found = _read(value)
    if not os.path.lexists(value):
        if several and (found is None or found.is_sweep_override()) and "," in value:
            return _swept(key, value, found)
        if _has_meaning(value, found, several):
            return word
    elif value.lower() == "null" or _is(found, value):
        return word
    return f"{key}={quoted(value)}"


def _has_meaning(value: str, found: Override | None, several: bool) -> bool:
    """True if Hydra may read the value: as the same text, or as null, quotes or a reference."""
    if found is None:
        return False
    if found.is_sweep_override():
        return several
    meant = value.lower() == "null" or value.startswith(("'", '"')) or "${" in value
    return meant or _is(found, value)


def _is(found: Override | None, value: str) -> bool:
    """True if Hydra and OmegaConf read exactly this text."""
    return found is not None and found.value() == value and "${" not in value


def _swept(key: str, value: str, found: Override | None) -> str:
    """The values of a multirun; RequestError if it is unclear where one ends."""
    if found is None:
        each = ",".join(quoted(part) for part in value.split(","))
        several = f'"{key}={each}"' if _safe(value) else shlex.quote(f"{key}={each}")
        raise RequestError(
            f"{key}={value} cannot be read: type {typed(key, value)} for one value, {several} for "
            "several"
        )
    if "/" in value:
        log.info("%s: a job for each value; for one with a comma type %s", key, typed(key, value))
    return f"{key}={value}"


def _read(value: str, key: bool = False) -> Override | None:
    """Hydra's reading of a value, or of the value x for a key; None if it cannot read it."""
    try:
        return _parser().parse_override(f"{value}=x" if key else f"x={value}")
    except HydraException:
        return None


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()
