"""Histograms of final token counts and of stop blocks: one small chart per method."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from textwrap import fill

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from asap.records.tables import matrix
from asap.report.figures.style import canvas, look, styled
from asap.report.result import Result

_WIDTH = 24  # letters in a line of a method's name


def token_counts(results: Sequence[Result], most: int | None = None) -> pd.DataFrame:
    """One row for each result and number of final tokens: label, tokens, images, key, colour.

    most: with more labels than that the frame is empty.
    """
    found = _counted(results, lambda frame: matrix(frame, "vision.tokens")[:, -1].tolist())
    return _frame("tokens", found, most)


def stop_blocks(results: Sequence[Result], most: int | None = None) -> pd.DataFrame:
    """One row for each result and stop block: label, block (0 = never), images, key, colour.

    Without results in which no image ever stops. most: with more labels than that the frame is
    empty.
    """
    found = _counted(results, lambda frame: frame["vision.stop_block"].tolist())
    return _frame(
        "block", ((result, counts) for result, counts in found if max(counts, default=0) > 0), most
    )


def _counted(
    results: Sequence[Result], values: Callable[[pd.DataFrame], list[int]]
) -> Iterator[tuple[Result, Counter[int]]]:
    """Results with answers, but for the baseline, with their counts over the readable images."""
    for result in results:
        if result.has_answers and not result.is_dense:
            yield result, Counter(values(result.traces()))


def _frame(
    name: str, found: Iterable[tuple[Result, Counter[int]]], most: int | None
) -> pd.DataFrame:
    """Counts as rows; `found` is not asked for more results once there are too many."""
    rows: list[dict] = []
    labels: set[str] = set()
    for result, counts in found:
        labels.add(result.label)
        if most is not None and len(labels) > most:
            rows = []
            break
        rows += [
            {"label": result.label, name: value, "images": counts[value], "key": result.key}
            | {"colour": look(result).colour}
            for value in sorted(counts)
        ]
    return pd.DataFrame(rows, columns=["label", name, "images", "key", "colour"])


def draw_token_counts(frame: pd.DataFrame) -> Figure:
    """Bars over the number of tokens, on one axis for all methods."""
    return _bars(frame, "tokens", "tokens that leave the last block")


def draw_stop_blocks(frame: pd.DataFrame) -> Figure:
    """Bars over the block of the first reduction; "never" is left of block 1."""
    figure = _bars(frame, "block", "block of the first reduction")
    last = int(frame["block"].max())
    ticks = sorted({0, *range(1, last + 1, max(1, last // 12))})
    axes = figure.axes[-1]
    axes.set_xticks(ticks, ["never" if block == 0 else str(block) for block in ticks])
    axes.set_xlim(-0.7, last + 0.7)
    return figure


def _bars(frame: pd.DataFrame, name: str, title: str) -> Figure:
    labels = list(dict.fromkeys(frame["label"]))
    with styled():
        figure = canvas(7.4, 0.62 * len(labels) + 0.9, layout="constrained")
        grid = figure.subplots(len(labels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, label in zip(grid, labels, strict=True):
            rows = frame[frame["label"] == label]
            for i, x, y in zip(rows.index, rows[name], rows["images"], strict=True):
                bar = Rectangle((x - 0.45, 0), 0.9, y, fc=rows["colour"].iloc[0], gid=f"bar-{i}")
                axes.add_patch(bar)
            axes.set_ylabel(fill(label, _WIDTH), rotation=0, ha="right", va="center", fontsize=8)
            axes.set_yticks([int(rows["images"].max())])
            axes.tick_params(axis="y", labelsize=7)
            axes.set_ylim(0, 1.08 * rows["images"].max())
        grid[-1].set_xlim(min(frame[name].min(), 1) - 1, frame[name].max() + 1)
        many = frame.attrs.get("images", "images")
        grid[-1].set_xlabel(f"{title}\n(bars: {many}; the tick is the highest)")
        return figure
