"""Files that lie among pictures and are not evaluated, as records count them, in words."""

from collections.abc import Mapping


def counts_in_words(counts: Mapping[str, int]) -> str:
    """Counts as a phrase: "3 .heic, 1 second name"."""
    return ", ".join(f"{n:,} {name if n > 1 else _one(name)}" for name, n in counts.items())


def _one(name: str) -> str:
    words = name.split(" ")
    one = {
        "names": "name",
        "files": "file",
        "links": "link",
        "pictures": "picture",
        "clips": "clip",
        "are": "is",
    }
    return " ".join(one.get(word, word) for word in words) if "." not in name else name
