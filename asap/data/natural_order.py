"""The order of files: natural order, as in timm."""

import re


def natural_key(text: str) -> tuple[list[int | str], str]:
    """Sort key that puts img2 before img10.

    Names that differ only in case or leading zeros have different keys.
    """
    parts = re.split(r"(\d+)", text.lower())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], text


def in_order(paths: list[str]) -> list[int]:
    """The positions of the paths in natural order."""
    return sorted(range(len(paths)), key=lambda i: natural_key(paths[i]))
