"""Paths as users type them: an empty one is refused, and ~ is the home folder."""

import argparse
import os
from pathlib import Path
from typing import Annotated

from asap.errors import RequestError

# The type of every option that may be a path; other values, such as "hub", stay as they are.
_READ = (
    "IMAGENET",
    "KINETICS",
    "LVVIT_",
    "DYNAMICVIT_",
)  # beginnings of the variables that configs read
PathText = Annotated[str, "path"]


def given_path(key: str, text: str) -> str:
    """The text with ~ at its beginning replaced by the home folder; no shell does so after `key=`.

    RequestError if it is blank: as a path, that would be the current folder.
    """
    if not text.strip():
        names = [n for n in sorted(os.environ) if n.startswith(_READ) and not os.environ[n].strip()]
        which = f"{' and '.join(names)} in the environment set to nothing" if names else (
            "the variable that it is from, of the shell or the environment, not set")  # fmt: skip
        raise RequestError(f"{key}={text!r} is empty: give a value (is {which}?), or leave it out")
    return os.path.expanduser(text)  # noqa: PTH111


def path_argument(text: str) -> Path:
    """The same for the parsers of commands, as the type of an argument."""
    try:
        return Path(given_path("path", text))
    except RequestError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def folder_name(place: str) -> str:
    """The name of a folder. A snapshot in the hub's cache, whose own name is a commit, has that of
    its repository.
    """
    folder = Path(place).expanduser().resolve()
    above = folder.parent.parent.name
    if folder.parent.name == "snapshots" and above.startswith("models--"):
        return above.split("--")[-1]
    return folder.name
