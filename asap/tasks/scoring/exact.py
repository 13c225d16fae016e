"""The right words and nothing else, as GQA is scored: case and periods at the end do not count."""

from collections.abc import Sequence


def score(text: str, answers: Sequence[str]) -> float:
    """1 if the text is one of the right answers, else 0."""
    return float(_plain(text) in map(_plain, answers))


def _plain(text: str) -> str:
    return text.strip().rstrip(".").lower()
