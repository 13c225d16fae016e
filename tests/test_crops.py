"""The order in which a language model reads the rows of a picture that was cut into crops."""

import random

import pytest
import torch
from torch import Tensor

from asap.core.crops import NEWLINE, CropGrid, in_reading_order

SIDE, WIDTH = 4, 2
PATCHES = SIDE * SIDE


def reduced(draw: random.Random, extra: bool) -> tuple[int, list[int]]:
    """How many rows an image has, and the row of each of its patches: some dropped, some averages,
    some apart; with `extra`, its first row stands for no patch.
    """
    row_of = [-1] * PATCHES
    n = int(extra)
    left = draw.sample(range(PATCHES), PATCHES)
    while left and draw.random() < 0.9:
        for patch in [left.pop() for _ in range(min(len(left), draw.choice([1, 1, 1, 2, 3])))]:
            row_of[patch] = n
        n += 1
    return max(n, 1), row_of


def reference(
    lengths: list[int], held: list[list[int]], grid: CropGrid, order: str, by_patch: bool,
    placeless: int,
) -> list[tuple[int, int]]:  # fmt: skip
    """(image, row) in reading order, written with loops and a dictionary of places."""
    found = [(0, row) for row in range(lengths[0])]
    if order == "crop":
        return [(i, row) for i, n in enumerate(lengths) for row in range(n)]
    placed, of_none, others = {}, [], []
    for image, n in enumerate(lengths[1:], 1):
        down, across = divmod(image - 1, grid.across)
        for row in range(n):
            own = [patch for patch in range(PATCHES) if held[image][patch] == row]
            if (len(own) == 1 and row < n - placeless) or (by_patch and own):
                y, x = divmod(own[0], SIDE)
                placed[down * SIDE + y, across * SIDE + x] = (image, row)
            elif own:
                others.append((image, row))
            else:
                of_none.append((image, row))
    return found + [placed[place] for place in sorted(placed)] + of_none + others


@pytest.mark.parametrize("grid", [CropGrid(2, 2), CropGrid(1, 3), CropGrid(3, 1)], ids=str)
@pytest.mark.parametrize("order", ["grid", "crop"])
@pytest.mark.parametrize("by_patch", [True, False])
def test_reduced_rows_come_in_the_references_order(grid, order, by_patch):
    for seed in range(10):
        draw, placeless = random.Random(seed), seed % 3
        images = [reduced(draw, seed % 2 == 1) for _ in range(1 + grid.down * grid.across)]
        lengths, held = [n for n, _ in images], [rows for _, rows in images]
        rows = [torch.tensor([[i, k] for k in range(n)]) * 1.0 for i, n in enumerate(lengths)]
        found = in_reading_order(rows, torch.tensor(held), grid, order, by_patch, placeless)
        assert found.order is not None and len(found) == sum(lengths)
        read = [(int(i), int(k)) for i, k in found.rows[found.order]]
        assert read == reference(lengths, held, grid, order, by_patch, placeless)
        for patch, place in enumerate(found.held.tolist()):
            image, own = divmod(patch, PATCHES)
            assert (read[place] if place >= 0 else (image, -1)) == (image, held[image][own])


def whole(images: int) -> tuple[list[Tensor], Tensor]:
    """Unreduced images; a row has the number of its image and of its patch."""
    rows = [torch.tensor([[i, k] for k in range(PATCHES)]) * 1.0 for i in range(images)]
    return rows, torch.arange(PATCHES).repeat(images, 1)


def test_an_unreduced_picture_is_read_line_by_line_without_its_padding():
    grid = CropGrid(1, 2, (1, 3, 0, 8))
    rows, held = whole(3)
    found = in_reading_order(rows, held, grid)
    assert found.order is not None and len(found) == PATCHES + 2 * (8 + 1)
    assert found.order[:PATCHES].tolist() == list(range(PATCHES))
    for line, y in enumerate((1, 2)):
        own = found.order[PATCHES + 9 * line :][:9]
        assert own[-1] == NEWLINE
        expected = [[1 + x // SIDE, SIDE * y + x % SIDE] for x in range(8)]
        assert found.rows[own[:-1]].tolist() == expected
    above = found.held.view(3, SIDE, SIDE)[1:, 0]
    assert (above == -1).all() and (found.held >= 0).sum() == PATCHES + 16


@pytest.mark.parametrize("change", ["a row less", "another order", "a row of no patch"])
def test_a_reduced_picture_has_no_newline_rows_and_keeps_its_padding(change):
    rows, held = whole(3)
    if change == "a row less":
        rows[2], held[2, 5:] = rows[2][1:], held[2, 5:] - 1
        held[2, 5] = -1
    elif change == "another order":
        held[1] = held[1].flip(0)
    else:
        rows[1], held[1] = torch.cat([rows[1][:1], rows[1]]), held[1] + 1
    found = in_reading_order(rows, held, CropGrid(1, 2, (1, 3, 0, 8)))
    assert found.order is not None and sorted(found.order.tolist()) == list(range(len(found.rows)))


def test_without_a_window_an_unreduced_picture_is_read_with_all_its_patches():
    rows, held = whole(5)
    found = in_reading_order(rows, held, CropGrid(2, 2), by_patch=True)
    assert found.order is not None and len(found) == 5 * PATCHES
    assert found.rows[found.order[PATCHES:][:5]].tolist() == [
        [1, 0], [1, 1], [1, 2], [1, 3], [2, 0],
    ]  # fmt: skip
