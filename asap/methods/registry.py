"""From a name in a config to a method: the file name is the registry."""

import difflib
import importlib
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from asap.errors import RequestError, one_line
from asap.methods.base import Method

_PACKAGE = "asap.methods"


def names() -> tuple[str, ...]:
    """The methods of this package: its modules that define one. A helper file defines none."""
    modules = pkgutil.iter_modules([str(Path(__file__).parent)])
    return tuple(
        sorted(m.name for m in modules if _defined(importlib.import_module(f"{_PACKAGE}.{m.name}")))
    )


def find(name: str) -> type[Method]:
    """The method class in module `asap.methods.<name>`, or in the module at a dotted path.

    A user's own file is found in the current folder. RequestError if there is no such method.
    """
    inside = name in names()
    found = _defined(importlib.import_module(f"{_PACKAGE}.{name}") if inside else _own_module(name))
    if len(found) != 1:
        raise RequestError(
            f"method name={name!r}: its module defines {len(found)} subclasses of Method, not one"
        )
    return found[0]


def name_of(kind: type[Method]) -> str:
    """The name of the method in a config: its module in this package, or another's dotted path."""
    inside = kind.__module__.removeprefix(f"{_PACKAGE}.")
    return kind.__module__ if inside == kind.__module__ else inside.split(".")[0]


def _defined(module: ModuleType) -> list[type[Method]]:
    """The public methods that a module, or a file of a package, defines."""
    inside = f"{module.__name__}."
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Method) and value is not Method
        and f"{value.__module__}.".startswith(inside)
    ]  # fmt: skip


def _own_module(name: str):
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    if not all(part.isidentifier() for part in name.split(".")):
        raise RequestError(_unknown(name))
    try:
        return importlib.import_module(name)
    except Exception as error:  # the file's own code can raise anything
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise RequestError(_unknown(name)) from None
        reason = one_line(error, kind=True)
        raise RequestError(
            f"method name={name!r}: its file cannot be imported: {reason}: repair it"
        ) from error


@cache
def code_of(kind: type[Method]) -> str | None:
    """SHA-256 of the files, as they are now, that define a user's own method and its bases.

    None for a method of this package, which is identified by its `method_version`.
    """
    modules = dict.fromkeys(base.__module__ for base in kind.__mro__)
    own = [m for m in modules if m.split(".")[0] not in ("asap", *sys.stdlib_module_names)]
    files = [getattr(sys.modules.get(m), "__file__", None) for m in own]
    said = sha256(b"".join(sha256(Path(f).read_bytes()).digest() for f in files if f is not None))
    return said.hexdigest() if any(files) else None


def _unknown(name: str) -> str:
    near = difflib.get_close_matches(name, names(), 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return (
        f"method name={name!r} is unknown: {hint}use one of {', '.join(names())}, "
        "or the dotted path of a Python file of your own in the current folder"
    )


def build(name: str, options: Mapping[str, Any]) -> Method:
    """The method with its options; RequestError names an unknown option or an impossible value."""
    kind = find(name)
    known = {f.name: f.type for f in fields(kind)}
    for option in options:
        if option not in known:
            near = difflib.get_close_matches(option, known, 1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise RequestError(
                f"method {name!r} has no option {option!r}{hint} (its options: {', '.join(known)})"
            )
    try:
        return kind(**{k: _plain(v, known[k]) for k, v in options.items()})
    except ValueError as error:
        raise RequestError(f"method {name!r}: {error}") from None
    except TypeError as error:  # from comparing an option of the wrong type; it names no option
        reason = one_line(error)
        raise RequestError(f"method {name!r} with {dict(options)}: {reason}") from None


def _plain(value: Any, declared: Any) -> Any:
    """Whole numbers as floats where a float is declared: 3 becomes 3.0."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and declared is float else value
