"""Text in lines of a terminal, none wider than asked for."""

import textwrap
import unicodedata
from collections.abc import Sequence


def width_of(text: str) -> int:
    """Columns of a terminal: wide characters (Chinese, Japanese, Korean) take two, combining ones
    (accents, joiners) none.
    """
    return sum(_width(sign) for sign in text)


def _width(sign: str) -> int:
    if unicodedata.category(sign) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(sign) in "WF" else 1


def wrapped(text: str, width: int, indent: str = "") -> list[str]:
    """The text in lines of at most `width` columns, all but the first behind `indent`. Breaks are
    between words; a word that is wider than a line is cut.
    """
    if all(_width(sign) == 1 for sign in text):
        lines = textwrap.wrap(text, width, subsequent_indent=indent, break_on_hyphens=False)
        return lines or [""]
    lines = [""]
    for word in text.split():
        if lines[-1].strip() and width_of(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
            continue
        lines += [indent] if lines[-1].strip() else []
        for sign in word:
            if width_of(lines[-1] + sign) > width and lines[-1].strip():
                lines.append(indent)
            lines[-1] += sign
    return lines


def padded(text: str, width: int, left: bool) -> str:
    """The text with spaces to `width` columns."""
    space = " " * (width - width_of(text))
    return text + space if left else space + text


def fitted(widths: Sequence[int], floors: Sequence[Sequence[int]], room: int) -> list[int]:
    """Widths of columns that together take at most `room`, if the last of `floors` allows it.

    The widest column is narrowed first. Each entry of `floors` holds a lowest width for every
    column; when no column is above its own, the next entry applies.
    """
    found = list(widths)
    for floor in floors:
        while sum(found) > room:
            able = [i for i, w in enumerate(found) if w > floor[i]]
            if not able:
                break
            found[max(able, key=lambda i: found[i])] -= 1
    return found


def stacked(cells: Sequence[Sequence[str]], bottom: bool = False) -> list[list[str]]:
    """Cells of several lines each as the lines of a row; bottom: align short cells there."""
    height = max((len(cell) for cell in cells), default=0)
    blank = [[""] * (height - len(cell)) for cell in cells]
    pairs = zip(blank, cells, strict=True)
    filled = [[*b, *cell] if bottom else [*cell, *b] for b, cell in pairs]
    return [[cell[i] for cell in filled] for i in range(height)]
