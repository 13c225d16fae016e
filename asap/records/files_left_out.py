"""Files that lie among pictures and are not evaluated, as records count them, in words."""

from collections.abc import Mapping


def said(counts: Mapping[str, int]) -> str:
    """Counts in words: "3 .heic, 1 second names"."""
    return ", ".join(f"{n:,} {name if n > 1 else _one(name)}" for name, n in counts.items())


def _one(name: str) -> str:
    words = name.split(" ")
    one = {"names": "name", "files": "file", "links": "link", "pictures": "picture"}
    return " ".join(one.get(word, word) for word in words) if "." not in name else name
