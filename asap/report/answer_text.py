"""What a model said, and what is right, as a terminal or a figure can show it."""

from collections.abc import Sequence


def answer_text(text: str, most: int | None = None) -> str:
    """The text on one line of printable signs, cut to `most` letters; "–" if nothing is left.

    A model may say line ends and control signs too, which would act on a terminal.
    """
    printable = "".join(sign if sign.isprintable() else " " for sign in text)
    said = " ".join(printable.split())
    if most is not None and len(said) > most:
        said = f"{said[: most - 1].rstrip()}…"
    return said or "–"


def right_ones(kind: str, answers: Sequence[str]) -> tuple[str, ...]:
    """The right answers to a question of a kind, each once; of options the letter."""
    return tuple(answers[:1]) if kind == "option" else tuple(dict.fromkeys(answers))
