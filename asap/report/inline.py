"""Figures inside a page: SVG in the page's colours with numbers as tooltips; pictures as data."""

import base64
import io
import re
from collections.abc import Mapping
from html import escape

from PIL import Image

from asap.report.figures.style import INKS

_IDS = re.compile(r'(\bid="|xlink:href="#|url\(#)([^")]+)')


def inline_svg(text: str, prefix: str, label: str, titles: Mapping[str, str]) -> str:
    """A figure's SVG for a page: `prefix` makes ids unique, inks become the page's variables,
    `titles` (by group id) are tooltips of marks, `label` is read out by screen readers.
    """
    body = text[text.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    width, height = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', body).groups()  # type: ignore[union-attr]
    head = (
        f'<svg viewBox="0 0 {width} {height}" style="--w:{width}" role="img" '
        f'aria-label="{escape(label)}" xmlns:xlink="http://www.w3.org/1999/xlink" '
        'xmlns="http://www.w3.org/2000/svg">'
    )
    body = head + body[body.index(">") + 1 :]
    for gid, title in titles.items():
        mark = f'<g id="{gid}">'
        body = body.replace(mark, f'<g id="{gid}" data-tip="{escape(title)}">')
    body = _IDS.sub(rf"\g<1>{prefix}-\g<2>", body)
    for ink, variable in INKS.items():
        body = re.sub(re.escape(ink) + r"\b", f"var({variable})", body, flags=re.IGNORECASE)
    return re.sub(r"\n\s*", "\n", body)


def picture_uri(png: bytes) -> tuple[str, int] | None:
    """A PNG as a data URI, re-encoded as WebP so that pages stay small, and its width in pixels;
    None if it is damaged.
    """
    out = io.BytesIO()
    try:
        picture = Image.open(io.BytesIO(png)).convert("RGB")
        picture.save(out, "WEBP", quality=85, method=4)
    except OSError:
        return None
    return "data:image/webp;base64," + base64.b64encode(out.getvalue()).decode(), picture.width


def animation_uri(webp: bytes | None) -> tuple[str, int] | None:
    """An animation as a data URI, and how many milliseconds it takes; None if it is damaged."""
    try:
        with Image.open(io.BytesIO(webp or b""), formats=["WEBP"]) as picture:
            lasts = 0
            for k in range(getattr(picture, "n_frames", 1)):
                picture.seek(k)
                picture.load()
                lasts += picture.info.get("duration", 0)
    except (OSError, EOFError):
        return None
    return "data:image/webp;base64," + base64.b64encode(webp or b"").decode(), lasts
