"""How many yes/no answers each row corrects and corrupts, by what was wrong (Appendix K)."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from asap.report.figures.style import FAINT, INK, canvas, styled
from asap.report.flips import CORRECTED, CORRUPTED, NEGATIVE, NEITHER, POSITIVE, all_flips
from asap.report.result import Result

# By kind: the side of the bar, its colour, and what the legend says.
_KINDS = {
    (CORRECTED, NEGATIVE): (1, "#1f7a4d", "corrected no (false negatives of full)"),
    (CORRECTED, POSITIVE): (1, "#8fcbae", "corrected yes (false positives of full)"),
    (CORRECTED, NEITHER): (1, "#c9d3dd", "corrected what is neither yes nor no"),
    (CORRUPTED, NEGATIVE): (-1, "#b42318", "corrupted to no (new false negatives)"),
    (CORRUPTED, POSITIVE): (-1, "#eba49d", "corrupted to yes (new false positives)"),
    (CORRUPTED, NEITHER): (-1, "#8a94a0", "corrupted to neither yes nor no"),
}


def flip_counts(results: Sequence[Result]) -> pd.DataFrame:
    """One row per result: label, key, n (yes/no questions) and a column "<flip> <error>" for each
    kind of flip; those of neither yes nor no only where there are any. Empty if no row has any
    flip, or if the rows are not all of the same questions.
    """
    found = all_flips(results)
    rows = []
    for row, flips in found:
        kinds = {" ".join(kind): flips.count(*kind) for kind in _KINDS}
        rows.append({"label": row.label, "key": row.key, "n": flips.paired.n, **kinds})
    asked = {row.measured["identity"]["data"]["content"] for row, _ in found}
    flipped = any(len(flips.questions) for _, flips in found)
    if not flipped or len(asked) != 1:
        return pd.DataFrame()
    frame = pd.DataFrame(rows)
    neither = [" ".join(kind) for kind in _KINDS if kind[1] == NEITHER]
    never = [name for name in neither if not frame[name].any()]
    return frame.drop(columns=never)


def draw_flip_counts(frame: pd.DataFrame) -> Figure:
    """A bar for each row: what it corrects to the right, what it corrupts to the left."""
    with styled():
        figure = canvas(7.6, 0.24 * len(frame) + 1.5, layout="constrained")
        axes = figure.subplots()
        places = range(len(frame))
        ends = {1: [0] * len(frame), -1: [0] * len(frame)}
        for kind, (side, colour, name) in _KINDS.items():
            if " ".join(kind) not in frame:
                continue
            counts = [side * n for n in frame[" ".join(kind)]]
            axes.barh(places, counts, 0.7, left=ends[side], color=colour, label=name)
            ends[side] = [a + b for a, b in zip(ends[side], counts, strict=True)]
        for side, place in ((1, "left"), (-1, "right")):
            for i, end in enumerate(ends[side]):
                axes.annotate(
                    f"{abs(end):,}", (end, i), (3 * side, 0), textcoords="offset points",
                    ha=place, va="center", size=7.5, color=FAINT,
                )  # fmt: skip
        axes.axvline(0, color=INK, linewidth=0.8)
        axes.set_yticks(places, frame["label"], size=8)
        axes.invert_yaxis()
        axes.margins(x=0.08)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.xaxis.set_major_formatter(lambda value, _: f"{abs(value):,.0f}")
        axes.set_xlabel(f"answers of {frame['n'].max():,} yes/no questions")
        figure.legend(loc="outside lower center", ncols=2, fontsize=8)
        return figure
