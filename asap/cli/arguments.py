"""The command line as people type it, brought into the form that Hydra reads.

Hydra wants its flags on one side of all key=value words, and reads a value as a number, a list, a
sweep or a reference wherever it can. Options that hold a text or a path are taken to the letter.
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
    """The words of a command line as Hydra takes them: flags first, then key=value words.

    The value of an option among `texts` is what stands behind its `=`, to the letter; `~/` is the
    home. It keeps its meaning where it is null, in quotes or holds a reference such as
    ${oc.env:HOME}, unless a file is called just that; and in a multirun where it is several values.
    Raises RequestError for unknown flags and for what cannot be read, with a form that works.
    """
    flags, words = _apart(given)
    several = not {"-m", "--multirun", "hydra.mode=MULTIRUN"}.isdisjoint(given)
    return [*flags, *(_readable(word, texts, several) for word in words)]


def typed(key: str, value: str) -> str:
    """What to type in a shell so that an option is this text, to the letter."""
    if _safe(value):
        return f'"{key}={quoted(value)}"'
    return shlex.quote(f"{key}={quoted(value, Quote.double)}")


def quoted(value: str, quote: Quote = Quote.single) -> str:
    """A text in Hydra's quotes, its `${` being no reference."""
    plain = re.sub(r"(\\*)\$\{", lambda found: 2 * found[1] + r"\${", value)
    return QuotedString(plain, quote).with_quotes()


def sweeps(word: str) -> bool:
    """Whether a word of `arranged` has several values."""
    try:
        return _parser().parse_override(word).is_sweep_override()
    except HydraException:  # a flag
        return False


def _safe(value: str) -> bool:
    """Whether a shell leaves it alone between double quotes, in Hydra's single ones."""
    return re.search(r"""["'$`\\!]""", value) is None


def _apart(given: Sequence[str]) -> tuple[list[str], list[str]]:
    """Flags with their values, and key=value words, wherever they stand."""
    for word in given:
        if re.search("[\ud800-\udfff]", word):
            raise RequestError(f"{word!r} is not UTF-8: rename the file, or link to it")
    if "--version" in given:  # the parser would say Hydra's
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
    """The words with a value for --info, which may be left out: the next word must not become it,
    here and for Hydra.
    """
    possible = parser._option_string_actions["--info"].choices or ()
    return [
        "--info=all" if word in ("-i", "--info") and after not in possible else word
        for word, after in zip_longest(given, given[1:])
    ]


def _refuse(message: str) -> NoReturn:
    """What argparse has to say."""
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
    if value.startswith("~/") and not os.path.lexists(value):  # many shells leave that to us
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
    """Whether Hydra reads the same text, or something that is not meant to the letter."""
    if found is None:
        return False
    if found.is_sweep_override():
        return several
    meant = value.lower() == "null" or value.startswith(("'", '"')) or "${" in value
    return meant or _is(found, value)


def _is(found: Override | None, value: str) -> bool:
    """Whether Hydra and OmegaConf read just this text."""
    return found is not None and found.value() == value and "${" not in value


def _swept(key: str, value: str, found: Override | None) -> str:
    """The values of a multirun; RequestError where they cannot be told apart."""
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
    """How Hydra reads a value, or the value x of a key; None where it cannot."""
    try:
        return _parser().parse_override(f"{value}=x" if key else f"x={value}")
    except HydraException:
        return None


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()
