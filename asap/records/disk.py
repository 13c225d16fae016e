"""Files written whole or not at all, and a disk's errors as one clear line."""

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from filelock import AcquireReturnProxy, BaseFileLock, Timeout

from asap.errors import RequestError


@contextmanager
def guarded(path: Path, another: str = "results folder") -> Iterator[None]:
    """Turn a disk's error (full, read-only, not permitted) into a RequestError of one line."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise RequestError(
            f"{path} cannot be used ({reason}): free space, make it writable, "
            f"or choose another {another}"
        ) from error


def acquired(lock: BaseFileLock, wait: Callable[[], object]) -> AcquireReturnProxy:
    """The lock, held until its `with` ends; `wait` is called first if another process has it."""
    try:
        return lock.acquire(timeout=0)
    except Timeout:
        wait()
        return lock.acquire()


def check_space(folder: Path, needed: int, what: str, otherwise: str) -> None:
    """RequestError now if the disk has too little space, and not after hours of work."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise RequestError(
            f"{what} {size_text(needed)} in {folder}, where {size_text(free)} are free: free "
            f"space, {otherwise}"
        )


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    with guarded(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_through(beside, content)
            beside.replace(path)
        finally:  # after an interrupt or a full disk, no temporary file is left
            with suppress(OSError):
                beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def write_through(path: Path, content: bytes) -> None:
    """Write and wait until the bytes are on the disk: a rename must not overtake them."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def read_bytes(path: Path) -> bytes | None:
    """The content, None if there is no such file."""
    with guarded(path):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, if the file system can."""
    with suppress(OSError):  # not possible on some network file systems; the files are safe
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def size_text(count: int) -> str:
    """A number of bytes as text, in MB or GB of powers of ten."""
    return f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.2f} MB"


def stem_of(title: str) -> str:
    """A file name made of a title: its letters and digits, of any alphabet."""
    stem = "".join(c if c.isalnum() else "-" for c in title.lower()).strip("-")
    return shortened(stem, title, 80)


def shortened(stem: str, title: str, longest: int) -> str:
    """The name; if it is too long, cut and with a digest of the title, which keeps it unique.

    File systems allow 255 bytes, with the ending.
    """
    if len(stem.encode()) <= longest:
        return stem
    digest = hashlib.sha256(title.encode()).hexdigest()[:8]
    return f"{stem.encode()[:longest].decode(errors='ignore')}-{digest}"


def write_file(path: Path, text: str) -> Path:
    """Write a text file whole or not at all; returns its path."""
    write_bytes(path, text.encode())
    return path


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """A record as the bytes of a JSON file. ValueError on NaN and infinity."""
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    # Half a surrogate pair, from a file name that is not UTF-8, is written as JSON's own \udcxx.
    return (text + "\n").encode("utf-8", "backslashreplace")


def yaml_bytes(config: Mapping[str, Any]) -> bytes:
    """Settings as the bytes of a YAML file."""
    plain = json.loads(json.dumps(config))  # tuples become lists; objects raise TypeError
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True).encode()
