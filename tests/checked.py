"""The check of annotations at run time, for half its price: what the import hook puts on asap.

jaxtyping's own decorator binds every call to a signature, checks the arguments, calls, and checks
the arguments again with the answer: half of the time of a test of small tensors, and two functions
compiled for each function that is imported. Here each function is compiled at its first call, and
a call checks once, the dimensions of arguments and answer in one context, as there. What raises an
error, and what is let through, is the same.

A function that is called over and over in one test file is checked in its first `ALL` calls there
and in every `SOME`th after them: the blocks of a network, and the images of a batch, look alike.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable
from typing import Any, get_args

import jaxtyping
from beartype import BeartypeConf, beartype

THEIRS = jaxtyping.jaxtyped
ALL, SOME = 20, 16
CONF = BeartypeConf(violation_type=jaxtyping.TypeCheckError)


def jaxtyped(found: Any = None, *, typechecker: Any = None) -> Any:
    """In the place of `jaxtyping.jaxtyped`, for functions; their own decorator does the rest."""
    if found is None:
        return functools.partial(jaxtyped, typechecker=typechecker)
    if inspect.isclass(found):
        if dataclasses.is_dataclass(found) and not hasattr(found.__init__, "__wrapped__"):
            found.__init__ = _checked(found.__init__)
        return found
    if not inspect.isfunction(found) or inspect.isgeneratorfunction(found):
        return THEIRS(found, typechecker=typechecker)
    return _checked(found)


_files = 0  # test files begun


def begin_file() -> None:
    """Count every function's calls from zero again."""
    global _files
    _files += 1


def _checked(function: Callable) -> Callable:
    made: Callable | None = None
    file = calls = 0

    @functools.wraps(function)
    def counted(*args: Any, **kwargs: Any) -> Any:
        nonlocal made, file, calls
        if file != _files:
            file, calls = _files, 0
        calls += 1
        if calls > ALL and calls % SOME:
            return function(*args, **kwargs)
        if made is None:
            made = _compiled(function)
        return made(*args, **kwargs)

    return counted


def _compiled(function: Callable) -> Callable:
    checked = beartype(conf=CONF)(function)
    if not any(_has_shape(hint) for hint in function.__annotations__.values()):
        return checked

    def in_a_context(*args: Any, **kwargs: Any) -> Any:
        with THEIRS("context"):
            return checked(*args, **kwargs)

    return in_a_context


def _has_shape(hint: Any) -> bool:
    if isinstance(hint, str):
        return True  # not looked up here
    if inspect.isclass(hint) and issubclass(hint, jaxtyping.AbstractArray):
        return True
    return any(_has_shape(part) for part in get_args(hint))
