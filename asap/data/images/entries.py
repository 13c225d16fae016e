"""The entries of a folder, and which of them are names of one file."""

import os
from typing import NoReturn, TypeAlias

from asap.data.images.left_out import is_rubbish
from asap.errors import RequestError

Key: TypeAlias = tuple[int, ...] | str  # equal for two names of one file or folder


def key_of(path: str, found: os.stat_result, folder: bool = False) -> Key:
    """A key that is equal for two names of one file or folder, and different for two files.

    It has size and time beside the inode, since some network file systems use an inode number
    twice.
    """
    if found.st_ino == 0:  # a file system without inode numbers
        return os.path.realpath(path)
    if folder:
        return found.st_dev, found.st_ino
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def entries(folder: str) -> list[os.DirEntry[str]]:
    """The entries of a folder, by name. RequestError if unreadable: it would look empty."""
    try:
        with os.scandir(folder) as found:
            return sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        refuse(error)


def of_a_tool(entry: os.DirEntry[str]) -> bool:
    """True if an entry is hidden, or was created by a system or a tool."""
    return is_rubbish(entry.name, folder=entry.is_dir(follow_symlinks=False))


def refuse(error: OSError) -> NoReturn:
    """Raise the RequestError for a folder that is not readable."""
    raise RequestError(f"{error.filename} cannot be read ({error.strerror}): make it readable")
