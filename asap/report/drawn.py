"""Notes from which records a run's files were made, so that nothing is drawn twice.

    <results>/digests/<title>.drawn.json    digest of the sources, and of every file

If the records are there already, drawing is most of a run's time.
"""

import json
from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from asap.records.disk import read_bytes, write_file
from asap.report.result import Result

_PACKAGE = Path(__file__).resolve().parents[1]
_READ = (".py", ".css", ".js", ".j2")
_LIBRARIES = ("matplotlib", "pillow", "torch", "timm", "jinja2")


def sources(results: Sequence[Result], *more: Any) -> str:
    """SHA-256 of all sources of a run's files: its rows, `more`, and the code."""
    names = [f.name for f in fields(Result) if f.name != "read"]  # its record names them
    rows = [[getattr(result, name) for name in names] for result in results]
    said = json.dumps([rows, *more, _code()], sort_keys=True, default=str)
    return sha256(said.encode()).hexdigest()


@cache
def _code() -> str:
    said = sha256(" ".join(f"{name} {version(name)}" for name in _LIBRARIES).encode())
    for file in sorted(path for path in _PACKAGE.rglob("*") if path.suffix in _READ):
        said.update(file.read_bytes())
    return said.hexdigest()


def drawn(mark: Path, made_from: str) -> tuple[Path, ...] | None:
    """The files of an earlier run from the same sources, None unless all are unchanged."""
    content = read_bytes(mark)
    try:
        said = json.loads(content or b"{}")
        if said["from"] != made_from:
            return None
        files = {Path(name): digest for name, digest in said["files"].items()}
    except (ValueError, LookupError, TypeError, AttributeError):
        return None
    found = all(digest and digest == _digest(file) for file, digest in files.items())
    return tuple(files) if files and found else None


def note_drawn(mark: Path, made_from: str, files: Sequence[Path]) -> None:
    """Write the note `mark`: the sources, and the digests of the files made from them."""
    said = {"from": made_from, "files": {str(file): _digest(file) for file in files}}
    write_file(mark, json.dumps(said, indent=1) + "\n")


def _digest(file: Path) -> str | None:
    content = read_bytes(file)
    return None if content is None else sha256(content).hexdigest()
