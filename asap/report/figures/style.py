"""One style for all figures: a fixed colour and marker per method, and reproducible files.

Hues are those of Okabe and Ito, darkened where they would be faint on paper. No two methods share
both colour and marker, so figures can be read in grey and by colour-blind readers. In the page the
inks follow the reader's light or dark scheme (`INKS`).
"""

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from asap.report.result import Result

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "asap",
    "text.parse_math": False,  # a question or a label may hold dollar signs
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#7b8794",
    "axes.labelcolor": "#1f2933",
    "axes.titlesize": 9,
    "axes.titlecolor": "#1f2933",
    "text.color": "#1f2933",
    "xtick.color": "#52606d",
    "ytick.color": "#52606d",
    "legend.frameon": False,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.6,
}
INK, FAINT, AIR, RED = "#1f2933", "#7b8794", "#ffffff", "#c81e1e"
RIGHT, WRONG = "#1f7a4d", "#b42318"  # of a prediction
# What a page replaces to make a figure follow its colours: our ink -> the page's variable.
INKS = {INK: "--ink", "#52606d": "--soft", FAINT: "--faint", "#e4e7eb": "--line", AIR: "--card"}


@dataclass(frozen=True)
class Look:
    """How a method is drawn everywhere: colour, marker, and whether the marker is filled."""

    colour: str
    marker: str
    filled: bool = True


_LOOKS = {
    "dense": Look(INK, "D"),
    "random_drop": Look("#8a6d3b", "x"),
    "tome": Look("#0072b2", "s"),
    "ppt": Look("#00805f", "^"),
    "evit": Look("#2f8fc4", "<"),
    "ats": Look("#5d7a00", ">"),
    "zero_tprune": Look("#5d3a9b", "p"),
    "dynamicvit": Look("#2a9d8f", "h"),
    "visionzip": Look("#00805f", "s"),
    "vispruner": Look("#5d7a00", "^"),
    "prunesid": Look("#5d3a9b", "<"),
    "fastv": Look("#8a6d3b", ">"),
    "sparsevlm": Look("#2a9d8f", "p"),
    "object_rows": Look("#c81e1e", "+"),
    "background_rows": Look("#4b5563", "x"),
    "asap": Look("#d55e00", "o"),
    "hybrid": Look("#d55e00", "p"),
    "pruning": Look("#b8860b", "v"),
    "no_accumulation": Look("#a63d40", "P"),
    "random": Look("#c2528b", "X"),
    "pca": Look("#882255", "*"),
    "mass": Look("#e07b39", "8"),
    "quiet": Look("#4b5563", "d"),
    "static": Look("#d55e00", "H"),
    "static_quiet": Look("#4b5563", "H"),
}
_OWN = Look("#6b7280", "d")


def look(result: Result) -> Look:
    """The method's look; hollow: an extension of ours, grey: a method of the user's own."""
    found = _LOOKS.get(variant(result.reducing), _OWN)
    return Look(found.colour, found.marker, False) if result.ours else found


def variant(method: Mapping[str, Any]) -> str:
    """The method's name; for ASAP the variant that its options make (a key of `_LOOKS`)."""
    name, options = str(method.get("name")), method.get("options", {})
    if name == "reference_rows":
        return f"{options.get('keep')}_rows"
    if name != "asap":
        return name
    if options.get("accumulate") is False:
        return "no_accumulation"
    anchor = str(options.get("anchor", "sink"))
    if (options.get("binning"), options.get("miss")) == ("rank", "force"):
        return "static" if anchor == "sink" else f"static_{anchor}"
    if anchor != "sink":
        return anchor
    if options.get("plugin") is not None:
        return "hybrid"
    return "pruning" if options.get("pool") is False else "asap"


@contextmanager
def styled() -> Iterator[None]:
    """Context with the project's style; a user's own matplotlib settings have no effect in it."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def canvas(width: float, height: float, **options: Any) -> Figure:
    """An empty figure, `width` x `height` inches. Draw within `styled`."""
    figure = Figure(figsize=(width, height), dpi=150, **options)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path) -> list[Path]:
    """Write `path` as .svg and .png, without date or version: equal figures give equal bytes.

    Returns both paths.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    written = [path.with_suffix(suffix) for suffix in (".svg", ".png")]
    with styled():
        figure.savefig(written[0], metadata={"Date": None})
        figure.savefig(written[1], metadata={"Software": None})
    return written


def svg(figure: Figure) -> str:
    """The figure as SVG with text as text, not outlines: smaller, and searchable in a page."""
    out = io.StringIO()
    with styled():
        mpl.rcParams["svg.fonttype"] = "none"
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue().replace("'DejaVu Sans'", "'DejaVu Sans', Verdana, sans-serif")
