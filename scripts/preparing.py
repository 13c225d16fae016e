"""How the commands that check a copy of a data set report what they find."""

import argparse

from rich.console import Console

from asap.errors import RequestError

SHOWN = 20  # names listed per kind of problem


def at_least_one(text: str) -> int:
    """A number on the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not possible: give 1 or more")
    return int(text)


def console(stderr: bool = False) -> Console:
    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def refused(error: RequestError, how_to_get: str) -> int:
    """Print why there is nothing to check, and how to get it; the exit code."""
    console(stderr=True).print(f"error: {error}", markup=False)
    console().print(how_to_get, markup=False)
    return 2


def concluded(out: Console, problems: list[str], how_to_get: str) -> int:
    """Print the verdict, and how to get what is missing; the exit code."""
    out.print(f"{'complete' if not problems else 'not complete: ' + '; '.join(problems)}")
    if problems:
        out.print(how_to_get, markup=False)
    return 1 if problems else 0


def list_names(out: Console, head: str, names: list[str], what: str) -> None:
    """Print the first names, and how many there are of the kind `what`."""
    for name in names[:SHOWN]:
        out.print(f"{head:<10} {name}", markup=False)
    if len(names) > SHOWN:
        out.print(f"{head:<10} ... {len(names):,} in all, {what}", markup=False)
