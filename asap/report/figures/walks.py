"""The walk without a stop: P at some blocks, and its largest column mass (the paper's Figure 7)."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm

from asap.report.figures.style import FAINT, RED, canvas, save, styled


@dataclass(frozen=True)
class WalkPicture:
    """matrices (shown, n, n): P of one image after the blocks in `blocks` (from 1), prefix tokens
    first; mass (images, L): largest column mass over the patches after every block, of several
    images; tau: the threshold.
    """

    blocks: tuple[int, ...]
    matrices: np.ndarray
    mass: np.ndarray
    tau: float
    prefix: int


def selected_blocks(depth: int, count: int = 4) -> tuple[int, ...]:
    """`count` block numbers from 1 to `depth` at even distances, halves rounded up."""
    if depth <= count:
        return tuple(range(1, depth + 1))
    step = (depth - 1) / (count - 1)
    return tuple(int(1 + i * step + 0.5) for i in range(count))


def largest_mass(matrices: np.ndarray, prefix: int) -> np.ndarray:
    """(L, n, n) -> (L,): the largest column sum over the patches, which come after the prefix."""
    return matrices.sum(axis=1)[:, prefix:].max(axis=1)


def draw_walk(picture: WalkPicture, path: Path) -> list[Path]:
    """P of one image on top, the masses of all below; writes and returns .svg and .png."""
    with styled():
        figure = canvas(8.4, 5.6, layout="constrained")
        layout = figure.add_gridspec(2, len(picture.blocks), height_ratios=[1, 1.15])
        norm = PowerNorm(0.4, 0, 1)
        for i, block in enumerate(picture.blocks):
            axes = figure.add_subplot(layout[0, i])
            axes.imshow(picture.matrices[i], cmap="magma", norm=norm)
            axes.set(title=f"P after block {block}", xticks=[], yticks=[])
        figure.colorbar(
            ScalarMappable(norm, "magma"),
            ax=figure.axes[: len(picture.blocks)],
            shrink=0.85,
            aspect=14,
        )
        _draw_mass(figure.add_subplot(layout[1, :]), picture)
        return save(figure, path)


def _draw_mass(axes, picture: WalkPicture) -> None:
    blocks = np.arange(1, picture.mass.shape[1] + 1)
    axes.plot(blocks, picture.mass.T, color=FAINT, lw=0.5, alpha=0.6)
    axes.plot(blocks, picture.mass.mean(axis=0), color="#d55e00", marker="o", ms=4, label="mean")
    axes.axhline(picture.tau, color=RED, ls=(0, (5, 3)), lw=1.2, label=f"τ = {picture.tau:g}")
    axes.set(xlabel="block", ylabel="largest column mass")
    axes.set_xticks(blocks)
    axes.set_title(f"{len(picture.mass)} images, no stop and no reduction; thin: one image each")
    axes.grid()
    axes.legend()
