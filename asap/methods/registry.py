"""From a name in a config to a method or a pruner: the file name is the registry."""

import importlib
import logging
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from asap.errors import RequestError, meant, one_line
from asap.methods.base import Method
from asap.methods.language.base import Pruner

log = logging.getLogger("asap")
Kind = TypeVar("Kind", Method, Pruner)
_PACKAGES: dict[type, str] = {Method: "asap.methods", Pruner: "asap.methods.language"}


def names() -> tuple[str, ...]:
    """The methods of this package: its modules that define one. A helper file defines none."""
    return _names(Method)


def pruner_names() -> tuple[str, ...]:
    """The pruners, the methods of the stage "language"."""
    return _names(Pruner)


def find(name: str) -> type[Method]:
    """The method class in module `asap.methods.<name>`, or in the module at a dotted path.

    A user's own file is found in the current folder. RequestError if there is no such method.
    """
    return _find(name, Method)


def find_pruner(name: str) -> type[Pruner]:
    """The pruner class in module `asap.methods.language.<name>`, else as `find`."""
    return _find(name, Pruner)


def name_of(kind: type[Method] | type[Pruner]) -> str:
    """The name in a config: the module in the package of its kind, or another's dotted path."""
    package = _PACKAGES[Pruner if issubclass(kind, Pruner) else Method]
    inside = kind.__module__.removeprefix(f"{package}.")
    return kind.__module__ if inside == kind.__module__ else inside.split(".")[0]


def _names(base: type) -> tuple[str, ...]:
    package = _PACKAGES[base]
    folder = Path(__file__).parent.joinpath(*package.split(".")[2:])
    modules = {m.name: f"{package}.{m.name}" for m in pkgutil.iter_modules([str(folder)])}
    return tuple(
        sorted(n for n, at in modules.items() if _defined(importlib.import_module(at), base))
    )


def _find(name: str, base: type[Kind]) -> type[Kind]:
    inside = name in _names(base)
    at = f"{_PACKAGES[base]}.{name}"
    module = importlib.import_module(at) if inside else _own_module(name, base)
    found = _defined(module, base)
    if len(found) != 1:
        raise RequestError(
            f"method name={name!r}: its module defines {len(found)} subclasses of "
            f"{base.__name__}, not one"
        )
    return found[0]


@cache
def _tell_unused(name: str) -> None:
    """Warn, once, if a file in the current folder has the name of a method of this package."""
    own = Path.cwd() / f"{name}.py"
    if own.is_file() and own.parent not in Path(__file__).parents:
        log.warning("method name=%r is this package's: %s is not used: rename it", name, own.name)


def _defined(module: ModuleType, base: type[Kind]) -> list[type[Kind]]:
    """The public methods that a module, or a file of a package, defines."""
    inside = f"{module.__name__}."
    return [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value is not base
        and f"{value.__module__}.".startswith(inside)
    ]  # fmt: skip


def _own_module(name: str, base: type) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    if not all(part.isidentifier() for part in name.split(".")):
        raise RequestError(_unknown(name, base))
    try:
        return importlib.import_module(name)
    except Exception as error:  # the file's own code can raise anything
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            raise RequestError(_unknown(name, base)) from None
        reason = one_line(error, kind=True)
        raise RequestError(
            f"method name={name!r}: its file cannot be imported: {reason}: repair it"
        ) from error


@cache
def code_of(kind: type[Method] | type[Pruner]) -> str | None:
    """SHA-256 of the files, as they are now, that define a user's own method and its bases.

    None for a method of this package, which is identified by its version.
    """
    modules = dict.fromkeys(base.__module__ for base in kind.__mro__)
    own = [m for m in modules if m.split(".")[0] not in ("asap", *sys.stdlib_module_names)]
    files = [getattr(sys.modules.get(m), "__file__", None) for m in own]
    said = sha256(b"".join(sha256(Path(f).read_bytes()).digest() for f in files if f is not None))
    return said.hexdigest() if any(files) else None


def _unknown(name: str, base: type) -> str:
    hint = meant(name, _names(base), after=" ")
    return (
        f"method name={name!r} is unknown: {hint}use one of {', '.join(_names(base))}, "
        "or the dotted path of a Python file of your own in the current folder"
    )


def build(name: str, options: Mapping[str, Any]) -> Method:
    """The method with its options; RequestError names an unknown option or an impossible value."""
    return _build(name, options, find(name))


def build_pruner(name: str, options: Mapping[str, Any]) -> Pruner:
    """The pruner with its options; RequestError as for `build`."""
    return _build(name, options, find_pruner(name))


def _build(name: str, options: Mapping[str, Any], kind: type[Kind]) -> Kind:
    if kind.__module__.startswith("asap."):
        _tell_unused(name)
    known = {f.name: f.type for f in fields(kind)}
    for option in options:
        if option not in known:
            hint = meant(option, known, before=": ")
            none = "it has none: annotated fields of a @dataclass(frozen=True) are options"
            listed = f"its options: {', '.join(known)}" if known else none
            raise RequestError(f"method {name!r} has no option {option!r}{hint} ({listed})")
    try:
        made = kind(**{k: _plain(v, known[k]) for k, v in options.items()})
        hash(made)  # equal settings are measured once
        return made
    except ValueError as error:
        raise RequestError(f"method {name!r}: {error}") from None
    except TypeError as error:  # from comparing an option of the wrong type; it names no option
        reason = one_line(error)
        if reason.startswith("unhashable"):
            reason += (
                ": options are numbers, texts, null and lists of these, which "
                "super().__post_init__() makes tuples: call it"
            )
        raise RequestError(f"method {name!r} with {dict(options)}: {reason}") from None


def _plain(value: Any, declared: Any) -> Any:
    """Whole numbers as floats where a float is declared: 3 becomes 3.0."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return float(value) if whole and declared is float else value
